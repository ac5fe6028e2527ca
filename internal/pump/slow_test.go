package pump

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/wire"
)

// TestOverlap compares overlap with what matches.
func TestOverlap(t *testing.T) {
	var channels, patterns []string
	var grow func(prefix string, depth int)
	grow = func(prefix string, depth int) {
		patterns = append(patterns, prefix+"*", prefix+"**")
		for _, s := range []string{"a", "b", "ab"} {
			channels, patterns = append(channels, prefix+s), append(patterns, prefix+s)
			if depth > 0 {
				grow(prefix+s+"/", depth-1)
			}
		}
	}
	grow("", 3)
	for _, a := range patterns {
		for _, b := range patterns {
			both := overlap(a, b)
			for _, c := range channels {
				got := both != "" && engine.Match(both, c)
				if want := engine.Match(a, c) && engine.Match(b, c); got != want {
					t.Fatalf("overlap(%q, %q) = %q: for %q %v, want %v", a, b, both, c, got, want)
				}
			}
		}
	}
}

// describe returns items in short: a message's channel and sequence, or a
// control and its sequence.
func describe(items []Item) string {
	var s []string
	for _, it := range items {
		if it.Message != nil {
			s = append(s, fmt.Sprintf("%s:%d", it.Message.Channel, it.Message.ID.Seq))
		} else {
			s = append(s, fmt.Sprintf("%s:%d", it.Control.Kind, it.Control.ID.Seq))
		}
	}
	return strings.Join(s, " ")
}

func appendTo(t *testing.T, log engine.Engine, channels ...string) {
	t.Helper()
	for len(channels) > 0 {
		var b engine.Batch
		n := min(len(channels), engine.MaxBatch)
		for _, c := range channels[:n] {
			b.Messages = append(b.Messages, engine.Message{Channel: c})
		}
		if _, err := log.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		channels = channels[n:]
	}
}

func repeat(n int, channels ...string) []string {
	var list []string
	for range n {
		list = append(list, channels...)
	}
	return list
}

// logs is n messages of the channel log from a sequence on, as describe has it.
func logs(seq, n int) (s string) {
	for i := range n {
		s += fmt.Sprintf(" log:%d", seq+i)
	}
	return s
}

// TestLatest shows what a connection gets that did not take its last flush.
func TestLatest(t *testing.T) {
	rules := []SlowRule{{Pattern: "t/all"}, {Pattern: "t/**", Latest: true}}
	for _, tt := range []struct {
		name      string
		channels  []string
		published []string // while the connection takes nothing
		want      string
	}{
		{"one", []string{"t/1"}, repeat(3, "t/1"), "skip:3 t/1:4"},
		{"only one waits", []string{"t/1"}, []string{"t/1"}, "t/1:2"},
		{"mixed", []string{"t/1", "log"}, []string{"t/1", "log", "t/1", "t/1", "log", "log", "t/1", "log"},
			"skip:2 log:3 skip:5 log:6 log:7 t/1:8 log:9"},
		{"pattern", []string{"t/**"}, []string{"t/1", "t/2", "t/1", "t/a/b", "t/2", "t/a/b", "log"},
			"skip:3 t/1:4 skip:5 t/2:6 t/a/b:7"},
		{"the first rule holds", []string{"t/*"}, []string{"t/all", "t/1", "t/all", "t/1"}, "t/all:2 skip:3 t/all:4 t/1:5"},
		{"no rule", []string{"log"}, repeat(3, "log"), "log:2 log:3 log:4"},
		{"more than a page", []string{"t/*", "log"}, append(repeat(600, "t/1", "t/2"), "log", "t/1"), "skip:1200 t/2:1201 log:1202 t/1:1203"},
		{"the newest is no longer near", []string{"t/1", "log"}, append([]string{"t/1", "t/1"}, repeat(600, "log")...), "skip:2 t/1:3" + logs(4, flushItems-1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, log := testWorker(t)
			w.pump.slow = rules
			c := joined(t, w, tt.channels...)
			whole := w.pump.Join(ConnOptions{Kind: &Kind{Whole: true}, Channels: tt.channels, After: log.End()})
			w.work()
			<-whole.slot.flushes
			appendTo(t, log, strings.ReplaceAll(tt.channels[0], "*", "x"))
			w.work()
			appendTo(t, log, tt.published...)
			for w.pos != log.End() {
				w.work()
			}
			if first := take(t, w, c); len(first.Items) != 1 {
				t.Fatalf("the first flush is %s", describe(first.Items))
			}
			f := take(t, w, c)
			if got := describe(f.Items); got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
			for c.state != live && c.rare.cursor != log.End() {
				take(t, w, c)
				w.work()
			}
			for w.work() {
			}
			if c.state != live || c.is(slow) {
				t.Errorf("state %d, flags %b after it has caught up", c.state, c.flags)
			}
			// Once it is live again, it gets everything.
			appendTo(t, log, "t/1", "t/1", "t/all", "log")
			w.work()
			if got := describe(take(t, w, c).Items); strings.Contains(got, "skip") {
				t.Errorf("live again it got %s", got)
			}
			take(t, w, whole)
			if got := describe(take(t, w, whole).Items); strings.Contains(got, "skip") {
				t.Errorf("who gets everything got %s", got)
			}
		})
	}
}

