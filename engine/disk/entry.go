package disk

import (
	"encoding/binary"
	"slices"

	"github.com/halley-comet/halley/engine"
)

// maxGroup is how many messages share entries. It bounds what a reader decodes
// for one message, and what is listed when the log is opened.
const maxGroup = 1 << 10

// An entry says which messages of a group a list has. A group is maxGroup
// messages, or fewer where those are large. Its last sequence is in the keys of
// its entries, so that a seek from any sequence of a list finds the entry which
// has it or the next one.
//
// The lists of the newest messages, which are not yet so many, are in memory
// alone: the writer has them to be stored, and readers find them in the tail.
// So it costs little to store a message in its lists as well.
type entry struct {
	last  uint64 // of the group, whether or not it is in the list
	seqs  []uint64
	sizes []uint64 // of a channel: of each message
	cum   count    // of a channel: what it had up to and with the entry
}

// A count is a number of messages and the sum of their sizes.
type count struct{ messages, bytes uint64 }

// appendValue appends what is stored:
//
//	of a channel      messages uvarint, bytes uvarint: cum
//	for each message  how far before the one that follows, the newest before
//	                  last: uvarint; of a channel with its size: uvarint
func (e *entry) appendValue(dst []byte, kind engine.PatternKind) []byte {
	if kind == engine.Exact {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, e.cum.messages), e.cum.bytes)
	}
	next := e.last
	for i, seq := range slices.Backward(e.seqs) {
		dst = binary.AppendUvarint(dst, next-seq)
		if kind == engine.Exact {
			dst = binary.AppendUvarint(dst, e.sizes[i])
		}
		next = seq
	}
	return dst
}

// decode reads a stored entry into e, whose slices it uses again. It reports
// false if that is none.
func (e *entry) decode(last uint64, value []byte, kind engine.PatternKind) bool {
	e.last, e.seqs, e.sizes, e.cum = last, e.seqs[:0], e.sizes[:0], count{}
	d := decoder{rest: value}
	if kind == engine.Exact {
		e.cum = count{d.uvarint(), d.uvarint()}
	}
	for seq := last; len(d.rest) > 0 && !d.bad; {
		back := d.uvarint()
		if back >= seq || back == 0 && len(e.seqs) > 0 {
			return false
		}
		seq -= back
		e.seqs = append(e.seqs, seq)
		if kind == engine.Exact {
			e.sizes = append(e.sizes, d.uvarint())
		}
	}
	slices.Reverse(e.seqs)
	slices.Reverse(e.sizes)
	return !d.bad && len(e.seqs) > 0
}

// find returns the index of the first message at or after a sequence.
func (e *entry) find(seq uint64) int {
	i, _ := slices.BinarySearch(e.seqs, seq)
	return i
}

// remove takes a message out, and reports whether the entry had it.
func (e *entry) remove(seq uint64) bool {
	i, ok := slices.BinarySearch(e.seqs, seq)
	if ok {
		e.seqs = slices.Delete(e.seqs, i, i+1)
		if len(e.sizes) > 0 {
			e.sizes = slices.Delete(e.sizes, i, i+1)
		}
	}
	return ok
}

// before returns what a channel had before the message i of an entry.
func (e *entry) before(i int) count {
	c := e.cum
	for _, size := range e.sizes[i:] {
		c.messages--
		c.bytes -= size
	}
	return c
}
