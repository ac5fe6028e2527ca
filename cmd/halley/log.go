package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
)

// logCmd are the commands for the log on disk. Stats and backup go to the
// server where one has it open; the others want it to themselves.
type logCmd struct {
	Stats  statsCmd  `cmd:"" help:"Print what the log holds, also while a server runs."`
	Verify verifyCmd `cmd:"" help:"Read all of the log and check it."`
	Export exportCmd `cmd:"" help:"Write all messages, one a line."`
	Import importCmd `cmd:"" help:"Store what was exported, after what is there, in a new epoch."`
	Backup backupCmd `cmd:"" help:"Copy the log, also while a server runs."`
}

// openForReading opens the log without changing anything. Nobody follows it, so
// the newest messages are not read, and may be damaged.
func (d dataDir) openForReading() (*disk.Log, error) {
	return openLog(d.DataDir, disk.Options{ReadOnly: true, TailBytes: 1})
}

// interruptible returns a context that ends with the first signal. The second
// one ends the program.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

type statsCmd struct {
	dataDir
}

// Run prints a line for each figure.
func (c *statsCmd) Run() error {
	ctx, stop := interruptible()
	defer stop()
	var s stats
	err := c.askServer(ctx, "GET", "/stats", &s)
	if errors.Is(err, errNoServer) {
		var log *disk.Log
		if log, err = c.openForReading(); err != nil {
			return err
		}
		defer log.Close()
		s, err = statsOf(ctx, log)
	}
	if err != nil {
		return err
	}
	fmt.Printf("directory  %s\n", absolute(c.DataDir))
	fmt.Printf("format     %d\n", s.Format)
	fmt.Printf("epoch      %s\n", s.End.Epoch)
	fmt.Printf("end        %s\n", s.End)
	for _, m := range []struct {
		name string
		*position
	}{{"oldest", s.Oldest}, {"newest", s.Newest}} {
		if m.position != nil {
			fmt.Printf("%-10s %s, of %s\n", m.name, m.ID, time.UnixMilli(m.Time).UTC().Format(time.RFC3339))
		}
	}
	fmt.Printf("messages   %d\n", s.Messages)
	fmt.Printf("bytes      %d, as --disk-limit counts\n", s.Bytes)
	fmt.Printf("disk       %d bytes\n", s.Disk)
	return nil
}

// stats are what a server answers, too.
type stats struct {
	Format   int           `json:"format"`
	End      engine.Cursor `json:"end"`
	Oldest   *position     `json:"oldest,omitempty"` // kept
	Newest   *position     `json:"newest,omitempty"` // kept
	Messages uint64        `json:"messages"`
	Bytes    int64         `json:"bytes"`
	Disk     uint64        `json:"disk"`
}

// A position is that of a message.
type position struct {
	ID   engine.Cursor `json:"id"`
	Time int64         `json:"time"`
}

func statsOf(ctx context.Context, log *disk.Log) (stats, error) {
	d := log.Stats()
	s := stats{Format: d.Format, End: log.End(), Messages: d.Messages, Bytes: d.Bytes, Disk: d.Disk}
	for _, backward := range []bool{false, true} {
		page, err := log.Read(ctx, engine.Query{Channels: []string{"**"}, Limit: 1, Backward: backward})
		if err != nil {
			return s, err
		}
		if len(page.Messages) == 0 {
			continue
		}
		p := &position{page.Messages[0].ID, page.Messages[0].Time}
		if backward {
			s.Newest = p
		} else {
			s.Oldest = p
		}
	}
	return s, nil
}

type verifyCmd struct {
	dataDir
}

// Run returns an error where something is wrong.
func (c *verifyCmd) Run() error {
	ctx, stop := interruptible()
	defer stop()
	log, err := c.openForReading()
	if err != nil {
		return err
	}
	defer log.Close()
	if found := log.Opened(); found.Cut > 0 {
		fmt.Printf("the last %d bytes are of a write that was torn; they will be cut off when the log is opened\n", found.Cut)
	}
	r, err := log.Verify(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("ok, up to %s\n", log.End())
	fmt.Printf("messages   %d\n", r.Messages)
	fmt.Printf("channels   %d\n", r.Channels)
	fmt.Printf("entries    %d, of lists\n", r.Entries)
	fmt.Printf("keys       %d, of idempotency\n", r.Keys)
	fmt.Printf("records    %d, in all\n", r.Records)
	return nil
}

type backupCmd struct {
	dataDir
	To string `arg:"" name:"dir" help:"Directory of the copy, which must not be there."`
}

// Run has a server make the copy where one runs, and else makes it itself.
func (c *backupCmd) Run() error {
	ctx, stop := interruptible()
	defer stop()
	to, err := filepath.Abs(c.To)
	if err != nil {
		return err
	}
	err = c.askServer(ctx, "POST", "/backup?to="+url.QueryEscape(to), nil)
	if errors.Is(err, errNoServer) {
		var log *disk.Log
		if log, err = c.openForReading(); err != nil {
			return err
		}
		defer log.Close()
		if err = log.Backup(ctx, to); err == nil {
			err = copyRevoked(c.DataDir, to)
		}
	}
	if err != nil {
		return err
	}
	fmt.Println(to)
	return nil
}
