package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestCrash cuts the power at random moments of many publishers' work, with
// some of what was not synced on the disk and some not. What had been
// acknowledged is there, once and in its place, and what retention removed is
// told as a gap.
func TestCrash(t *testing.T) {
	for _, mode := range []Fsync{Group, Always} {
		t.Run(mode.String(), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			c := &crasher{T: t, rand: rand.New(rand.NewPCG(seed, 0)), fs: vfs.NewCrashableMem(), acked: make(map[uint64]string)}
			c.opts = Options{Fsync: mode, Rules: []engine.RetentionRule{
				{Pattern: "few/*", Retention: engine.Retention{Count: 3}},
				{Pattern: "**", Retention: engine.Retention{}},
			}}
			for range rounds(t, 12) {
				c.round()
			}
		})
	}
}

func rounds(t *testing.T, n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
}

type crasher struct {
	*testing.T
	rand  *rand.Rand
	fs    *vfs.MemFS
	opts  Options
	epoch string
	serial,
	end uint64 // the highest acknowledged
	mu    sync.Mutex
	acked map[uint64]string // "channel data" by sequence
}

// round opens the log, checks it, publishes and crashes.
func (c *crasher) round() {
	c.opts.fs = c.fs
	l, err := Open("log", c.opts)
	if err != nil {
		c.Fatalf("Open after a crash: %v", err)
	}
	c.check(l)

	var stop atomic.Bool
	var wg sync.WaitGroup
	enough := make(chan struct{}, 1)
	left := int64(1 + c.rand.IntN(400))
	for p := range 8 {
		c.serial++
		serial := c.serial
		wg.Go(func() {
			for i := 0; ; i++ {
				var b engine.Batch
				for j := range 1 + (i+p)%3 {
					channel := []string{"keep/a", "few/a", "keep/a/b", "few/b"}[(i+j)%4]
					b.Messages = append(b.Messages, engine.Message{Channel: channel, Data: fmt.Appendf(nil, "%d %d %d", serial, i, j)})
				}
				r, err := l.Append(context.Background(), b)
				c.mu.Lock()
				if stop.Load() || err != nil {
					c.mu.Unlock()
					if err != nil && !stop.Load() {
						c.Errorf("Append: %v", err)
					}
					return
				}
				for j, m := range b.Messages {
					c.acked[r.ID(j).Seq] = m.Channel + " " + string(m.Data)
				}
				c.end = max(c.end, r.ID(r.Count-1).Seq)
				c.mu.Unlock()
				if atomic.AddInt64(&left, -1) == 0 {
					enough <- struct{}{}
				}
			}
		})
	}
	<-enough
	c.mu.Lock()
	// What is acknowledged from here on may be lost.
	stop.Store(true)
	c.mu.Unlock()
	crashed := c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 25 * c.rand.IntN(5), RNG: c.rand})
	l.Close()
	wg.Wait()
	c.fs = crashed
}

func (c *crasher) check(l *Log) {
	if c.epoch == "" {
		c.epoch = l.End().Epoch
	}
	if end := l.End(); end.Epoch != c.epoch || end.Seq < c.end {
		c.Fatalf("the log ends at %v, acknowledged was %s-%d", end, c.epoch, c.end)
	}
	if _, err := l.Verify(context.Background()); err != nil {
		c.Fatal(err)
	}
	kept := make(map[uint64]bool)
	seen := make(map[string]uint64)
	var last uint64
	for _, m := range readAll(c.T, l, "**") {
		text := m.Channel + " " + string(m.Data)
		if want, ok := c.acked[m.ID.Seq]; ok && want != text {
			c.Fatalf("%v is %q, acknowledged was %q", m.ID, text, want)
		}
		if seen[text] != 0 || m.ID.Seq <= last {
			c.Fatalf("%q is at %d, and was at %d; before it was %d", text, m.ID.Seq, seen[text], last)
		}
		seen[text], kept[m.ID.Seq], last = m.ID.Seq, true, m.ID.Seq
		// It may have been stored and its publisher not told.
		c.acked[m.ID.Seq] = text
	}
	missing := make(map[string]uint64) // the highest of each channel
	for seq, text := range c.acked {
		if kept[seq] {
			continue
		}
		var channel string
		fmt.Sscan(text, &channel)
		if !engine.Match("few/*", channel) {
			c.Fatalf("%d, %q, was acknowledged and is missing", seq, text)
		}
		missing[channel] = max(missing[channel], seq)
	}
	for channel, seq := range missing {
		page, err := l.Read(context.Background(), engine.Query{Channels: []string{channel}, After: l.cursor(seq - 1)})
		if err != nil || !page.Gap {
			c.Fatalf("Read %s after %d, which is missing: gap %v, %v", channel, seq-1, page.Gap, err)
		}
	}
	c.end = l.End().Seq
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
