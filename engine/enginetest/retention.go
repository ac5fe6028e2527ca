package enginetest

import (
	"fmt"
	"strings"

	"github.com/halley-comet/halley/engine"
)

// settle observes the engine until ok finds what it keeps right.
func (m *model) settle(t *tester, e engine.Engine, what string, ok func() bool) {
	t.Helper()
	if !t.eventually(e, func() bool { m.observe(t, e); return ok() }) {
		for _, c := range channels {
			kept, removed := m.of(c)
			t.Logf("%s: kept %s, removed %s", c, ranges(kept), ranges(removed))
		}
		t.Fatalf("the log does not come to keep %s", what)
	}
}

// newestOnly tells whether what is kept of a channel is newer than all that is
// removed.
func newestOnly(kept, removed []*engine.Message) bool {
	return len(kept) == 0 || len(removed) == 0 || removed[len(removed)-1].ID.Seq < kept[0].ID.Seq
}

var countRules = Options{
	Retention: engine.Retention{Count: 10},
	Rules: []engine.RetentionRule{
		{Pattern: "a", Retention: engine.Retention{Count: 1}},
		{Pattern: "a/b/*", Retention: engine.Retention{}},
		{Pattern: "a/**", Retention: engine.Retention{Count: 3}},
		{Pattern: "a/c", Retention: engine.Retention{Count: 1000}}, // comes too late
	},
}

// keepsCounts tells whether the engine keeps what countRules says.
func (m *model) keepsCounts() bool {
	for _, c := range channels {
		kept, removed := m.of(c)
		want := len(kept) + len(removed)
		if r := engine.RetentionFor(c, countRules.Rules, countRules.Retention); r.Count > 0 {
			want = min(want, r.Count)
		}
		if len(kept) != want || !newestOnly(kept, removed) {
			return false
		}
	}
	return true
}

// retentionCount has channels that keep different numbers of messages, and
// compares every kind of query with the model: no gap absent, none too many.
func retentionCount(t *tester) {
	e := t.open(countRules)
	m := newModel(e)
	for range 5 {
		m.publishRandom(t, e, 60)
		m.settle(t, e, "the newest messages by count", m.keepsCounts)
		m.checkRandom(t, e, 200)
	}
	for seq := range m.end() + 1 {
		for _, p := range patterns {
			m.check(t, e, engine.Query{Channels: []string{p}, After: m.cursor(seq), Limit: 1}, t.s.LooseGaps)
		}
	}
}

// retentionBytes allows an engine to count what a message takes beside its
// data, up to as much again.
func retentionBytes(t *tester) {
	const bound = 10 << 10
	e := t.open(Options{Rules: []engine.RetentionRule{{Pattern: "a/*", Retention: engine.Retention{Bytes: bound}}}})
	m := newModel(e)
	bounded := func() bool {
		for _, c := range []string{"a/b", "a/c"} {
			kept, removed := m.of(c)
			sum := 0
			for _, msg := range kept {
				sum += len(msg.Data)
			}
			if len(kept) == 0 || sum > bound && len(kept) > 1 || !newestOnly(kept, removed) {
				return false
			}
			if n := len(removed); n > 0 && 2*(sum+len(removed[n-1].Data)) < bound {
				return false
			}
		}
		_, removed := m.of("b")
		return len(removed) == 0
	}
	for range 100 {
		n := 500 + t.rand.IntN(1500)
		m.publish(t, e, batch(text([]string{"a/b", "a/c", "b"}[t.rand.IntN(3)], strings.Repeat("x", n))))
		if t.rand.IntN(10) == 0 {
			m.publish(t, e, batch(text("a/b", "1"), text("a/c", "1")))
			m.settle(t, e, "the newest messages by bytes", bounded)
			m.checkRandom(t, e, 50)
		}
	}
	for _, n := range []int{bound + 1, 3 * bound} {
		m.publish(t, e, batch(text("a/b", strings.Repeat("x", n)), text("a/c", "1")))
		m.settle(t, e, "the newest message, which is larger than the bound", func() bool {
			kept, _ := m.of("a/b")
			return len(kept) == 1 && kept[0].ID.Seq == m.end()-1 && bounded()
		})
		m.checkRandom(t, e, 50)
	}
}

