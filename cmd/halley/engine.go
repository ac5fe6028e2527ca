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

func (c *serveCmd) openEngine() (engine.Engine, error) {
	switch c.Engine {
	case "memory":
		return memory.New(memory.Options{Limit: int64(c.MemoryLimit), Rules: c.rules()})
	case "disk":
		return c.openDisk()
	}
	return nil, fmt.Errorf("--engine %s is not in this version: disk and memory are", c.Engine)
}

func (c *serveCmd) openDisk() (*disk.Log, error) {
	log, err := openLog(c.DataDir, disk.Options{
		Fsync: fsyncModes[c.Fsync],
		Rules: c.rules(),
		Limit: cmp.Or(int64(c.DiskLimit), -1),
		// Who follows the log reads from the one, who comes back to it after a
		// while from the other.
		TailBytes:  int64(c.MemoryLimit) / 2,
		CacheBytes: int64(c.MemoryLimit) / 2,
	})
	if err == nil {
		tellOpened(log)
	}
	return log, err
}

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
	case errors.Is(err, disk.ErrInUse):
		return nil, fmt.Errorf("--data-dir %s: %w by another process", absolute(dir), disk.ErrInUse)
	case errors.Is(err, fs.ErrNotExist) && o.ReadOnly:
		return nil, fmt.Errorf("--data-dir %s: there is no log", absolute(dir))
	case err != nil:
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	return log, nil
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
	if c.Engine != "disk" {
		return "engine " + c.Engine
	}
	return "engine disk, data in " + absolute(c.DataDir)
}

// absolute is for messages: a relative path says little in a server's log.
func absolute(dir string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		return abs
	}
	return dir
}
