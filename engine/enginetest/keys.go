package enginetest

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/halley-comet/halley/engine"
)

// keyed returns a batch with a key and a digest that tells n.
func keyed(key string, n byte, messages ...engine.Message) engine.Batch {
	return engine.Batch{Messages: messages, Key: key, Digest: [32]byte{31: n}}
}

// repeat appends a batch again and wants its first receipt.
func (t *tester) repeat(e engine.Engine, b engine.Batch, first engine.Receipt) {
	t.Helper()
	first.Repeated = true
	if got, err := e.Append(t.ctx, b); err != nil || got != first {
		t.Fatalf("Append again under key %.20q: got %+v, %v, want %+v", b.Key, got, err, first)
	}
}

// keysRepeat wants a batch stored once for its key and content, and nothing
// else stored under it.
func keysRepeat(t *tester) {
	e := t.open(Options{Retention: engine.Retention{Count: 5}})
	m := newModel(e)
	one := keyed("one", 1, text("a", "1"), text("b", "2"), text("a", "3"))
	r1 := m.publish(t, e, one)
	t.repeat(e, one, r1)

	two := keyed("two", 1, one.Messages...) // same content, other key
	r2 := m.publish(t, e, two)
	long := keyed(strings.Repeat("\x00", engine.MaxKey-1)+"\xff", 1, text("a", "4"))
	r3 := m.publish(t, e, long)
	m.publish(t, e, batch(text("a", "no key")))
	m.publish(t, e, batch(text("a", "no key")))

	_, err := e.Append(t.ctx, keyed("one", 2, text("a", "other")))
	t.wantError("other content under the same key", err, engine.ErrKeyReused)
	// Retention does not make a key forgotten.
	m.publishRandom(t, e, 100)
	t.repeat(e, one, r1)
	t.repeat(e, two, r2)
	t.repeat(e, long, r3)
	if end := e.End(); end != m.cursor(m.end()) {
		t.Errorf("End is %v, want %d: a repeat was stored", end, m.end())
	}
	m.observe(t, e)
}

// keysConcurrent has many publishers use a key at once: one is first, those
// with its content get its receipt, and the others are refused.
func keysConcurrent(t *tester) {
	e := t.open(Options{})
	for round := range 30 {
		key := fmt.Sprint("round ", round)
		before := e.End().Seq
		var mu sync.Mutex
		var stored, repeated []engine.Receipt
		var contents []byte // of the publishers that got a receipt
		refused := 0
		for i := range 8 {
			n := byte(i % 2)
			t.wg.Go(func() {
				r, err := e.Append(t.ctx, keyed(key, n, text("a", fmt.Sprint(n)), text("b", fmt.Sprint(n))))
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					t.wantError("Append under a key in use", err, engine.ErrKeyReused)
					refused++
					return
				case r.Repeated:
					r.Repeated = false
					repeated = append(repeated, r)
				default:
					stored = append(stored, r)
				}
				contents = append(contents, n)
			})
		}
		t.wg.Wait()
		if len(stored) != 1 || len(repeated) != 3 || refused != 4 {
			t.Fatalf("%s: %d stored, %d repeated, %d refused, want 1, 3, 4", key, len(stored), len(repeated), refused)
		}
		for i, r := range repeated {
			if r != stored[0] {
				t.Fatalf("%s: repeat got %+v, want %+v", key, r, stored[0])
			}
			if contents[i] != contents[i+1] {
				t.Fatalf("%s: two contents got receipts", key)
			}
		}
		t.awaitEnd(e, before+2)
		if end := e.End().Seq; end != before+2 {
			t.Fatalf("%s: the log grew by %d, want 2", key, end-before)
		}
	}
}

// keysExpiry wants a key free again after its window.
func keysExpiry(t *tester) {
	window := 8 * t.s.Tick
	e := t.open(Options{KeyWindow: window})
	m := newModel(e)
	b := keyed("k", 1, text("a", "1"))
	began := time.Now()
	first := m.publish(t, e, b)
	t.repeat(e, b, first)
	var r engine.Receipt
	if !t.eventually(e, func() bool {
		var err error
		if r, err = e.Append(t.ctx, b); err != nil {
			t.Fatalf("Append again: %v", err)
		}
		return !r.Repeated
	}) {
		t.Fatalf("a key is still in use %v after its window of %v", time.Since(began)-window, window)
	}
	if d := time.Since(began); d < window/2 {
		t.Errorf("a key is free after %v, want %v", d, window)
	}
	if r.First != m.cursor(2) {
		t.Errorf("stored again as %+v, want at 2", r)
	}
	t.repeat(e, b, r)
}
