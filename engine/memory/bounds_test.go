package memory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley/engine"
)

func mustNew(t testing.TB, opts Options) *Log {
	t.Helper()
	l, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Log, b engine.Batch) engine.Receipt {
	t.Helper()
	r, err := l.Append(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRead(t testing.TB, l *Log, q engine.Query) engine.Page {
	t.Helper()
	page, err := l.Read(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func message(channel string, data int) engine.Message {
	return engine.Message{Channel: channel, Data: make([]byte, data)}
}

func batch(m ...engine.Message) engine.Batch { return engine.Batch{Messages: m} }

// TestAccounts checks, under random use of every bound at once, that what the
// log says it uses is the sum over what it has, and that records hold together.
func TestAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		const limit = 100_000
		l := mustNew(t, Options{
			Limit:     limit,
			KeyWindow: time.Minute,
			Retention: engine.Retention{Count: 50},
			Rules: []engine.RetentionRule{
				{Pattern: "a/**", Retention: engine.Retention{Age: 3 * time.Second, Count: 3}},
				{Pattern: "b/*", Retention: engine.Retention{Age: 20 * time.Second}},
				{Pattern: "c/c/*", Retention: engine.Retention{Bytes: 500}},
			},
		})
		for i := range 3000 {
			var b engine.Batch
			for range 1 + r.IntN(5) {
				name := string(rune('a' + r.IntN(4)))
				for range r.IntN(4) {
					name += "/" + string(rune('a'+r.IntN(6)))
				}
				m := message(name, r.IntN(300))
				if r.IntN(10) == 0 {
					m.Headers = map[string]string{"a": name, "b": "c"}
				}
				b.Messages = append(b.Messages, m)
			}
			if r.IntN(3) == 0 {
				b.Key = fmt.Sprint(r.IntN(200))
			}
			mustAppend(t, l, b)
			if r.IntN(4) == 0 {
				wait(t, l, time.Duration(r.IntN(2000))*time.Millisecond)
			}
			if i%50 == 0 {
				checkAccounts(t, l)
				if l.used > limit {
					t.Fatalf("uses %d bytes of %d", l.used, limit)
				}
			}
		}
		if l.floor == 0 {
			t.Error("no channel was forgotten: the test does not do what it says")
		}
		mustAppend(t, l, batch(message("a/b", 10)))
		wait(t, l, time.Hour)
		checkAccounts(t, l)
		if l.keys.len() != 0 || l.tail.removed != 0 {
			t.Errorf("after an hour there are %d keys and %d removed bytes in the tail", l.keys.len(), l.tail.removed)
		}
		for l.idle.first != nil || l.all.live > 0 {
			if l.idle.first != nil {
				l.forgetLocked(l.idle.first)
			} else {
				l.dropOldestLocked()
			}
		}
		if want := groupCost(pattern{"", engine.Below}); l.used != want || len(l.groups.m) != 1 || len(l.channels.m) != 0 {
			t.Errorf("an empty log uses %d bytes, %d groups, %d channels, want %d, 1, 0", l.used, len(l.groups.m), len(l.channels.m), want)
		}
	})
}

// wait lets time pass. The timer's goroutine is then still, so that a test may
// look at the log's inside.
func wait(t testing.TB, l *Log, d time.Duration) {
	t.Helper()
	l.mu.Lock()
	_ = l.closed // orders what the test has read before what the timer writes
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	if err := l.Wait(ctx, l.End()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Wait at the end: %v", err)
	}
	synctest.Wait()
}

func checkAccounts(t *testing.T, l *Log) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var used, removed int64
	refs := map[pattern]int{{"", engine.Below}: 1}
	live := map[pattern]int{}
	messages, idle := 0, 0
	for name, ch := range l.channels.m {
		used += channelCost(name, len(ch.lists))
		if cap(ch.lists) != len(ch.lists) {
			t.Errorf("%s: made for %d lists, is in %d", name, cap(ch.lists), len(ch.lists))
		}
		var bytes int64
		for w := ch.own.walkFrom(0); w.next(); {
			if w.msg.Channel != name {
				t.Errorf("%s lists a message of %s", name, w.msg.Channel)
			}
			used += messageCost(w.msg, len(ch.lists))
			bytes += size(w.msg)
		}
		if ch.bytes != bytes {
			t.Errorf("%s has %d bytes, says %d", name, bytes, ch.bytes)
		}
		if ch.idle != (ch.own.live == 0) {
			t.Errorf("%s: idle %v with %d messages", name, ch.idle, ch.own.live)
		}
		if ch.idle {
			idle++
		}
		messages += ch.own.live
		for prefix, kind := range engine.Patterns(name) {
			refs[pattern{prefix, kind}]++
			live[pattern{prefix, kind}] += ch.own.live
		}
	}
	for p, g := range l.groups.m {
		used += groupCost(p)
		if g.refs != refs[p] || g.live != live[p] {
			t.Errorf("%+v has %d channels and %d messages, says %d and %d", p, refs[p], live[p], g.refs, g.live)
		}
	}
	if len(refs) != len(l.groups.m) || l.all.live != messages {
		t.Errorf("%d groups, %d messages; want %d, %d", len(l.groups.m), l.all.live, len(refs), messages)
	}
	for ch := l.idle.first; ch != nil; ch = ch.next {
		idle--
		if ch.next == nil && ch != l.idle.last {
			t.Error("the idle queue ends before its last")
		}
	}
	if idle != 0 {
		t.Errorf("%d idle channels are not in the queue", idle)
	}
	for seq := l.tail.first; seq < l.tail.next; seq++ {
		removed += l.tail.at(seq).removed
	}
	if removed != l.tail.removed {
		t.Errorf("the tail has %d removed bytes, says %d", removed, l.tail.removed)
	}
	var keys int64
	for _, k := range l.keys.queue[l.keys.head:] {
		keys += keyCost(k.key)
	}
	if keys != l.keys.cost || len(l.keys.m) != l.keys.len() {
		t.Errorf("%d keys of %d bytes, says %d of %d", len(l.keys.m), keys, l.keys.len(), l.keys.cost)
	}
	if used += removed + keys; used != l.used {
		t.Errorf("uses %d bytes, says %d", used, l.used)
	}
}

