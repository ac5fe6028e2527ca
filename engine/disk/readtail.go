package disk

import (
	"iter"
	"math"
	"slices"

	"github.com/halley-comet/halley/engine"
)

// readTail answers a query from memory, where it begins within the tail. It
// looks at what the lists asked for have after the query's cursor: where that is
// much, and not among the newest, a page of it costs less from the disk.
func (l *Log) readTail(q *engine.Query) (engine.Page, bool) {
	if q.After.Epoch != l.epoch {
		return engine.Page{}, false
	}
	t := &l.tail
	t.mu.RLock()
	defer t.mu.RUnlock()
	end := l.end.Load()
	after, until, known := l.bounds(q, end)
	if !known || !t.from(after, end) || l.isClosed() {
		return engine.Page{}, false
	}
	var page engine.Page
	var trimmed, oldest uint64 = 0, math.MaxUint64
	var seqs []uint64
	visits := visitsPerMessage * max(q.Limit, engine.DefaultLimit/10)
	for i, c := range q.Channels {
		start := after
		if q.From != nil {
			start = max(start, q.From[i])
		}
		prefix, kind := engine.SplitPattern(c)
		for seq := range t.list(pattern{prefix, kind}, after) {
			if visits--; visits < 0 && end-after > engine.Recent {
				return engine.Page{}, false
			}
			switch {
			case t.at(seq).removed:
				trimmed = max(trimmed, seq)
				page.Gap = page.Gap || seq > start
			case seq > start:
				oldest = min(oldest, seq)
				seqs = append(seqs, seq)
			}
		}
	}
	slices.Sort(seqs)
	seqs = slices.Compact(seqs) // some are in several lists
	n, ok := slices.BinarySearch(seqs, until)
	if ok {
		n++
	}
	seqs = seqs[:n]
	if q.Backward {
		slices.Reverse(seqs)
	}
	f := filling{page: &page, q: q}
	for i, seq := range seqs {
		if full := f.add(t.at(seq).msg); full {
			page.More = i+1 < len(seqs)
			break
		}
	}
	l.finish(&page, q, trimmed, oldest, until)
	return page, true
}

// visitsPerMessage is how many messages of the tail are looked at for one of a
// page: about what reading that from the disk costs.
const visitsPerMessage = 64

// list yields a list's sequences that follow after, from the newest on.
func (t *tail) list(p pattern, after uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		if p.prefix == "" && p.kind == engine.Below {
			for seq := t.next - 1; seq > after; seq-- {
				if !yield(seq) {
					return
				}
			}
			return
		}
		c := t.patterns[p]
		if p.kind == engine.Exact {
			if chains := t.channels[p.prefix]; chains != nil {
				c = chains[0]
			}
		}
		if c == nil {
			return
		}
		for seq := c.newest; seq > after; {
			if !yield(seq) {
				return
			}
			h := t.at(seq)
			seq = h.before[h.place(p)]
		}
	}
}