// TestLatestPages shows that a page is full of what is left, that a run over
// several pages is one, and that not all of the log is read in one go.
func TestLatestPages(t *testing.T) {
	w, log := testWorker(t)
	w.pump.slow = []SlowRule{{Pattern: "t/*", Latest: true}}
	q := engine.Query{Channels: []string{"**"}, After: log.End(), Limit: flushItems, Bytes: flushBytes}
	appendTo(t, log, repeat(400, "log", "t/1", "t/1")...)
	r, err := w.pump.read(q, &slowRead{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.Messages); n != flushItems || r.End != r.Messages[n-1].ID || !r.More {
		t.Errorf("%d messages to %v, more %v; want %d to the last of them, and more", n, r.End, r.More, flushItems)
	}
	q.After.Seq = log.End().Seq
	appendTo(t, log, repeat(2*engine.Recent, "t/1")...)
	if r, err = w.pump.read(q, &slowRead{}); err != nil {
		t.Fatal(err)
	}
	if n := r.End.Seq - q.After.Seq; len(r.Messages) > 0 || n < engine.Recent || n >= 2*engine.Recent || !r.More || r.left[0] != r.End {
		t.Errorf("%d messages and %v left out, to %v; want none, and a part of the log", len(r.Messages), r.left, r.End)
	}
}

// A forgetful engine has lost something by the second page that is read.
type forgetful struct {
	engine.Engine
	pages int
}

func (e *forgetful) Read(ctx context.Context, q engine.Query) (engine.Page, error) {
	page, err := e.Engine.Read(ctx, q)
	if q.Limit > 1 {
		e.pages++
		page.Gap = e.pages == 2
	}
	return page, err
}

// TestLatestGap shows that a gap that is met while a page is filled up is left
// for the next one to tell.
func TestLatestGap(t *testing.T) {
	w, log := testWorker(t)
	w.pump.slow = []SlowRule{{Pattern: "t/*", Latest: true}}
	q := engine.Query{Channels: []string{"t/*"}, After: log.End(), Limit: flushItems, Bytes: flushBytes}
	appendTo(t, log, repeat(2*flushItems, "t/1")...)
	w.pump.engine = &forgetful{Engine: log}
	r, err := w.pump.read(q, &slowRead{})
	if err != nil || r.Gap || !r.More || r.End.Seq != flushItems || r.left[0] != r.End || len(r.Messages) > 0 {
		t.Errorf("got %+v, %v, want the first page, left out", r, err)
	}
}

// TestTooSlowAfterEnd shows that a connection that is to end already, after the
// rest of a message, is not forgotten where its read finds it too slow.
func TestTooSlowAfterEnd(t *testing.T) {
	w, log := testWorker(t)
	c := joined(t, w, "g")
	appendTo(t, log, "g")
	w.fallBehind(c, engine.Cursor{Epoch: log.End().Epoch})
	c.on(reading)
	c.rare.partial, c.rare.offset = log.End(), 1
	w.end(c, &wire.Control{Kind: wire.Reconnect})
	w.runCatchups()
	c.off(reading)
	w.page(c, pageRead{}, errTooSlow{})
	if !c.is(queued) || c.rare.ending.Kind != wire.Reconnect {
		t.Errorf("flags %b, ends with %+v", c.flags, c.rare.ending)
	}
}

// TestResumeIsWhole shows that who comes back gets what was there, however
// slowly it reads, and of what is published later only what it is in time for.
func TestResumeIsWhole(t *testing.T) {
	for _, pause := range []time.Duration{0, 2 * slowFlush} {
		synctest.Test(t, func(t *testing.T) {
			log, err := memory.New(memory.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			p := New(log, Options{Workers: 1, Heartbeat: time.Hour, SlowRules: []SlowRule{{Pattern: "t", Latest: true}}})
			defer p.Close()
			start := log.End()
			const before, after = 4 * flushItems, 10
			appendTo(t, log, repeat(before, "t")...)
			c := p.Join(ConnOptions{Kind: &Kind{}, Channels: []string{"t"}, After: start})
			defer c.Leave()
			synctest.Wait()
			appendTo(t, log, repeat(after, "t")...)
			want, pos, skips := uint64(1), uint64(0), 0
			for pos < before+after {
				synctest.Wait()
				time.Sleep(pause)
				f, err := c.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, it := range f.Items {
					switch {
					case it.Message != nil && it.Message.ID.Seq != want:
						t.Fatalf("pause %v: message %d, want %d", pause, it.Message.ID.Seq, want)
					case it.Message != nil:
						want++
					case it.Control.Kind == wire.Skip:
						if want <= before {
							t.Fatalf("pause %v: a skip to %d before %d", pause, it.Control.ID.Seq, want)
						}
						skips++
						want = it.Control.ID.Seq + 1
					}
				}
				pos = f.Position.Seq
			}
			if slow := pause > slowFlush; slow != (skips == 1) || want != before+after+1 {
				t.Errorf("pause %v: %d skips, the next message would be %d", pause, skips, want)
			}
		})
	}
}

// TestLimit shows when a slow connection is ended, and what it is told.
func TestLimit(t *testing.T) {
	rules := []SlowRule{{Pattern: "g/free"}, {Pattern: "g/*", Limit: 5}, {Pattern: "far/**", Limit: 3 * engine.Recent}}
	for _, tt := range []struct {
		name      string
		channels  []string
		published []string
		cut       bool
	}{
		{"as many as may wait", []string{"g/1"}, repeat(5, "g/1"), false},
		{"one more", []string{"g/1"}, repeat(6, "g/1"), true},
		{"others do not count", []string{"g/1", "log"}, repeat(5, "g/1", "log", "log", "g/2"), false},
		{"those of a rule count together", []string{"g/**", "log"}, repeat(3, "g/1", "g/2", "log"), true},
		{"a rule before does not count", []string{"g/*"}, repeat(100, "g/free"), false},
		{"far", []string{"far/1", "log"}, repeat(3*engine.Recent, "far/1", "log"), false},
		{"too far", []string{"far/1", "log"}, repeat(3*engine.Recent+1, "far/1", "log"), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, log := testWorker(t)
			w.pump.slow = rules
			w.pump.wg.Go(w.pump.reader)
			defer w.pump.wg.Wait()
			defer w.pump.cancel()
			c := joined(t, w, tt.channels...)
			appendTo(t, log, strings.ReplaceAll(tt.channels[0], "*", "x"))
			w.work()
			for part := range slices.Chunk(tt.published, 1000) {
				appendTo(t, log, part...)
				for w.pos != log.End() {
					w.work()
				}
			}
			want := 0
			for _, name := range tt.published {
				if c.set.wants(name) {
					want++
				}
			}
			got := take(t, w, c).Items[1:]
			for !tt.cut && len(got) < want {
				got = append(got, await(t, w, c).Items...)
			}
			if !tt.cut {
				if len(got) != want || c.state == gone {
					t.Errorf("%d messages came, want %d", len(got), want)
				}
				return
			}
			f := await(t, w, c)
			if len(f.Items) != 1 || !f.Last || f.Items[0].Control == nil || f.Items[0].Control.Kind != wire.Error || f.Items[0].Control.Problem.Code != wire.TooSlow {
				t.Fatalf("got %s, want an error at last", describe(f.Items))
			}
		})
	}
}

// await is take where readers are at work.
func await(t *testing.T, w *worker, c *Conn) Flush {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		for w.work() {
		}
		select {
		case f := <-c.slot.flushes:
			if c.slot.wanted.Swap(false) {
				w.ready(c)
			}
			return f
		case <-w.inbox.woken:
		case <-deadline:
			t.Fatal("nothing comes")
		}
	}
}

