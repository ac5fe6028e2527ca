package memory

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/halley-comet/halley/engine"
)

// Read implements engine.Engine.
func (l *Log) Read(ctx context.Context, q engine.Query) (engine.Page, error) {
	if l.isClosed() {
		return engine.Page{}, engine.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return engine.Page{}, err
	}
	if err := q.Check(); err != nil {
		return engine.Page{}, fmt.Errorf("memory: %w", err)
	}
	if q.After == l.End() {
		// Nothing is after the end, and nothing was removed after it.
		return engine.Page{Start: q.After, End: q.After}, nil
	}
	if now := time.Now().UnixMilli(); now >= l.due.Load() {
		l.expireAll(now)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return engine.Page{}, engine.ErrClosed
	}
	return l.readLocked(&q), nil
}

// readLocked answers a valid query.
func (l *Log) readLocked(q *engine.Query) engine.Page {
	end := l.end.Load()
	until := end
	if q.Until != 0 {
		until = min(until, q.Until)
	}
	known := q.After.Epoch == l.epoch && q.After.Seq <= end
	after := q.After.Seq
	if !known {
		after = 0
	}
	page := engine.Page{Gap: !known && !q.After.IsZero()}

	// What retention removed at most, and what it left at least.
	var trimmed, oldest uint64 = 0, math.MaxUint64
	var few [8]walk
	walks := few[:0]
	for i, c := range q.Channels {
		start := after
		if q.From != nil {
			start = max(start, q.From[i])
		}
		li := l.find(c)
		if li == nil {
			trimmed = max(trimmed, l.floor)
			page.Gap = page.Gap || known && l.floor > start
			continue
		}
		trimmed = max(trimmed, li.trimmed)
		page.Gap = page.Gap || known && li.trimmed > start
		w := li.walkFrom(start)
		if !w.next() {
			continue
		}
		oldest = min(oldest, w.seq)
		if q.Backward {
			if w = li.walkBack(until, start); !w.prev() {
				continue
			}
		}
		walks = append(walks, w)
	}
	page.Start = q.After
	if page.Gap || q.After.IsZero() {
		page.Start = l.cursor(min(trimmed, oldest-1))
	}
	l.mergeLocked(&page, walks, q, until)
	if q.Backward {
		slices.Reverse(page.Messages)
	}
	page.End = l.cursor(max(until, page.Start.Seq))
	if page.More && !q.Backward {
		page.End = page.Messages[len(page.Messages)-1].ID
	}
	return page
}

// mergeLocked fills the page with what the walks come to, up to until and to
// the query's bounds.
func (l *Log) mergeLocked(page *engine.Page, walks []walk, q *engine.Query, until uint64) {
	limit := q.Limit
	if limit == 0 {
		limit = engine.DefaultLimit
	}
	h := walkHeap{walks, q.Backward}
	h.init()
	var last uint64
	var bytes int
	for full := false; len(h.walks) > 0; h.step() {
		switch s := h.walks[0].slot; {
		case s.seq == last: // in several lists
			continue
		case s.seq > until:
			return
		case full:
			page.More = true
			return
		default:
			page.Messages = append(page.Messages, s.msg)
			last = s.seq
			bytes += len(s.msg.Data)
			full = len(page.Messages) == limit || q.Bytes > 0 && bytes >= q.Bytes
		}
	}
}

// A walkHeap merges walks that stand on a message each: the next one in the
// direction is that of the first walk.
type walkHeap struct {
	walks    []walk
	backward bool
}

func (h *walkHeap) init() {
	for i := len(h.walks)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

// step moves the first walk on.
func (h *walkHeap) step() {
	w := &h.walks[0]
	if h.backward && !w.prev() || !h.backward && !w.next() {
		last := len(h.walks) - 1
		h.walks[0] = h.walks[last]
		h.walks = h.walks[:last]
	}
	h.down(0)
}

func (h *walkHeap) down(i int) {
	for {
		next := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h.walks); c++ {
			if h.before(c, next) {
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

func (h *walkHeap) before(i, j int) bool {
	return (h.walks[i].seq < h.walks[j].seq) != h.backward
}