// TestLimitIsHonest compares the estimate with the heap, for logs of different
// shapes. What a shape takes may differ from the estimate, but not by much.
func TestLimitIsHonest(t *testing.T) {
	if testing.Short() {
		t.Skip("fills memory")
	}
	const limit = 4 << 20
	for _, tt := range []struct {
		name string
		opts Options
		n    int
		make func(i int) engine.Batch
	}{
		{"one channel, small messages", Options{}, 30_000, func(i int) engine.Batch {
			return batch(message("chat", 100))
		}},
		{"many channels, a message each", Options{}, 15_000, func(i int) engine.Batch {
			return batch(message(fmt.Sprintf("user/%d/inbox", i), 100))
		}},
		{"many channels that keep one", Options{Retention: engine.Retention{Count: 1}}, 30_000, func(i int) engine.Batch {
			return batch(message(fmt.Sprintf("user/%d/inbox", i*7%3000), 100))
		}},
		{"busy and quiet channels", Options{Retention: engine.Retention{Count: 1000}}, 30_000, func(i int) engine.Batch {
			if i%8 == 0 {
				return batch(message(fmt.Sprintf("quiet/%d", i), 100))
			}
			return batch(message("busy", 100))
		}},
		{"large messages", Options{}, 300, func(i int) engine.Batch {
			return batch(message("chat", 64<<10))
		}},
		{"headers", Options{}, 15_000, func(i int) engine.Batch {
			m := message("chat", 0)
			m.Headers = map[string]string{"traceparent": fmt.Sprintf("00-%055d", i), "tracestate": "x"}
			return batch(m)
		}},
		{"keys", Options{Retention: engine.Retention{Count: 1}}, 8000, func(i int) engine.Batch {
			b := batch(message("chat", 0))
			b.Key = fmt.Sprintf("%040d", i)
			return b
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := heap()
			tt.opts.Limit = limit
			l := mustNew(t, tt.opts)
			for i := range tt.n {
				mustAppend(t, l, tt.make(i))
			}
			got := float64(heap()-before) / float64(l.used)
			t.Logf("the heap has %.2f of the %d KiB estimated, %d messages, %d channels", got, l.used>>10, l.all.live, len(l.channels.m))
			if got < 0.6 || got > 1.25 {
				t.Errorf("heap / estimate = %.2f", got)
			}
			runtime.KeepAlive(l)
			l.Close()
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// TestForgetting has far more channels than fit, and wants every loss told.
func TestForgetting(t *testing.T) {
	l := mustNew(t, Options{Limit: 50_000})
	const channels = 1000
	for i := range channels {
		mustAppend(t, l, batch(message(fmt.Sprintf("room/%d", i), 10)))
	}
	if n := len(l.channels.m); n >= channels/2 {
		t.Fatalf("%d of %d channels are still known", n, channels)
	}
	zero := engine.Cursor{Epoch: l.epoch}
	for i := range channels {
		name := fmt.Sprintf("room/%d", i)
		page := mustRead(t, l, engine.Query{Channels: []string{name}, After: zero})
		if len(page.Messages) == 0 && !page.Gap {
			t.Fatalf("%s: its message is gone without a gap", name)
		}
		at := l.cursor(uint64(i) + 1)
		if page := mustRead(t, l, engine.Query{Channels: []string{name}, After: at}); page.Gap && l.floor <= at.Seq {
			t.Fatalf("%s: a gap after its only message, above the floor", name)
		}
	}
	for _, p := range []string{"room/*", "room/**", "**", "*", "other/*"} {
		if page := mustRead(t, l, engine.Query{Channels: []string{p}, After: zero}); !page.Gap {
			t.Errorf("%s: no gap", p)
		}
	}
	if page := mustRead(t, l, engine.Query{Channels: []string{"**"}, After: l.cursor(l.all.trimmed)}); page.Gap {
		t.Error("a gap at the highest position removed")
	}
}

// TestIdleChannelsGoFirst wants a channel's record given up before messages.
func TestIdleChannelsGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, Options{Limit: 40_000, Rules: []engine.RetentionRule{
			{Pattern: "short/*", Retention: engine.Retention{Age: time.Second}},
		}})
		mustAppend(t, l, batch(message("long", 100)))
		for i := range 30 {
			mustAppend(t, l, batch(message(fmt.Sprintf("short/%d", i), 100)))
		}
		wait(t, l, 2*time.Minute) // for the tail to let go as well
		if n := len(l.channels.m); n != 31 {
			t.Fatalf("%d channels, want 31: nothing had to be forgotten yet", n)
		}
		mustAppend(t, l, batch(message("long", 30_000)))
		if n := len(l.channels.m); n >= 31 || n == 1 {
			t.Errorf("%d channels, want some forgotten, and no more than needed", n)
		}
		if n := len(mustRead(t, l, engine.Query{Channels: []string{"long"}}).Messages); n != 2 {
			t.Errorf("%d messages, want 2", n)
		}
	})
}