// A slowClient reads, stalls, leaves and comes back, as it is drawn by lot, and
// remembers all it got.
type slowClient struct {
	channels []string
	start    uint64
	items    []Item
	whole    []uint64 // the log's end before each time it came
	came     []int    // items it had then
}

func (c *slowClient) run(ctx context.Context, p *Pump, log engine.Engine, r *rand.Rand, last uint64) error {
	at := engine.Cursor{Epoch: log.End().Epoch, Seq: c.start}
	for at.Seq < last {
		c.whole, c.came = append(c.whole, log.End().Seq), append(c.came, len(c.items))
		conn := p.Join(ConnOptions{Kind: &Kind{}, Channels: c.channels, After: at})
		for leave := false; !leave && at.Seq < last; {
			f, err := conn.Next(ctx)
			if err != nil {
				return err
			}
			for _, it := range f.Items {
				c.items = append(c.items, it)
				if it.Message != nil {
					at = it.Message.ID
				} else {
					at = it.Control.ID
				}
				if leave = r.IntN(3000) == 0 || it.Message == nil && it.Control.Kind == wire.Skip && r.IntN(10) == 0; leave {
					break // and loses the rest
				}
			}
			stall := map[int]int{0: 300, 1: 3 * engine.Recent}[r.IntN(20)]
			for until := min(log.End().Seq+uint64(stall), last); log.End().Seq < until; {
				if err := log.Wait(ctx, log.End()); err != nil {
					return err
				}
			}
		}
		conn.Leave()
	}
	return nil
}

