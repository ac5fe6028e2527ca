package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/crashtest"
)

// TestBackup makes backups while publishers publish. Each has all that was
// acknowledged before it, as far as it goes without a hole, and a new epoch.
func TestBackup(t *testing.T) {
	for _, mode := range []Fsync{Group, Never} {
		t.Run(mode.String(), func(t *testing.T) { testBackup(t, mode) })
	}
}

func testBackup(t *testing.T, mode Fsync) {
	dir := t.TempDir()
	l, err := Open(filepath.Join(dir, "log"), Options{Fsync: mode, Rules: []engine.RetentionRule{{Pattern: "**"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// Messages of many sizes, so that writes of the log end anywhere.
	data := bytes.Repeat([]byte("0123456789"), 300)
	var acked []engine.Cursor // before each backup
	backup := func(i int) string { return filepath.Join(dir, "backups", fmt.Sprint(i)) }
	for i := range crashtest.Rounds(t, 8, 2) {
		acked = append(acked, publish(t, l, "a/b", 1+20*i).First)
		var stop atomic.Bool
		var wg sync.WaitGroup
		for p := range 4 {
			wg.Go(func() {
				for n := p; n < 300 && !stop.Load(); n++ {
					m := engine.Message{Channel: fmt.Sprintf("c/%d", p), Data: data[:n*7919%len(data)]}
					if _, err := l.Append(context.Background(), engine.Batch{Messages: []engine.Message{m}}); err != nil {
						t.Errorf("Append: %v", err)
						return
					}
				}
			})
		}
		if err := l.Backup(t.Context(), backup(i)); err != nil {
			t.Fatal(err)
		}
		stop.Store(true)
		wg.Wait()
	}

	all := readAll(t, l, "**")
	epochs := map[string]bool{l.End().Epoch: true}
	for i, end := range acked {
		before := contents(t, backup(i))
		verifyCopy(t, all, backup(i), end)
		if !maps.Equal(contents(t, backup(i)), before) {
			t.Errorf("backup %d was changed by opening it for reading", i)
		}
		if i != len(acked)-1 {
			continue
		}
		// Restored twice, and started twice.
		for j := range 2 {
			restored := filepath.Join(dir, "restored", fmt.Sprint(i, j))
			if err := os.CopyFS(restored, os.DirFS(backup(i))); err != nil {
				t.Fatal(err)
			}
			c := reopen(t, restored, Options{})
			epoch := c.End().Epoch
			if epochs[epoch] {
				t.Errorf("backup %d, restored: epoch %s was there before", i, epoch)
			}
			epochs[epoch] = true
			page, err := c.Read(t.Context(), engine.Query{Channels: []string{"a/b"}, After: end})
			if err != nil || !page.Gap {
				t.Errorf("backup %d, restored: gap %v, %v for an old cursor", i, page.Gap, err)
			}
			publish(t, c, "a/b", 1)
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if c = reopen(t, restored, Options{}); c.End().Epoch != epoch {
				t.Errorf("backup %d, started again: epoch %s, was %s", i, c.End().Epoch, epoch)
			}
			c.Close()
		}
	}
}

func reopen(t *testing.T, dir string, opts Options) *Log {
	t.Helper()
	l, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// verifyCopy compares a backup with the messages it was made of, up to where
// it ends, which is not before what was acknowledged.
func verifyCopy(t *testing.T, want []*engine.Message, dir string, acked engine.Cursor) {
	t.Helper()
	c := reopen(t, dir, Options{ReadOnly: true})
	defer c.Close()
	end := c.End().Seq
	if end < acked.Seq {
		t.Errorf("%s ends at %d, acknowledged was %v", dir, end, acked)
	}
	got := readAll(t, c, "**")
	if uint64(len(got)) != end {
		t.Errorf("%s has %d messages up to %d", dir, len(got), end)
	}
	for i, m := range got {
		w := want[i]
		if m.ID.Seq != w.ID.Seq || m.Channel != w.Channel || m.Time != w.Time || !bytes.Equal(m.Data, w.Data) {
			t.Fatalf("%s: message %v differs from %v", dir, m.ID, w.ID)
		}
	}
}

// TestBackupWhileWritten publishes when a backup has read the write-ahead log
// to just behind what is written, in a file that was used before and so goes on.
// A copy of all that is read would have a hole.
func TestBackupWhileWritten(t *testing.T) {
	var read func(name string)
	mem := vfs.NewMem()
	files := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if read != nil && op.Kind == errorfs.OpFileRead && strings.HasSuffix(op.Path, ".log") {
			read(op.Path)
		}
		return nil
	}))
	l := reopen(t, "log", Options{fs: files})
	defer l.Close()
	large := func() {
		m := engine.Message{Channel: "a", Data: make([]byte, 50_000)}
		if _, err := l.Append(context.Background(), engine.Batch{Messages: []engine.Message{m}}); err != nil {
			t.Errorf("Append: %v", err)
		}
	}
	for range 4 {
		for range 50 {
			large()
		}
		if err := l.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, l, "a", 100)
	acked, behind := l.End().Seq, int64(0)
	read = func(name string) {
		w, ok := l.backups.logs.Load(name)
		if !ok {
			return // the copy's
		}
		if behind > w.(*logFile).written.Load() && l.End().Seq == acked {
			large()
			large() // tells that the one before was synced
		}
		behind += 32 << 10 // what is copied at once
	}
	err := l.Backup(t.Context(), "backup")
	read = nil
	if err != nil {
		t.Fatal(err)
	}
	c := reopen(t, "backup", Options{fs: mem})
	defer c.Close()
	if end := c.End().Seq; end < acked || uint64(len(readAll(t, c, "a"))) != end {
		t.Errorf("the copy ends at %d, acknowledged was %d", end, acked)
	}
}

// TestBackupClosed makes a backup of a log that nobody has open.
func TestBackupClosed(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "log"), filepath.Join(dir, "backup")
	l := reopen(t, from, Options{})
	end := publish(t, l, "a", 100).First
	// It stays open, as one does whose process was killed.
	if err := os.CopyFS(filepath.Join(dir, "killed"), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{from, filepath.Join(dir, "killed")} {
		before := contents(t, from)
		r := reopen(t, from, Options{ReadOnly: true})
		if err := r.Backup(t.Context(), to); err != nil {
			t.Fatal(err)
		}
		verifyCopy(t, readAll(t, r, "**"), to, end)
		r.Close()
		c := reopen(t, to, Options{})
		if c.End().Epoch == end.Epoch || c.Opened().NewEpoch != "a backup" {
			t.Errorf("the copy of %s begins with %+v, epoch %s", from, c.Opened(), c.End().Epoch)
		}
		publish(t, c, "a", 10)
		c.Close()
		if !maps.Equal(contents(t, from), before) {
			t.Errorf("%s was changed", from)
		}
		os.RemoveAll(to)
	}
}

// TestBackupFault has backups fail. The log goes on, and nothing is left that
// might be taken for a backup.
func TestBackupFault(t *testing.T) {
	for name, fails := range map[string]func(errorfs.Op) bool{
		"full":  func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite },
		"log":   func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") },
		"sync":  func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData },
		"table": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") },
		"directory": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileSync && strings.HasSuffix(op.Path, "b.partial")
		},
		"rename": func(op errorfs.Op) bool { return op.Kind == errorfs.OpRename },
	} {
		t.Run(name, func(t *testing.T) {
			var failing atomic.Bool
			mem := vfs.NewMem()
			files := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == errorfs.OpLink {
					return syscall.EXDEV
				}
				if failing.Load() && strings.Contains(op.Path, "b.partial") && fails(op) {
					return syscall.ENOSPC
				}
				return nil
			}))
			l := reopen(t, "a/log", Options{fs: files})
			publish(t, l, "a", 50)
			if err := l.db.Flush(); err != nil {
				t.Fatal(err)
			}
			publish(t, l, "a", 50)
			failing.Store(true)
			if err := l.Backup(t.Context(), "a/b"); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("Backup: %v", err)
			}
			failing.Store(false)
			for _, name := range []string{"a/b", "a/b.partial"} {
				if _, err := mem.Stat(name); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is there: %v", name, err)
				}
			}
			publish(t, l, "a", 50)
			if err := l.Backup(t.Context(), "a/b"); err != nil {
				t.Errorf("Backup afterwards: %v", err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBackupRefused asks for what cannot be.
func TestBackupRefused(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "backup")
	l := reopen(t, filepath.Join(dir, "log"), Options{})
	publish(t, l, "a", 10)
	for _, name := range []string{to, to + ".partial"} {
		if err := os.MkdirAll(filepath.Join(name, "precious"), 0o755); err != nil {
			t.Fatal(err)
		}
		wantError(t, "Backup to what is there", l.Backup(t.Context(), to), fs.ErrExist)
		if _, err := os.Stat(filepath.Join(name, "precious")); err != nil {
			t.Error(err)
		}
		os.RemoveAll(name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, "Backup with its context ended", l.Backup(ctx, to), context.Canceled)
	l.fault.set(errors.New("broken"))
	wantError(t, "Backup of what has stopped", l.Backup(t.Context(), to), engine.ErrUnavailable)
	l.Close()
	wantError(t, "Backup of what is closed", l.Backup(t.Context(), to), engine.ErrClosed)
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left are %v, %v", names, err)
	}
}