func TestTooLarge(t *testing.T) {
	const limit = 20_000
	l := mustNew(t, Options{Limit: limit})
	mustAppend(t, l, engine.Batch{Key: "k", Messages: []engine.Message{message("a/b", 5000), message("c", 5000)}})
	end := l.End()
	b := engine.Batch{Key: "l", Messages: []engine.Message{message("x/y/z", 100), message("x", limit)}}
	if _, err := l.Append(context.Background(), b); !errors.Is(err, engine.ErrTooLarge) {
		t.Fatalf("got %v, want ErrTooLarge", err)
	}
	if l.End() != end || len(mustRead(t, l, engine.Query{Channels: []string{"**"}}).Messages) != 2 {
		t.Fatal("the log has changed")
	}
	// The largest batch that fits drops all others and stays whole.
	b.Messages[1].Data = nil
	cost := l.batchCost([]*engine.Message{newMessage(&b.Messages[0]), newMessage(&b.Messages[1])}, "l")
	b.Messages[1].Data = make([]byte, limit-cost)
	mustAppend(t, l, b)
	page := mustRead(t, l, engine.Query{Channels: []string{"**"}, After: end})
	if len(page.Messages) != 2 || l.used != limit {
		t.Errorf("got %d messages in %d bytes, want 2 in %d", len(page.Messages), l.used, limit)
	}
	if r := mustAppend(t, l, b); !r.Repeated {
		t.Error("its key is forgotten")
	}
	checkAccounts(t, l)
	b.Key, b.Messages[1].Data = "m", append(b.Messages[1].Data, 0)
	if _, err := l.Append(context.Background(), b); !errors.Is(err, engine.ErrTooLarge) {
		t.Errorf("a byte more: got %v, want ErrTooLarge", err)
	}
}