// retentionAge has one channel whose messages grow old among others whose
// messages do not.
func retentionAge(t *tester) {
	tick := t.s.Tick
	e := t.open(Options{Rules: []engine.RetentionRule{
		{Pattern: "a/**", Retention: engine.Retention{Age: 8 * tick}},
		{Pattern: "x", Retention: engine.Retention{Age: 4 * tick, Count: 5}},
	}})
	m := newModel(e)
	m.publishRandom(t, e, 60)
	keeps := func(patterns ...string) func() bool {
		return func() bool {
			for _, c := range channels {
				kept, removed := m.of(c)
				gone := false
				for _, p := range patterns {
					gone = gone || engine.Match(p, c)
				}
				if gone && len(kept) > 0 || !gone && c != "x" && len(removed) > 0 {
					return false
				}
			}
			return true
		}
	}
	m.settle(t, e, "what is not old yet", keeps())
	m.settle(t, e, "what is not old, as x is", keeps("x"))
	m.settle(t, e, "what is not old, as x and a/** are", keeps("x", "a/**"))
	m.checkRandom(t, e, 200)

	// What comes to those channels later is not held to be missing.
	now := e.End()
	m.publish(t, e, batch(text("a/b", "later"), text("x", "later"), text("b", "later")))
	for _, p := range []string{"a/b", "a/**", "x", "**"} {
		m.check(t, e, engine.Query{Channels: []string{p}, After: now}, t.s.LooseGaps)
	}
	m.settle(t, e, "what is not old, as x and a/** are again", keeps("x", "a/**"))
	m.checkRandom(t, e, 200)
}

// retentionForgotten has more channels than the log has room for. Then a gap
// may be told that is not due, but each that is due must be told.
func retentionForgotten(t *tester) {
	e := t.open(Options{Limit: 64 << 10})
	m := newModel(e)
	r := t.rand
	name := func() string { return fmt.Sprintf("%c/%d/%d", 'a'+r.IntN(3), r.IntN(10), r.IntN(20)) }
	for range 400 {
		m.publish(t, e, batch(text(name(), strings.Repeat("x", 200))))
	}
	before := -1
	m.settle(t, e, "the same for a while", func() bool {
		kept, _ := m.of("**")
		same := len(kept) == before
		before = len(kept)
		return same
	})
	for range 500 {
		q := engine.Query{After: m.cursor(r.Uint64N(m.end() + 1)), Limit: r.IntN(20), Backward: r.IntN(4) == 0}
		for range 1 + r.IntN(3) {
			c := name()
			switch r.IntN(4) {
			case 0:
				c = c[:strings.LastIndexByte(c, '/')] + "/*"
			case 1:
				c = c[:strings.IndexByte(c, '/')] + "/**"
			}
			q.Channels = append(q.Channels, c)
		}
		m.check(t, e, q, true)
	}
}

// retentionImmutable wants messages that were read to stay as they were,
// whatever becomes of them in the log.
func retentionImmutable(t *tester) {
	e := t.open(Options{Retention: engine.Retention{Count: 3}})
	m := newModel(e)
	held := make(map[uint64]*engine.Message)
	for range 20 {
		m.publishRandom(t, e, 20)
		for _, msg := range t.read(e, engine.Query{Channels: []string{"**"}}).Messages {
			held[msg.ID.Seq] = msg
		}
		if tail, ok := e.Tail(m.cursor(m.end()-5), make([]*engine.Message, 0, 5)); ok {
			for _, msg := range tail {
				held[msg.ID.Seq] = msg
			}
		}
	}
	for seq, msg := range held {
		if want := m.messages[seq-1]; !equal(msg, want) {
			t.Fatalf("a message that was read is now %+v, was %+v", *msg, *want)
		}
	}
}
