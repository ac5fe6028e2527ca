package enginetest

import (
	"fmt"
	"sync"

	"github.com/halley-comet/halley/engine"
)

// closeClosed wants every method of a closed engine to say that it is.
func closeClosed(t *tester) {
	e := t.open(Options{})
	t.append(e, batch(text("a", "1")))
	end := e.End()
	t.close(e)
	_, err := e.Append(t.ctx, batch(text("a", "2")))
	t.wantError("Append", err, engine.ErrClosed)
	_, err = e.Append(t.ctx, keyed("k", 1, text("a", "2")))
	t.wantError("Append with a key", err, engine.ErrClosed)
	for _, after := range []engine.Cursor{{}, end, {Epoch: end.Epoch}} {
		_, err = e.Read(t.ctx, engine.Query{Channels: []string{"a"}, After: after})
		t.wantError(fmt.Sprintf("Read after %+v", after), err, engine.ErrClosed)
		t.wantError(fmt.Sprintf("Wait after %+v", after), e.Wait(t.ctx, after), engine.ErrClosed)
		if got, ok := e.Tail(after, make([]*engine.Message, 0, 1)); len(got) > 0 {
			t.Errorf("Tail after %+v: got %d messages, ok %v", after, len(got), ok)
		}
	}
	e.End() // whatever it returns
	if err := e.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// closeBusy closes an engine in the middle of calls of all kinds. Each ends,
// with success or with ErrClosed.
func closeBusy(t *tester) {
	for round := range 5 {
		dir := t.TempDir()
		e := t.openAt(dir, Options{})
		var mu sync.Mutex
		var acked []engine.Receipt
		var busy sync.WaitGroup
		loop := func(what string, call func() error) {
			busy.Add(1)
			t.wg.Go(func() {
				for i := 0; t.ctx.Err() == nil; i++ {
					if i == 10+round {
						busy.Done()
					}
					if err := call(); err != nil {
						t.wantError(what+" as the engine is closed", err, engine.ErrClosed)
						if i < 10+round {
							t.Errorf("%s: %v before Close", what, err)
							busy.Done()
						}
						return
					}
				}
			})
		}
		for range 2 {
			loop("Append", func() error {
				r, err := e.Append(t.ctx, batch(text("a", "1"), text("b", "2")))
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					acked = append(acked, r)
				}
				return err
			})
			loop("Read", func() error {
				_, err := e.Read(t.ctx, engine.Query{Channels: []string{"**", "a"}, Limit: 10, Backward: true})
				return err
			})
			loop("Wait", func() error { return e.Wait(t.ctx, e.End()) })
			loop("Tail", func() error {
				e.Tail(e.End(), nil)
				return e.Wait(t.ctx, engine.Cursor{}) // tells when it is over
			})
		}
		busy.Wait()
		t.close(e)
		t.wg.Wait()
		if !t.s.Durable {
			continue
		}
		e = t.openAt(dir, Options{})
		end := e.End()
		for _, r := range acked {
			if last := r.ID(1); last.Epoch != end.Epoch || last.Seq > end.Seq {
				t.Fatalf("acknowledged %v before Close, but the log ends at %v", last, end)
			}
		}
		t.close(e)
	}
}
