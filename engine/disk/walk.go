package disk

import (
	"bytes"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

const (
	minChunk = 4
	maxChunk = 1024
)

// chunk is how many sequences a walk of the query reads at first: together the
// walks read about what the page may hold.
func chunk(q *engine.Query) int {
	return min(max(2*q.Limit/len(q.Channels), minChunk), q.Limit+1, maxChunk/4)
}

// A walk goes over a list in one direction. It reads the sequences in chunks,
// so that all walks of a query share one iterator: each of Pebble's holds
// blocks and buffers of every level.
type walk struct {
	prefix   []byte
	kind     engine.PatternKind
	low      uint64 // what is still to be read lies between these, inclusive
	high     uint64
	recent   []uint64 // after all that the list has on the disk
	backward bool
	size     int
	seqs     []uint64 // read, from i on not yet walked over
	i        int
	entry    entry  // that was read last
	seq      uint64 // where it has come to
	err      error
}

func newWalk(prefix []byte, kind engine.PatternKind, low, high uint64, recent []uint64, size int) *walk {
	return &walk{prefix: prefix[:len(prefix):len(prefix)], kind: kind, low: low, high: high, recent: recent, size: size}
}

func newWalkBack(prefix []byte, kind engine.PatternKind, low, high uint64, recent []uint64, size int) *walk {
	w := newWalk(prefix, kind, low, high, recent, size)
	w.backward = true
	return w
}

// next goes one message on. It moves the iterator only now and then.
func (w *walk) next(it *pebble.Iterator) bool {
	if w.i == len(w.seqs) {
		w.read(it)
		if len(w.seqs) == 0 {
			return false
		}
	}
	w.seq = w.seqs[w.i]
	w.i++
	return true
}

func (w *walk) read(it *pebble.Iterator) {
	w.seqs, w.i = w.seqs[:0], 0
	if w.low > w.high {
		return
	}
	if w.backward && w.takeRecent() {
		return
	}
	if w.backward {
		// The first entry that ends at or after high may have some before it.
		ok := it.SeekGE(appendUint64(w.prefix, w.high)) && w.has(it.Key()) || it.SeekLT(appendUint64(w.prefix, w.high))
		for ; ok && w.take(it); ok = it.Prev() {
		}
	} else {
		ok := it.SeekGE(appendUint64(w.prefix, w.low))
		for ; ok && w.take(it); ok = it.Next() {
		}
	}
	if w.err == nil {
		w.err = damage(it.Error())
	}
	if len(w.seqs) < w.size || w.err != nil {
		if !w.backward {
			w.takeRecent()
		}
		w.high, w.low = 0, 1 // that was all
	}
	if w.err != nil {
		w.seqs = w.seqs[:0]
	}
	w.size = min(2*w.size, maxChunk)
}

// takeRecent takes what of the range is recent, and reports whether there is
// something.
func (w *walk) takeRecent() bool {
	if len(w.recent) == 0 || w.low > w.high {
		return false
	}
	from, _ := slices.BinarySearch(w.recent, w.low)
	to, _ := slices.BinarySearch(w.recent, w.high+1)
	w.seqs = append(w.seqs, w.recent[from:to]...)
	if w.backward {
		slices.Reverse(w.seqs)
	}
	w.recent = nil
	return to > from
}

// has tells whether the key is of an entry of the list.
func (w *walk) has(key []byte) bool {
	return len(key) == len(w.prefix)+8 && bytes.HasPrefix(key, w.prefix)
}

// take takes what the iterator's entry has of the range. It reports false where
// the chunk, the range or the list ends.
func (w *walk) take(it *pebble.Iterator) bool {
	if len(w.seqs) == w.size || !w.has(it.Key()) {
		return false
	}
	last := lastUint64(it.Key())
	if len(w.prefix) == 1 { // messages have keys of their own
		return w.backward && last > w.high || w.add(last)
	}
	value, err := it.ValueAndErr()
	if err != nil {
		w.err = damage(err)
		return false
	}
	if !w.entry.decode(last, value, w.kind) {
		w.err = corrupt("entry %x: %x", it.Key(), value)
		return false
	}
	seqs := w.entry.seqs
	if w.backward {
		for i := len(seqs) - 1; i >= 0; i-- {
			if seqs[i] <= w.high && !w.add(seqs[i]) {
				return false
			}
		}
		return true
	}
	for _, seq := range seqs[w.entry.find(w.low):] {
		if !w.add(seq) {
			return false
		}
	}
	return true
}

// add takes a sequence, and reports false where the chunk or the range ends.
func (w *walk) add(seq uint64) bool {
	if len(w.seqs) == w.size || seq < w.low || seq > w.high {
		return false
	}
	w.seqs = append(w.seqs, seq)
	if w.backward {
		w.high = seq - 1
	} else {
		w.low = seq + 1
	}
	return true
}

// A walkHeap merges walks that stand on a message each: the next one in the
// direction is that of the first walk.
type walkHeap struct {
	walks    []*walk
	backward bool
}

func (h *walkHeap) init() {
	for i := len(h.walks)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

// step moves the first walk on.
func (h *walkHeap) step(it *pebble.Iterator) error {
	w := h.walks[0]
	if !w.next(it) {
		if w.err != nil {
			return w.err
		}
		last := len(h.walks) - 1
		h.walks[0] = h.walks[last]
		h.walks = h.walks[:last]
	}
	h.down(0)
	return nil
}

func (h *walkHeap) down(i int) {
	for {
		next := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h.walks); c++ {
			if (h.walks[c].seq < h.walks[next].seq) != h.backward && h.walks[c].seq != h.walks[next].seq {
				next = c
			}
		}
		if next == i {
			return
		}
		h.walks[i], h.walks[next] = h.walks[next], h.walks[i]
		i = next
	}
}
