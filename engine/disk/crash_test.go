package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/crashtest"
)

// TestCrash cuts the power at random moments of many publishers' work, with
// some of what was not synced on the disk and some not. What had been
// acknowledged or shown to a reader is there, once and in its place, and what
// retention removed is told as a gap.
//
// HALLEY_CRASH_ROUNDS is how many rounds this test and TestTornLast run for
// each case; script/crash runs 200. HALLEY_CRASH_SEED repeats the random
// choices of a run, though not what the scheduler made of them.
func TestCrash(t *testing.T) {
	for name, opts := range map[string]Options{
		"group":         {},
		"always":        {Fsync: Always},
		"group/limited": {Limit: 100 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrasher(t, opts)
			c.run(crashtest.Rounds(t, 12, 3), func(*Log) *vfs.MemFS {
				return c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 25 * c.rand.IntN(5), RNG: c.rand})
			})
		})
	}
}

func readAll(t *testing.T, l *Log, channels ...string) []*engine.Message {
	t.Helper()
	var all []*engine.Message
	q := engine.Query{Channels: channels}
	for {
		page, err := l.Read(context.Background(), q)
		if err != nil {
			t.Fatalf("Read %v: %v", q, err)
		}
		all = append(all, page.Messages...)
		if !page.More {
			return all
		}
		q.After = page.End
	}
}

// TestNever wants a new epoch after the machine went down without a clean
// close, and the old one in every other case.
func TestNever(t *testing.T) {
	boot := "one"
	fs := vfs.NewCrashableMem()
	open := func(mode Fsync) *Log {
		t.Helper()
		l, err := Open("log", Options{Fsync: mode, fs: fs, bootID: func() string { return boot }})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	crash := func(l *Log, synced bool) {
		percent := 100
		if synced {
			percent = 0
		}
		crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, 2))})
		l.Close()
		fs = crashed
	}
	l := open(Never)
	epoch := l.End().Epoch
	same := func(what string, want bool) {
		t.Helper()
		if got := l.End().Epoch; (got == epoch) != want {
			t.Errorf("%s: epoch %s, before %s", what, got, epoch)
		}
		epoch = l.End().Epoch
	}
	publish(t, l, "a", 10)
	crash(l, false) // a killed process: the machine has everything
	l = open(Never)
	same("killed", true)
	if end := l.End(); end.Seq != 10 {
		t.Errorf("killed: the log ends at %v, want 10", end)
	}
	publish(t, l, "a", 10)
	l.Close()
	boot = "two"
	l = open(Never)
	same("closed, then another boot", true)
	publish(t, l, "a", 10)
	crash(l, true)
	boot = "three"
	l = open(Never)
	same("power cut", false)
	if n := len(readAll(t, l, "**")); n < 20 || uint64(n) != l.End().Seq {
		t.Errorf("power cut: %d messages, end %v", n, l.End())
	}
	crash(l, true)
	boot = ""
	l = open(Group)
	same("power cut, and nobody knows the boot id", false)
	publish(t, l, "a", 10)
	end := l.End()
	crash(l, true)
	boot = "four"
	l = open(Group)
	same("power cut, with what is synced", true)
	if l.End() != end {
		t.Errorf("the log ends at %v, want %v", l.End(), end)
	}
	l.Close()
}

// TestNeverHoles cuts the power on a log that is not synced, of which some
// blocks are on the disk and others are not. It opens with what lies before the
// first hole, in a new epoch.
func TestNeverHoles(t *testing.T) {
	cut, kept := 0, uint64(0)
	for i := range crashtest.Rounds(t, 12, 3) {
		mem := vfs.NewCrashableMem()
		boot := "one"
		opts := Options{Fsync: Never, fs: mem, bootID: func() string { return boot }, Limit: 32 << 20}
		l := reopen(t, "log", opts)
		epoch := l.End().Epoch
		data := make([]byte, 1+100*i)
		for n := range 300 {
			data[0] = byte(n)
			if _, err := l.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "a", Data: bytes.Clone(data)}}}); err != nil {
				t.Fatal(err)
			}
		}
		crashed := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 + 5*(i%10), RNG: rand.New(rand.NewPCG(uint64(i), 0))})
		l.Close()
		boot = "two"
		opts.fs = crashed
		l = reopen(t, "log", opts)
		if found := l.Opened(); !found.Unclean || found.NewEpoch == "" || l.End().Epoch == epoch {
			t.Errorf("Opened: %+v, epoch %s, was %s", found, l.End().Epoch, epoch)
		} else if found.Cut > 0 {
			cut++
		}
		for n, m := range readAll(t, l, "a") {
			if m.ID.Seq != uint64(n+1) || m.Data[0] != byte(n) {
				t.Fatalf("message %d is %v, %d", n, m.ID, m.Data[0])
			}
		}
		if _, err := l.Verify(t.Context()); err != nil {
			t.Error(err)
		}
		kept += l.End().Seq
		publish(t, l, "a", 1)
		l.Close()
		// Once more, with what the first opening has left.
		l = reopen(t, "log", opts)
		if _, err := l.Verify(t.Context()); err != nil || l.Opened().NewEpoch != "" {
			t.Errorf("opened again: %+v, %v", l.Opened(), err)
		}
		l.Close()
	}
	if cut == 0 || kept == 0 {
		t.Errorf("%d logs were cut, %d messages were kept", cut, kept)
	}
}

func publish(t *testing.T, l *Log, channel string, n int) engine.Receipt {
	t.Helper()
	var r engine.Receipt
	for i := range n {
		var err error
		r, err = l.Append(context.Background(), engine.Batch{Messages: []engine.Message{{Channel: channel, Data: fmt.Append(nil, i)}}})
		if err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
	return r
}

func wantError(t *testing.T, what string, got error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(got, w) {
			t.Errorf("%s: got %v, want %v", what, got, w)
		}
	}
}
