package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/memory"
)

// dataDir says where the log on disk is.
type dataDir struct {
	DataDir string `default:"halley-data" env:"HALLEY_DATA_DIR" help:"Directory of the log on disk (${default}, in the working directory)." placeholder:"DIR"`
}

// openEngine opens the log. One of a cluster may have to be waited for, until ctx
// ends.
func (c *serveCmd) openEngine(ctx context.Context) (engine.Engine, error) {
	switch c.Engine {
	case "memory":
		return memory.New(memory.Options{Limit: int64(c.MemoryLimit), Rules: c.rules()})
	case "nats":
		return c.openNATS(ctx)
	}
	return c.openDisk()
}

func (c *serveCmd) openDisk() (*disk.Log, error) {
	o := c.diskOptions()
	o.Fsync = fsyncModes[c.Fsync]
	log, err := openLog(c.DataDir, o)
	if err == nil {
		tellOpened(log)
	}
	return log, err
}

// diskOptions are the settings of the log on this server's disk, be it the log or
// a replica.
func (c *serveCmd) diskOptions() disk.Options {
	return disk.Options{
		Rules: c.rules(),
		Limit: cmp.Or(int64(c.DiskLimit), -1),
		// Who follows the log reads from the one, who comes back to it after a
		// while from the other.
		TailBytes:  int64(c.MemoryLimit) / 2,
		CacheBytes: int64(c.MemoryLimit) / 2,
	}
}

// onDisk tells whether there is a data directory.
func (c *serveCmd) onDisk() bool { return c.Engine != "memory" }

// tellOpened warns of what an operator may want to look into.
func tellOpened(log *disk.Log) {
	found := log.Opened()
	if found.Unclean {
		slog.Warn("halley: the log was not closed the last time: its process or its machine went down, or it had stopped", "cut_bytes", found.Cut)
	}
	if found.NewEpoch != "" {
		slog.Warn("halley: the log begins a new epoch, which clients from before are told as a gap", "why", found.NewEpoch)
	}
}

// tellStopped says so if the log stops before ctx ends. Publishers are refused
// from then on, and only the reason tells what is to be done.
func tellStopped(ctx context.Context, log *disk.Log) {
	select {
	case <-log.Stopped():
		slog.Error("halley: the log has stopped: it takes no messages until the server is started again", "error", log.Err())
	case <-ctx.Done():
	}
}

var fsyncModes = map[string]disk.Fsync{"always": disk.Always, "group": disk.Group, "never": disk.Never}

// openLog opens the log in a directory.
func openLog(dir string, o disk.Options) (*disk.Log, error) {
	if dir == "" {
		return nil, errors.New("--data-dir is empty")
	}
	keepPrivate()
	log, err := disk.Open(dir, o)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.ReadOnly:
		return nil, fmt.Errorf("--data-dir %s: there is no log", absolute(dir))
	case err != nil:
		return nil, explainOpen(dir, err)
	}
	return log, nil
}

// explainOpen says why the log in a directory cannot be opened.
func explainOpen(dir string, err error) error {
	switch {
	case errors.Is(err, disk.ErrInUse):
		return fmt.Errorf("--data-dir %s: %w by another process", absolute(dir), disk.ErrInUse)
	case errors.Is(err, disk.ErrNotReplica):
		return fmt.Errorf("--data-dir %s: it holds %w: choose another directory, or move it away", absolute(dir), disk.ErrNotReplica)
	}
	return fmt.Errorf("--data-dir: %w", err)
}

// rules are the policies' retention, and what holds for all other channels.
func (c *serveCmd) rules() []engine.RetentionRule {
	otherwise := engine.Retention{Count: c.RetainCount, Age: c.RetainAge, Bytes: int64(c.RetainBytes)}
	var rules []engine.RetentionRule
	for _, p := range c.policies {
		rules = append(rules, p.rule(otherwise))
	}
	// A rule, since in Options no bound at all would mean the default.
	return append(rules, engine.RetentionRule{Pattern: "**", Retention: otherwise})
}

// place says where the messages are.
func (c *serveCmd) place() string {
	switch c.Engine {
	case "disk":
		return "engine disk, data in " + absolute(c.DataDir)
	case "nats":
		return "engine nats, stream " + c.NATSStream + ", replica in " + absolute(c.DataDir)
	}
	return "engine " + c.Engine
}

// absolute is for messages: a relative path says little in a server's log.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