// TestExpiry wants a message gone at the instant it expires, its gap told, and
// its memory given back by the timer alone.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, Options{Rules: []engine.RetentionRule{
			{Pattern: "hour", Retention: engine.Retention{Age: time.Hour}},
			{Pattern: "short/*", Retention: engine.Retention{Age: time.Minute}},
		}})
		mustAppend(t, l, batch(message("hour", 1)))
		mustAppend(t, l, batch(message("short/a", 1), message("ever", 1)))
		zero := l.cursor(0)
		q := engine.Query{Channels: []string{"short/a"}, After: zero}
		wait(t, l, time.Minute-time.Millisecond)
		if page := mustRead(t, l, q); len(page.Messages) != 1 || page.Gap {
			t.Fatalf("before it expires: %+v", page)
		}
		// At the very instant, whichever of the reader and the timer is first.
		<-time.After(time.Millisecond)
		if page := mustRead(t, l, q); len(page.Messages) != 0 || !page.Gap || page.Start.Seq != 2 {
			t.Fatalf("as it expires: %+v", page)
		}
		if page := mustRead(t, l, engine.Query{Channels: []string{"hour", "ever"}, After: zero}); len(page.Messages) != 2 || page.Gap {
			t.Fatalf("others: %+v", page)
		}
		synctest.Wait()
		if l.all.live != 2 {
			t.Fatalf("%d messages, want 2", l.all.live)
		}
		wait(t, l, time.Hour)
		if l.all.live != 1 || l.tail.removed != 0 {
			t.Fatalf("%d messages, want 1; %d removed bytes in the tail, want 0", l.all.live, l.tail.removed)
		}
		if due := l.due.Load(); due != never {
			t.Fatalf("something is due at %d", due)
		}
	})
}

func TestManyExpireAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, Options{Retention: engine.Retention{Age: time.Second}})
		for range 25 {
			mustAppend(t, l, batch(make1000()...))
		}
		wait(t, l, time.Second)
		if l.all.live != 0 || len(l.channels.m) != 10 || l.all.sealed != nil {
			t.Errorf("%d messages, %d channels, want 0, 10", l.all.live, len(l.channels.m))
		}
	})
}

func make1000() (m []engine.Message) {
	for i := range 1000 {
		m = append(m, message(fmt.Sprintf("c/%d", i%10), 0))
	}
	return m
}

// TestTailOutlivesRetention wants live readers served past a channel's bounds.
func TestTailOutlivesRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustNew(t, Options{Retention: engine.Retention{Count: 1}, Limit: 1 << 20})
		for range 100 {
			mustAppend(t, l, batch(message("latest", 10)))
		}
		tail, ok := l.Tail(l.cursor(0), make([]*engine.Message, 0, 200))
		if !ok || len(tail) != 100 {
			t.Fatalf("got %d messages, %v", len(tail), ok)
		}
		// Large ones are held up to an eighth of the limit.
		for range 100 {
			mustAppend(t, l, batch(message("latest", 10_000)))
		}
		if _, ok := l.Tail(l.cursor(100), nil); ok {
			t.Error("the tail holds what the limit does not allow")
		}
		if tail, ok := l.Tail(l.cursor(190), make([]*engine.Message, 0, 20)); !ok || len(tail) != 10 {
			t.Errorf("got %d messages, %v, want 10", len(tail), ok)
		}
		if l.used > 150_000 {
			t.Errorf("uses %d bytes", l.used)
		}
		wait(t, l, 2*time.Minute)
		if _, ok := l.Tail(l.cursor(190), nil); ok || l.used > 12_000 {
			t.Errorf("after two minutes the tail still holds removed messages: %d bytes in use", l.used)
		}
		if tail, ok := l.Tail(l.End(), nil); !ok || len(tail) != 0 {
			t.Error("cannot go on from the end")
		}
		checkAccounts(t, l)

		l = mustNew(t, Options{Retention: engine.Retention{Count: 1}})
		for range tailLen + 10 {
			mustAppend(t, l, batch(message("many", 0)))
		}
		end := l.End().Seq
		if _, ok := l.Tail(l.cursor(end-tailLen-1), nil); ok {
			t.Error("the tail holds more than it may")
		}
		if tail, ok := l.Tail(l.cursor(end-tailLen), make([]*engine.Message, 0, tailLen)); !ok || len(tail) != tailLen {
			t.Errorf("got %d messages, %v, want %d", len(tail), ok, tailLen)
		}
		checkAccounts(t, l)
	})
}

