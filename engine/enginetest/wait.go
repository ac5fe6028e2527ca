package enginetest

import (
	"context"

	"github.com/halley-comet/halley/engine"
)

// waitPositions wants Wait to hold at the end alone, and to give up with ctx.
func waitPositions(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	for _, n := range []int{0, 10} {
		m.publishRandom(t, e, n)
		others := []engine.Cursor{{}, {Epoch: "another", Seq: m.end()}, m.cursor(m.end() + 1), m.cursor(engine.MaxSeq)}
		if n > 0 {
			others = append(others, m.cursor(0), m.cursor(m.end()-1))
		}
		for _, after := range others {
			if err := e.Wait(t.ctx, after); err != nil {
				t.Errorf("Wait after %+v with end %d: got %v, want nil", after, m.end(), err)
			}
		}
		ctx, cancel := context.WithTimeout(t.ctx, t.s.Tick/4)
		t.wantError("Wait at the end", e.Wait(ctx, e.End()), context.DeadlineExceeded)
		cancel()
		ctx, cancel = context.WithCancel(t.ctx)
		cancel()
		t.wantError("Wait at the end with a ctx that has ended", e.Wait(ctx, e.End()), context.Canceled)
	}
}

// waitWoken wants every waiter woken by each message.
func waitWoken(t *tester) {
	e := t.open(Options{})
	for round := range 5 {
		at := e.End()
		for range 50 {
			t.wg.Go(func() {
				if err := e.Wait(t.ctx, at); err != nil {
					t.Errorf("round %d: Wait after %v: %v", round, at, err)
				} else if e.End().Seq <= at.Seq {
					t.Errorf("round %d: Wait returned, but End is still %v", round, e.End())
				}
			})
		}
		canceled, cancel := context.WithCancel(t.ctx)
		t.wg.Go(func() {
			t.wantError("Wait whose ctx ends", e.Wait(canceled, at), context.Canceled)
		})
		t.pass(e, t.s.Tick/4) // Most waiters wait by now.
		cancel()
		t.pass(e, t.s.Tick/4)
		if _, err := e.Append(t.ctx, batch(text("a", "wake up"))); err != nil {
			t.Fatalf("Append: %v", err)
		}
		t.wg.Wait()
	}
}

// waitClose wants Close to end those who wait.
func waitClose(t *tester) {
	e := t.open(Options{})
	t.append(e, batch(text("a", "1")))
	at := e.End()
	for range 50 {
		t.wg.Go(func() {
			t.wantError("Wait as the engine is closed", e.Wait(t.ctx, at), engine.ErrClosed)
		})
	}
	t.pass(e, t.s.Tick/4)
	t.close(e)
	t.wg.Wait()
}
