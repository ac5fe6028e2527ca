package disk

import (
	"math"

	"github.com/halley-comet/halley/engine"
)

// readTail answers a query from memory, where it begins within the tail.
func (l *Log) readTail(q *engine.Query) (engine.Page, bool) {
	if q.After.Epoch != l.epoch {
		return engine.Page{}, false
	}
	match := newMatcher(q)
	t := &l.tail
	t.mu.RLock()
	defer t.mu.RUnlock()
	end := l.end.Load()
	after, until, known := l.bounds(q, end)
	if !known || !t.from(after) || l.isClosed() {
		return engine.Page{}, false
	}
	var page engine.Page
	var trimmed, oldest uint64 = 0, math.MaxUint64
	full := false
	f := filling{page: &page, q: q}
	// What was removed lies anywhere in the range, and each tells of a gap; what
	// was not is looked at as far as the page goes.
	visit := func(seq uint64) {
		h := t.at(seq)
		if h.removed {
			if matches, start := match.start(h.msg.Channel, after); matches {
				trimmed = max(trimmed, seq)
				page.Gap = page.Gap || seq > start
			}
			return
		}
		if page.More && oldest <= seq {
			return
		}
		matches, start := match.start(h.msg.Channel, after)
		if !matches || seq <= start {
			return
		}
		oldest = min(oldest, seq)
		switch {
		case seq > until:
		case full:
			page.More = true
		default:
			full = f.add(h.msg)
		}
	}
	if !q.Backward {
		for seq := after + 1; seq <= end && !(page.More && seq > t.removed); seq++ {
			visit(seq)
		}
	} else {
		for seq := end; seq > after && !(page.More && t.removed <= after); seq-- {
			visit(seq)
		}
	}
	l.finish(&page, q, trimmed, oldest, until)
	return page, true
}

// A matcher finds what a channel is asked for by, in a time that does not grow
// with the query.
type matcher struct {
	from  map[pattern]uint64
	exact bool // there are channels
	wild  bool // there are patterns
}

// A pattern is what engine.SplitPattern returns.
type pattern struct {
	prefix string
	kind   engine.PatternKind
}

func newMatcher(q *engine.Query) matcher {
	m := matcher{from: make(map[pattern]uint64, len(q.Channels))}
	for i, c := range q.Channels {
		prefix, kind := engine.SplitPattern(c)
		var from uint64
		if q.From != nil {
			from = q.From[i]
		}
		p := pattern{prefix, kind}
		if old, ok := m.from[p]; ok {
			from = min(from, old)
		}
		m.from[p] = from
		m.exact = m.exact || kind == engine.Exact
		m.wild = m.wild || kind != engine.Exact
	}
	return m
}

// start tells whether the channel is asked for, and after which sequence.
func (m *matcher) start(channel string, after uint64) (matches bool, start uint64) {
	start = math.MaxUint64
	if m.exact {
		if from, ok := m.from[pattern{channel, engine.Exact}]; ok {
			matches, start = true, from
		}
	}
	if m.wild {
		for prefix, kind := range engine.Patterns(channel) {
			if from, ok := m.from[pattern{prefix, kind}]; ok {
				matches, start = true, min(start, from)
			}
		}
	}
	return matches, max(start, after)
}
