package enginetest

import (
	"fmt"

	"github.com/halley-comet/halley/engine"
)

// tailFollow wants all messages from Tail as they come, those included that
// their channel does not keep. It is never far behind, so that an engine which
// holds a hundred messages passes.
func tailFollow(t *tester) {
	e := t.open(Options{Retention: engine.Retention{Count: 1}})
	m := newModel(e)
	at := e.End()
	for range 30 {
		m.publishRandom(t, e, 1+t.rand.IntN(100))
		for at.Seq < m.end() {
			// Something may stand before in the buffer.
			filled := t.rand.IntN(3)
			buf := make([]*engine.Message, filled, filled+1+t.rand.IntN(40))
			got, ok := e.Tail(at, buf)
			if !ok || cap(got) != cap(buf) || &got[:1][0] != &buf[:1][0] || len(got) == filled {
				t.Fatalf("Tail after %v of %d: got %d messages in a buffer of %d, ok %v", at, m.end(), len(got)-filled, cap(buf)-filled, ok)
			}
			got = got[filled:]
			if want := min(uint64(cap(buf)-filled), m.end()-at.Seq); uint64(len(got)) != want {
				t.Fatalf("Tail after %v of %d: got %d messages, want %d", at, m.end(), len(got), want)
			}
			t.wantMessages(fmt.Sprintf("Tail after %v", at), got, m.messages[at.Seq:at.Seq+uint64(len(got))])
			at = got[len(got)-1].ID
		}
	}
}

// tailPositions asks for positions from which Tail can and cannot go on.
func tailPositions(t *tester) {
	e := t.open(Options{})
	m := newModel(e)
	for _, n := range []int{0, 50} {
		m.publishRandom(t, e, n)
		mark := new(engine.Message)
		for _, after := range []engine.Cursor{
			{}, {Epoch: "another"}, {Epoch: "another", Seq: m.end()}, m.cursor(m.end() + 1), m.cursor(engine.MaxSeq),
		} {
			got, ok := e.Tail(after, append(make([]*engine.Message, 0, 10), mark))
			if ok || len(got) != 1 || got[0] != mark {
				t.Errorf("Tail after %+v of %d: got %d messages, ok %v, want buf as it was and false", after, m.end(), len(got), ok)
			}
		}
		for _, buf := range [][]*engine.Message{nil, make([]*engine.Message, 0, 10), {mark}} {
			got, ok := e.Tail(e.End(), buf)
			if !ok || len(got) != len(buf) {
				t.Errorf("Tail after the end %d: got %d messages, ok %v, want %d, true", m.end(), len(got), ok, len(buf))
			}
		}
		if n > 0 {
			if got, ok := e.Tail(m.cursor(m.end()-1), []*engine.Message{mark}); !ok || len(got) != 1 {
				t.Errorf("Tail with a full buffer: got %d messages, ok %v, want 1, true", len(got), ok)
			}
		}
	}
}
