package memory

import "github.com/halley-comet/halley/engine"

// What Tail can go back to: see Log.Tail.
const (
	tailLen = 8192
	tailAge = 60_000 // milliseconds
)

// A tail is the newest messages of the log without a hole, those among them
// that retention has removed included.
type tail struct {
	slots   []held // a ring: sequence s is at s & (len(slots)-1)
	first   uint64 // the oldest held
	next    uint64 // the one after the newest; first if none is held
	removed int64  // cost of the held messages that the log has no more
}

type held struct {
	msg     *engine.Message
	removed int64 // its cost, once the log has it no more
}

func (t *tail) at(seq uint64) *held { return &t.slots[seq&uint64(len(t.slots)-1)] }

func (t *tail) holds(seq uint64) bool { return t.first <= seq && seq < t.next }

// push adds the next message. There must be room for it: see full.
func (t *tail) push(m *engine.Message) {
	if t.first == t.next {
		t.first, t.next = m.ID.Seq, m.ID.Seq
	}
	if n := int(t.next - t.first); n == len(t.slots) {
		old := *t
		t.slots = make([]held, max(2*n, 16))
		for s := t.first; s < t.next; s++ {
			*t.at(s) = *old.at(s)
		}
	}
	*t.at(m.ID.Seq) = held{msg: m}
	t.next = m.ID.Seq + 1
}

func (t *tail) full() bool { return t.next-t.first == tailLen }

// evict lets go of the oldest message and returns what that frees.
func (t *tail) evict() int64 {
	h := t.at(t.first)
	freed := h.removed
	t.removed -= freed
	*h = held{}
	t.first++
	return freed
}

// Tail implements engine.Engine. The log holds its newest 8,192 messages,
// fewer where those that retention has removed would take more than an eighth
// of Options.Limit, or are a minute old, or where the log is over its limit.
func (l *Log) Tail(after engine.Cursor, buf []*engine.Message) ([]*engine.Message, bool) {
	if after.Epoch != l.epoch {
		return buf, false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	end := l.end.Load()
	if l.closed || after.Seq > end || after.Seq < end && !l.tail.holds(after.Seq+1) {
		return buf, false
	}
	for seq := after.Seq + 1; seq <= end && len(buf) < cap(buf); seq++ {
		buf = append(buf, l.tail.at(seq).msg)
	}
	return buf, true
}