// check compares what came with what was published, by sequence from 1.
func (c *slowClient) check(published []string, latest func(string) bool) (skips int, err error) {
	wants := func(seq uint64) bool {
		for _, p := range c.channels {
			if engine.Match(p, published[seq-1]) {
				return true
			}
		}
		return false
	}
	pos, visit := c.start, -1
	newest := map[string]uint64{}
	for i, it := range c.items {
		for visit+1 < len(c.came) && c.came[visit+1] <= i {
			visit++
		}
		if it.Message != nil {
			id := it.Message.ID.Seq
			for seq := pos + 1; seq < id; seq++ {
				if wants(seq) {
					return 0, fmt.Errorf("item %d: message %d after %d, and %d of %s is missing", i, id, pos, seq, published[seq-1])
				}
			}
			if id <= pos || !wants(id) {
				return 0, fmt.Errorf("item %d: message %d after %d", i, id, pos)
			}
			pos = id
			newest[it.Message.Channel] = id
			continue
		}
		id := it.Control.ID.Seq
		switch it.Control.Kind {
		case wire.Gap:
			return 0, fmt.Errorf("item %d: gap", i)
		case wire.Skip:
			skips++
			if id <= pos || !wants(id) || id <= c.whole[visit] {
				return 0, fmt.Errorf("item %d: skip to %d after %d, come at %d", i, id, pos, c.whole[visit])
			}
			for seq := pos + 1; seq <= id; seq++ {
				if wants(seq) && (!latest(published[seq-1]) || seq <= c.whole[visit]) {
					return 0, fmt.Errorf("item %d: skip to %d after %d leaves out %d of %s, come at %d", i, id, pos, seq, published[seq-1], c.whole[visit])
				}
			}
		default:
			for seq := pos + 1; seq <= id; seq++ {
				if wants(seq) {
					return 0, fmt.Errorf("item %d: %s to %d after %d, and %d is missing", i, it.Control.Kind, id, pos, seq)
				}
			}
		}
		if id < pos {
			return 0, fmt.Errorf("item %d: %s at %d after %d", i, it.Control.Kind, id, pos)
		}
		pos = id
	}
	last := map[string]uint64{}
	for i, name := range published {
		if seq := uint64(i) + 1; wants(seq) && seq > c.start {
			last[name] = seq
		}
	}
	for name, seq := range last {
		if newest[name] != seq {
			return 0, fmt.Errorf("the newest of %s is %d, want %d", name, newest[name], seq)
		}
	}
	return skips, nil
}

