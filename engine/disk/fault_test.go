package disk

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/halley-comet/halley/engine"
)

// TestFault has the disk fail in several ways. Publishers are told, the log
// stops, and readers go on, from memory and from disk; what was acknowledged is
// there when it is opened again.
func TestFault(t *testing.T) {
	isLog := func(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".log") }
	for name, fails := range map[string]func(errorfs.Op) bool{
		"full":         func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite },
		"write of log": func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite && isLog(op) },
		"sync of log":  func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileSync && isLog(op) },
		"create":       func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite },
		"manifest": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, "MANIFEST")
		},
		"flush": func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst")
		},
	} {
		for _, mode := range []Fsync{Group, Never} {
			t.Run(name+"/"+mode.String(), func(t *testing.T) { testFault(t, mode, fails) })
		}
	}
}

func testFault(t *testing.T, mode Fsync, fails func(errorfs.Op) bool) {
	var failing atomic.Bool
	mem := vfs.NewCrashableMem()
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && fails(op) {
			return syscall.ENOSPC
		}
		return nil
	}))
	// The tail is small, so that reading from the beginning is from disk.
	opts := Options{Fsync: mode, TailBytes: 20 * tailMessage, Retention: engine.Retention{Bytes: 1 << 40}, fs: fs}
	l, err := Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, l, "a", 50)
	if err := l.db.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, l, "a", 50)
	failing.Store(true)
	var acked atomic.Int64
	var wg sync.WaitGroup
	data := make([]byte, 256<<10)
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				_, err := l.Append(context.Background(), engine.Batch{Messages: []engine.Message{{Channel: "b", Data: data}}})
				if err != nil {
					wantError(t, "Append to a disk that fails", err, engine.ErrUnavailable)
					return
				}
				acked.Add(1)
			}
			t.Error("Append to a disk that fails goes on and on")
		})
	}
	wg.Wait()
	_, err = l.Append(context.Background(), engine.Batch{Messages: []engine.Message{{Channel: "b"}}})
	wantError(t, "Append afterwards", err, engine.ErrUnavailable)
	if !strings.Contains(err.Error(), "log: ") {
		t.Errorf("the error does not name the directory: %v", err)
	}

	n := 100 + acked.Load()
	if end := l.End(); end.Seq != uint64(n) {
		t.Errorf("End is %v, acknowledged were %d", end, n)
	}
	page, err := l.Read(context.Background(), engine.Query{Channels: []string{"a"}})
	if err != nil || len(page.Messages) != 100 || page.Gap {
		t.Errorf("Read from disk: %d messages, gap %v, %v", len(page.Messages), page.Gap, err)
	}
	if tail, ok := l.Tail(l.cursor(uint64(n-1)), make([]*engine.Message, 0, 4)); !ok || len(tail) != 1 {
		t.Errorf("Tail: %d messages, %v", len(tail), ok)
	}
	failing.Store(false)
	_, err = l.Append(context.Background(), engine.Batch{Messages: []engine.Message{{Channel: "b"}}})
	wantError(t, "Append after the disk failed", err, engine.ErrUnavailable)

	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	if mode == Never {
		crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	opts.fs = crashed
	l, err = Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if end := l.End(); end.Seq < uint64(n) {
		t.Errorf("opened again: End is %v, acknowledged were %d", end, n)
	}
	if got := len(readAll(t, l, "**")); uint64(got) != l.End().Seq {
		t.Errorf("opened again: %d messages, End %v", got, l.End())
	}
}

// TestOpenFault opens a log on disks that fail at each of the first writes.
func TestOpenFault(t *testing.T) {
	for n := int32(1); ; n++ {
		mem := vfs.NewMem()
		left := n
		var failing atomic.Bool
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && (atomic.AddInt32(&left, -1) <= 0 || failing.Load()) {
				failing.Store(true)
				return syscall.ENOSPC
			}
			return nil
		}))
		l, err := Open("log", Options{Fsync: Never, fs: fs})
		if err == nil {
			failing.Store(true)
			if l.Close(); n < 10 {
				t.Errorf("only %d writes to open a log", n)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Open, failing from write %d on: %v", n, err)
		}
	}
}

// TestOpenFull opens a log whose messages are in the write-ahead log, on a disk
// with no room for the tables that opening makes of them. It says so instead of
// waiting, and changes nothing that was stored.
func TestOpenFull(t *testing.T) {
	mem := vfs.NewCrashableMem()
	l := reopen(t, "log", Options{fs: mem})
	publish(t, l, "a", 100)
	end := l.End()
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	l.Close()
	fs := errorfs.Wrap(crashed, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	}))
	_, err := Open("log", Options{fs: fs})
	wantError(t, "Open on a full disk", err, syscall.ENOSPC)
	// Another process finds what is on the disk.
	l = reopen(t, "log", Options{fs: crashed.CrashClone(vfs.CrashCloneCfg{})})
	defer l.Close()
	if l.End() != end || len(readAll(t, l, "a")) != 100 {
		t.Errorf("the log ends at %v, want %v", l.End(), end)
	}
}
