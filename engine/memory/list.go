package memory

import (
	"sort"

	"github.com/halley-comet/halley/engine"
)

// A list is messages in log order. Adding one and removing one, wherever it
// stands, take amortised constant time (and a binary search); finding a
// position takes a binary search.
//
// The slots lie in chunks: sealed ones, oldest first, and the open one that is
// being filled. A removed message leaves an empty slot behind. Slots go away
// from the front at once, chunks when all of their slots are empty, and the
// rest when more than half of all slots are empty; so a walk passes few empty
// slots for each message, however they came to be empty.
type list struct {
	sealed []chunk
	open   chunk

	// head and off are the chunk and the slot of the first message; chunk
	// len(sealed) is the open one. Both are 0 in an empty list.
	head, off int

	live    int    // messages
	room    int    // slots in sealed[head:]
	last    uint64 // the sequence last added
	trimmed uint64 // the highest sequence removed
}

type chunk struct {
	first uint64 // sequence of the first slot, also of a chunk whose slots are gone
	live  int    // slots with a message
	slots []slot
}

type slot struct {
	seq uint64
	msg *engine.Message // nil once removed
}

// chunkLen is the number of slots in a chunk at most.
const chunkLen = 128

func (l *list) chunk(i int) *chunk {
	if i == len(l.sealed) {
		return &l.open
	}
	return &l.sealed[i]
}

// first returns the oldest message, nil if there is none.
func (l *list) first() *engine.Message {
	if l.live == 0 {
		return nil
	}
	return l.chunk(l.head).slots[l.off].msg
}

// push adds a message whose sequence is higher than any before it.
func (l *list) push(m *engine.Message) {
	o := &l.open
	if len(o.slots) == cap(o.slots) {
		l.makeRoom()
	}
	if len(o.slots) == 0 {
		o.first = m.ID.Seq
	}
	o.slots = append(o.slots, slot{m.ID.Seq, m})
	o.live++
	l.live++
	l.last = m.ID.Seq
}

// makeRoom deals with an open chunk that is full. A small one is left for
// append to double.
func (l *list) makeRoom() {
	o := &l.open
	switch {
	case l.head == len(l.sealed) && l.off > 0 && 2*l.off >= len(o.slots):
		n := copy(o.slots, o.slots[l.off:])
		clear(o.slots[n:])
		o.slots, l.off = o.slots[:n], 0
		if n > 0 {
			o.first = o.slots[0].seq
		}
	case len(o.slots) >= chunkLen:
		l.sealed = append(l.sealed, *o)
		l.room += len(o.slots)
		*o = chunk{slots: make([]slot, 0, chunkLen)}
	}
}

// remove takes out the message with the sequence, which must be in the list.
func (l *list) remove(seq uint64) {
	ci, si := l.head, l.off
	if l.chunk(ci).slots[si].seq != seq {
		ci = l.chunkOf(seq)
		slots := l.chunk(ci).slots
		si = sort.Search(len(slots), func(i int) bool { return slots[i].seq >= seq })
	}
	c := l.chunk(ci)
	c.slots[si].msg = nil
	c.live--
	l.live--
	l.trimmed = max(l.trimmed, seq)
	switch {
	case l.live == 0:
		*l = list{last: l.last, trimmed: l.trimmed}
	case ci == l.head && si == l.off:
		l.advance()
	case c.live == 0 && ci < len(l.sealed):
		l.room -= len(c.slots)
		c.slots = nil
	}
	if sparse := l.room > 2*(l.live-l.open.live)+4*chunkLen; sparse || len(l.sealed)-l.head > l.room/chunkLen*4+16 {
		l.repack()
	}
}

// advance moves head and off to the first message of a list that has one.
func (l *list) advance() {
	for l.chunk(l.head).live == 0 {
		c := &l.sealed[l.head]
		l.room -= len(c.slots)
		c.slots = nil
		l.head++
		l.off = 0
	}
	for s := l.chunk(l.head).slots; s[l.off].msg == nil; {
		l.off++
	}
	if l.head == len(l.sealed) || l.head >= 16 && 2*l.head >= len(l.sealed) {
		n := copy(l.sealed, l.sealed[l.head:])
		clear(l.sealed[n:])
		l.sealed, l.head = l.sealed[:n], 0
	}
}

// repack moves the messages of the sealed chunks together.
func (l *list) repack() {
	var to []chunk
	for _, c := range l.sealed[l.head:] {
		if c.live == chunkLen {
			to = append(to, c)
			continue
		}
		for _, s := range c.slots {
			if s.msg == nil {
				continue
			}
			if len(to) == 0 || len(to[len(to)-1].slots) == chunkLen {
				to = append(to, chunk{first: s.seq, slots: make([]slot, 0, chunkLen)})
			}
			last := &to[len(to)-1]
			last.slots = append(last.slots, s)
			last.live++
		}
	}
	l.sealed, l.head, l.off, l.room = to, 0, 0, 0
	for _, c := range to {
		l.room += len(c.slots)
	}
	l.advance()
}

// chunkOf returns the chunk whose range of sequences holds the given one: the
// last that starts at or before it, or else the first.
func (l *list) chunkOf(seq uint64) int {
	n := len(l.sealed) - l.head + 1
	i := sort.Search(n, func(i int) bool { return l.chunk(l.head+i).first > seq })
	return l.head + max(i-1, 0)
}

// seek returns the chunk and slot of the first slot after the sequence, which
// may be an empty one or past the end of its chunk.
func (l *list) seek(seq uint64) (ci, si int) {
	if seq >= l.last {
		return len(l.sealed), len(l.open.slots)
	}
	ci = l.chunkOf(seq)
	slots := l.chunk(ci).slots
	return ci, sort.Search(len(slots), func(i int) bool { return slots[i].seq > seq })
}

// A walk goes over a list in one direction. It holds while the list does not
// change.
type walk struct {
	list   *list
	ci, si int // of the slot before which the walk stands
	after  uint64
	slot   // where it has come to
}

// walkFrom returns a walk that goes on with the messages after the sequence.
func (l *list) walkFrom(after uint64) walk {
	ci, si := l.seek(after)
	return walk{list: l, ci: ci, si: si}
}

// walkBack returns a walk that goes back from the last message which is not
// after until, and ends before it comes to one that is not after the other
// sequence.
func (l *list) walkBack(until, after uint64) walk {
	ci, si := l.seek(until)
	return walk{list: l, ci: ci, si: si, after: after}
}

func (w *walk) next() bool {
	for w.ci <= len(w.list.sealed) {
		slots := w.list.chunk(w.ci).slots
		for w.si < len(slots) {
			w.slot = slots[w.si]
			w.si++
			if w.msg != nil {
				return true
			}
		}
		w.ci++
		w.si = 0
	}
	return false
}

func (w *walk) prev() bool {
	for {
		slots := w.list.chunk(w.ci).slots
		for w.si > 0 {
			w.si--
			w.slot = slots[w.si]
			if w.seq <= w.after {
				return false
			}
			if w.msg != nil {
				return true
			}
		}
		if w.ci <= w.list.head {
			return false
		}
		w.ci--
		w.si = len(w.list.chunk(w.ci).slots)
	}
}