func TestKeysAreBounded(t *testing.T) {
	l := mustNew(t, Options{Limit: 1 << 20})
	for i := range 10_000 {
		b := batch(message("a", 0))
		b.Key = fmt.Sprint(i, strings.Repeat("x", 200))
		mustAppend(t, l, b)
	}
	if l.keys.cost > 1<<18 || l.keys.len() < 500 {
		t.Errorf("%d keys take %d bytes, want a quarter of %d", l.keys.len(), l.keys.cost, 1<<20)
	}
	checkAccounts(t, l)
}

// TestDataIsNotPinned wants a small message not to hold a large buffer.
func TestDataIsNotPinned(t *testing.T) {
	l := mustNew(t, Options{})
	m := message("a", 1<<20)
	m.Data = m.Data[:10]
	mustAppend(t, l, batch(m))
	if c := cap(mustRead(t, l, engine.Query{Channels: []string{"a"}}).Messages[0].Data); c > 100 {
		t.Errorf("10 bytes of data hold %d", c)
	}
}

func TestTableShrinks(t *testing.T) {
	var tb table[int, int]
	for i := range 10_000 {
		tb.put(i, i)
	}
	for i := range 9990 {
		tb.delete(i)
	}
	if tb.peak > 2500 || len(tb.m) != 10 {
		t.Errorf("peak %d, %d entries", tb.peak, len(tb.m))
	}
	if v, ok := tb.get(9995); !ok || v != 9995 {
		t.Error("lost an entry")
	}
}

func TestOptions(t *testing.T) {
	bad := engine.Retention{Count: -1}
	for _, tt := range []struct {
		field string
		opts  Options
	}{
		{"Options.Retention", Options{Retention: bad}},
		{"Options.Rules[1].Pattern", Options{Rules: []engine.RetentionRule{{Pattern: "a"}, {Pattern: "a*"}}}},
		{"Options.Rules[0].Retention", Options{Rules: []engine.RetentionRule{{Pattern: "a", Retention: bad}}}},
		{"Options.KeyWindow", Options{KeyWindow: -1}},
	} {
		_, err := New(tt.opts)
		if !errors.Is(err, engine.ErrInvalid) || !strings.Contains(err.Error(), "memory: "+tt.field+":") {
			t.Errorf("got %v, want an error that names %s", err, tt.field)
		}
	}
	l := mustNew(t, Options{})
	if l.opts.Retention.Count != 10_000 || l.opts.Retention.Bytes != 64<<20 || l.opts.Limit != 256<<20 || l.window != 600_000 {
		t.Errorf("defaults: %+v", l.opts)
	}
	l = mustNew(t, Options{Retention: engine.Retention{Age: time.Microsecond}})
	if l.opts.Retention.Count != 0 {
		t.Error("a retention with a field set has got others")
	}
}

func TestEpochsDiffer(t *testing.T) {
	a, b := mustNew(t, Options{}), mustNew(t, Options{})
	if a.epoch == b.epoch || !engine.ValidEpoch(a.epoch) || !engine.ValidEpoch(b.epoch) {
		t.Errorf("epochs %q and %q", a.epoch, b.epoch)
	}
}
