package enginetest

import (
	"fmt"

	"github.com/halley-comet/halley/engine"
)

// concurrent has publishers and readers work at the same time. All readers
// must see one order, and in it each message of their channels once.
func concurrent(t *tester) {
	const publishers, batches, readers = 4, 120, 6
	e := t.open(Options{})
	m := newModel(e)

	var work [publishers][]engine.Batch
	total := uint64(0)
	for p := range work {
		for i := range batches {
			var b engine.Batch
			n := 1 + t.rand.IntN(4)
			for j := range n {
				c := channels[t.rand.IntN(len(channels))]
				b.Messages = append(b.Messages, text(c, fmt.Sprintf("%d of %d, batch %d of publisher %d", j, n, i, p)))
			}
			total += uint64(n)
			work[p] = append(work[p], b)
		}
	}
	type reader struct {
		q   engine.Query
		got []*engine.Message
	}
	var follow [readers]reader
	for i := range follow {
		q := m.query(t)
		follow[i].q = engine.Query{Channels: q.Channels, Limit: 1 + t.rand.IntN(50), After: e.End()}
	}

	start := e.End()
	var receipts [publishers][]engine.Receipt
	for p := range work {
		t.wg.Go(func() {
			for _, b := range work[p] {
				r, err := e.Append(t.ctx, b)
				if err != nil {
					t.Errorf("Append: %v", err)
					return
				}
				receipts[p] = append(receipts[p], r)
			}
		})
	}
	for i := range follow {
		r := &follow[i]
		t.wg.Go(func() { r.got = t.follow(e, r.q, total) })
	}
	var tail []*engine.Message
	t.wg.Go(func() { tail = t.followTail(e, start, total) })
	t.wg.Go(func() {
		for at := e.End(); at.Seq < total && t.ctx.Err() == nil; {
			end := e.End()
			if end.Seq < at.Seq || end.Epoch != at.Epoch {
				t.Errorf("End went from %v to %v", at, end)
				return
			}
			if end == at && e.Wait(t.ctx, at) != nil {
				return
			}
			at = end
		}
	})
	t.wg.Wait()
	if t.Failed() {
		return
	}

	// The receipts tell where everything must be.
	m.messages, m.kept = make([]*engine.Message, total), make([]bool, total)
	for p := range receipts {
		for i, r := range receipts[p] {
			for j, msg := range work[p][i].Messages {
				msg.ID, msg.Time = r.ID(j), r.Time
				if seq := msg.ID.Seq; seq < 1 || seq > total || m.messages[seq-1] != nil {
					t.Fatalf("receipt %+v overlaps others or leaves a hole: there are %d messages", r, total)
				}
				m.messages[msg.ID.Seq-1] = &msg
			}
		}
	}
	for i, msg := range m.messages[1:] {
		if msg.Time < m.messages[i].Time {
			t.Fatalf("time goes back at %v", msg.ID)
		}
	}
	m.observe(t, e)
	if kept, _ := m.of("**"); uint64(len(kept)) != total {
		t.Fatalf("the log has %d messages, want %d", len(kept), total)
	}
	for _, r := range follow {
		q := r.q
		q.Limit = int(total)
		t.wantMessages("what a reader saw of "+show(r.q), r.got, m.read(q).Messages)
	}
	t.wantMessages("what Tail gave", tail, m.messages)
}

// follow reads on from its cursor until it is at the end.
func (t *tester) follow(e engine.Engine, q engine.Query, end uint64) []*engine.Message {
	var got []*engine.Message
	for {
		page, err := e.Read(t.ctx, q)
		if err != nil || page.Gap || page.Start != q.After || page.End.Seq < q.After.Seq || page.More && page.End == q.After {
			t.Errorf("Read %s: got %s, %v", show(q), showPage(page), err)
			return got
		}
		got = append(got, page.Messages...)
		q.After = page.End
		if page.More {
			continue
		}
		if page.End.Seq >= end {
			return got
		}
		if err := e.Wait(t.ctx, page.End); err != nil {
			t.Errorf("Wait after %v: %v", page.End, err)
			return got
		}
	}
}

// followTail follows by Tail, and by Read where it is too far behind.
func (t *tester) followTail(e engine.Engine, at engine.Cursor, end uint64) []*engine.Message {
	var got []*engine.Message
	buf := make([]*engine.Message, 0, 64)
	for at.Seq < end {
		if err := e.Wait(t.ctx, at); err != nil {
			t.Errorf("Wait after %v: %v", at, err)
			return got
		}
		next, ok := e.Tail(at, buf)
		if !ok {
			page, err := e.Read(t.ctx, engine.Query{Channels: []string{"**"}, After: at, Limit: 64})
			if err != nil {
				t.Errorf("Read after %v: %v", at, err)
				return got
			}
			next = page.Messages
		}
		if len(next) == 0 {
			t.Errorf("nothing after %v, though Wait says that End has moved", at)
			return got
		}
		got = append(got, next...)
		at = next[len(next)-1].ID
	}
	return got
}
