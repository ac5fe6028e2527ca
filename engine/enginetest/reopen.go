package enginetest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/halley-comet/halley/engine"
)

// reopenNewEpoch wants cursors of an engine that forgets to be gaps for the
// next.
func reopenNewEpoch(t *tester) {
	dir := t.TempDir()
	e := t.openAt(dir, Options{})
	old := newModel(e)
	old.publishRandom(t, e, 50)
	t.close(e)

	e = t.openAt(dir, Options{})
	m := newModel(e)
	if m.epoch == old.epoch {
		t.Fatalf("the epoch is %s as before", m.epoch)
	}
	if end := e.End(); end.Seq != 0 {
		t.Fatalf("the new log ends at %v, want 0", end)
	}
	for _, n := range []int{0, 100} {
		m.publishRandom(t, e, n)
		for _, seq := range []uint64{0, 25, 50} {
			q := engine.Query{Channels: []string{"**"}, After: old.cursor(seq)}
			if page := t.read(e, q); !page.Gap || page.Start != m.cursor(0) || len(page.Messages) != n {
				t.Errorf("Read %s: got %s, want a gap from 0", show(q), showPage(page))
			}
		}
	}
}

// reopenSame wants a durable engine to know everything that it knew: what it
// keeps, what it does not, and its keys.
func reopenSame(t *tester) {
	dir := t.TempDir()
	e := t.openAt(dir, countRules)
	m := newModel(e)
	b := keyed("k", 1, text("a", "1"), text("b", "2"))
	first := m.publish(t, e, b)
	for range 3 {
		m.publishRandom(t, e, 100)
		m.settle(t, e, "the newest messages by count", m.keepsCounts)
		t.close(e)

		e = t.openAt(dir, countRules)
		if end := e.End(); end != m.cursor(m.end()) {
			t.Fatalf("End is %v after it was %v", end, m.cursor(m.end()))
		}
		m.settle(t, e, "what it kept", m.keepsCounts)
		m.checkRandom(t, e, 200)
		t.repeat(e, b, first)
		_, err := e.Append(t.ctx, keyed("k", 2, text("a", "1")))
		t.wantError("other content under a key from before", err, engine.ErrKeyReused)
		if tail, ok := e.Tail(e.End(), make([]*engine.Message, 0, 1)); !ok || len(tail) != 0 {
			t.Errorf("Tail after the end: got %d messages, ok %v", len(tail), ok)
		}
	}
}

// reopenCrash crashes an engine in the middle of Appends. What had been
// acknowledged is there; of the rest each batch is there whole or not at all,
// and its key tells.
func reopenCrash(t *tester) {
	dir := t.TempDir()
	e := t.openAt(dir, Options{})
	type attempt struct {
		batch   engine.Batch
		receipt engine.Receipt
		acked   bool // before the crash
	}
	var all []*attempt
	for round := range 4 {
		var crash atomic.Bool
		var enough sync.WaitGroup
		var mu sync.Mutex // guards all
		for p := range 4 {
			enough.Add(1)
			t.wg.Go(func() {
				for i := range 300 {
					if i == 20 {
						enough.Done()
					}
					a := &attempt{batch: keyed(fmt.Sprint(round, p, i), 1)}
					for j := range 1 + (i+p)%3 {
						a.batch.Messages = append(a.batch.Messages, text(channels[i%3], fmt.Sprint(round, " ", p, " ", i, " ", j)))
					}
					mu.Lock()
					all = append(all, a)
					mu.Unlock()
					r, err := e.Append(t.ctx, a.batch)
					if crash.Load() {
						return
					}
					if err != nil {
						t.Errorf("Append: %v", err)
						if i < 20 {
							enough.Done()
						}
						return
					}
					a.receipt, a.acked = r, true
				}
			})
		}
		enough.Wait()
		crash.Store(true)
		if err := t.s.Crash(dir, e); err != nil {
			t.Fatalf("Crash: %v", err)
		}
		t.drop(e)
		t.wg.Wait()

		e = t.openAt(dir, Options{})
		stored := make(map[uint64]*engine.Message)
		for _, msg := range t.readAll(e, engine.Cursor{}, "**") {
			stored[msg.ID.Seq] = msg
		}
		for _, a := range all {
			r, err := e.Append(t.ctx, a.batch)
			if err != nil {
				t.Fatalf("Append again after the crash: %v", err)
			}
			if a.acked && (!r.Repeated || r.First != a.receipt.First) {
				t.Fatalf("acknowledged %+v before the crash; again: %+v", a.receipt, r)
			}
			for j, want := range a.batch.Messages {
				got := stored[r.ID(j).Seq]
				if (got != nil) != r.Repeated {
					t.Fatalf("message %d of %d, %s: in the log %v, repeated %v", j+1, r.Count, want.Data, got != nil, r.Repeated)
				}
				if got != nil && string(got.Data) != string(want.Data) {
					t.Fatalf("%v is %q, want %q", got.ID, got.Data, want.Data)
				}
				delete(stored, r.ID(j).Seq)
			}
			r.Repeated = false
			a.receipt, a.acked = r, true
			t.awaitEnd(e, r.ID(r.Count-1).Seq)
		}
		if len(stored) > 0 {
			t.Fatalf("the log has %d messages that nobody published", len(stored))
		}
	}
}