// TestSlowSeam has connections stall, leave and come back while messages are
// published, and shows that of other channels than the latest-only ones nothing
// is lost, that nothing comes twice, and that all that is left out is told.
func TestSlowSeam(t *testing.T) {
	const messages, conns = 20_000, 60
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	log, err := memory.New(memory.Options{Retention: engine.Retention{Count: 1 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := New(log, Options{Workers: 2, Heartbeat: 50 * time.Millisecond, SlowRules: []SlowRule{
		{Pattern: "t/all"}, {Pattern: "t/**", Latest: true}, {Pattern: "one", Latest: true},
	}})
	defer p.Close()
	latest := func(name string) bool { return name != "t/all" && (strings.HasPrefix(name, "t/") || name == "one") }
	names := []string{"log/1", "log/2", "t/1", "t/2", "t/a/b", "t/all", "one"}
	rnd := rand.New(rand.NewPCG(seed, 0))
	published := make([]string, messages)
	for i := range published {
		published[i] = names[rnd.IntN(len(names))]
	}
	copy(published[messages-len(names):], names) // so that all come to the end
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var clients []*slowClient
	failed := make(chan error, conns)
	var wg sync.WaitGroup
	defer wg.Wait()
	// Publishing waits for one that is never slow, so that the others have
	// their turns too.
	live := p.Join(ConnOptions{Kind: &Kind{Whole: true}, Channels: []string{"**"}, After: log.End()})
	defer live.Leave()
	wg.Go(func() {
		pos := uint64(0)
		for i := 0; i < messages; i += 20 {
			appendTo(t, log, published[i:i+20]...)
			for pos < log.End().Seq {
				f, err := live.Next(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				pos = f.Position.Seq
			}
		}
	})
	for i := range conns {
		for log.End().Seq < uint64(i*messages/conns/2) {
			if err := log.Wait(ctx, log.End()); err != nil {
				t.Fatal(err)
			}
		}
		c := &slowClient{start: rnd.Uint64N(log.End().Seq + 1)}
		for len(c.channels) == 0 {
			for _, name := range []string{"log/*", "log/1", "t/**", "t/*", "t/1", "one", "t/a/*"} {
				if rnd.IntN(3) == 0 {
					c.channels = append(c.channels, name)
				}
			}
		}
		clients = append(clients, c)
		r := rand.New(rand.NewPCG(seed, uint64(i)+1))
		go func() { failed <- c.run(ctx, p, log, r, messages) }()
	}
	for range clients {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	total, items := 0, 0
	for _, c := range clients {
		skips, err := c.check(published, latest)
		if err != nil {
			t.Fatalf("%v from %d: %v", c.channels, c.start, err)
		}
		total += skips
		items += len(c.items)
	}
	if total == 0 {
		t.Error("nobody was slow")
	}
	t.Logf("%d items, %d skips", items, total)
}
