package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"

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
		return engine.Page{}, fmt.Errorf("disk: %w", err)
	}
	if q.After == l.End() {
		// Nothing is after the end, and nothing was removed after it.
		return engine.Page{Start: q.After, End: q.After}, nil
	}
	if q.Limit == 0 {
		q.Limit = engine.DefaultLimit
	}
	if page, ok := l.readTail(&q); ok {
		return page, nil
	}
	l.reading.RLock()
	defer l.reading.RUnlock()
	if l.isClosed() {
		return engine.Page{}, engine.ErrClosed
	}
	page, err := l.readDisk(ctx, &q)
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return page, err
	}
	if errors.Is(err, ErrCorrupt) {
		l.fault.set(err)
	}
	return engine.Page{}, fmt.Errorf("disk: %s: read: %w: %w", l.dir, engine.ErrUnavailable, err)
}

// bounds returns where a query begins and ends in a log with the given end,
// and whether the log knows its cursor.
func (l *Log) bounds(q *engine.Query, end uint64) (after, until uint64, known bool) {
	until = end
	if q.Until != 0 {
		until = min(until, q.Until)
	}
	if known = q.After.Epoch == l.epoch && q.After.Seq <= end; known {
		after = q.After.Seq
	}
	return after, until, known
}

// finish sets the page's positions, when it is known what retention removed at
// most, and what it left at least.
func (l *Log) finish(page *engine.Page, q *engine.Query, trimmed, oldest, until uint64) {
	page.Start = q.After
	if page.Gap || q.After.IsZero() {
		page.Start = l.cursor(min(trimmed, oldest-1))
	}
	page.End = l.cursor(max(until, page.Start.Seq))
	if page.More && !q.Backward {
		page.End = page.Messages[len(page.Messages)-1].ID
	}
	if q.Backward {
		slices.Reverse(page.Messages)
	}
}

// A filling puts messages into a page, up to the query's bounds.
type filling struct {
	page  *engine.Page
	q     *engine.Query
	bytes int
}

// add reports whether the page is full.
func (f *filling) add(m *engine.Message) (full bool) {
	f.page.Messages = append(f.page.Messages, m)
	f.bytes += len(m.Data)
	return len(f.page.Messages) == f.q.Limit || f.q.Bytes > 0 && f.bytes >= f.q.Bytes
}

// readDisk answers a valid query from the disk. What it sees is of one moment
// at or after that in which it took the log's end; nothing after that end is
// looked at, since it may not be safe yet.
func (l *Log) readDisk(ctx context.Context, q *engine.Query) (engine.Page, error) {
	it, end, recent, err := l.snapshot(q)
	if err != nil {
		return engine.Page{}, damage(err)
	}
	defer it.Close()
	var s state
	if !it.SeekGE(stateKey) || !bytes.Equal(it.Key(), stateKey) || !s.decode(it.Value()) {
		return engine.Page{}, orDamage(it, "the state is missing")
	}
	after, until, known := l.bounds(q, end)
	page := engine.Page{Gap: !known && !q.After.IsZero()}

	var trimmed, oldest uint64 = 0, math.MaxUint64
	walks := make([]*walk, 0, len(q.Channels))
	for i, c := range q.Channels {
		start := after
		if q.From != nil {
			start = max(start, q.From[i])
		}
		name, kind := engine.SplitPattern(c)
		removed, low := s.floor, s.oldest
		if k := trimKey(nil, name, kind); it.SeekGE(k) && bytes.Equal(it.Key(), k) {
			if len(it.Value()) != 8 {
				return page, corrupt("trim record of %s: %x", c, it.Value())
			}
			last := lastUint64(it.Value())
			// More may be gone than the record tells: it was dropped for a while, or
			// a replica never had it.
			removed = max(last, s.floor)
			if kind == engine.Exact {
				// A channel loses its oldest first.
				low = max(low, last+1)
			}
		}
		trimmed = max(trimmed, min(removed, end))
		page.Gap = page.Gap || known && removed > start
		var beyond []uint64
		if recent != nil {
			n, _ := slices.BinarySearch(recent[i], s.listed+1)
			beyond = recent[i][n:]
		}
		w := newWalk(listPrefix(nil, name, kind), kind, max(start+1, low), end, beyond, chunk(q))
		if !w.next(it) {
			if w.err != nil {
				return page, w.err
			}
			continue
		}
		oldest = min(oldest, w.seq)
		if q.Backward {
			w = newWalkBack(w.prefix, kind, w.seq, until, beyond, chunk(q))
			if !w.next(it) {
				if w.err != nil {
					return page, w.err
				}
				continue
			}
		}
		walks = append(walks, w)
	}
	if err := damage(it.Error()); err != nil {
		return page, err
	}
	if err := l.merge(ctx, &page, it, walks, q, until); err != nil {
		return page, err
	}
	l.finish(&page, q, trimmed, oldest, until)
	return page, nil
}

// snapshot returns an iterator over what is on the disk at one moment, the end
// of the log before it, and what the query's lists there may lack: the sequences
// in the tail, from a position on up to which all are listed.
func (l *Log) snapshot(q *engine.Query) (it *pebble.Iterator, end uint64, recent [][]uint64, err error) {
	it, end, recent, leaving, err := l.snapshotTail(q)
	if err != nil || recent == nil || len(leaving) == 0 || it.SeekGE(messageKey(nil, leaving[0])) && bytes.Equal(it.Key(), messageKey(nil, leaving[0])) {
		return it, end, recent, err
	}
	if err := it.Error(); err != nil {
		it.Close()
		return nil, 0, nil, err
	}
	for i := range recent {
		recent[i] = slices.DeleteFunc(recent[i], func(seq uint64) bool {
			_, ok := slices.BinarySearch(leaving, seq)
			return ok
		})
	}
	return it, end, recent, nil
}

func (l *Log) snapshotTail(q *engine.Query) (it *pebble.Iterator, end uint64, recent [][]uint64, leaving []uint64, err error) {
	t := &l.tail
	t.mu.RLock() // nothing leaves the tail
	defer t.mu.RUnlock()
	if it, err = l.db.NewIter(nil); err != nil {
		return nil, 0, nil, nil, err
	}
	end = l.end.Load()
	if t.listed >= end {
		return it, end, nil, nil, nil
	}
	recent = make([][]uint64, len(q.Channels))
	for i, c := range q.Channels {
		prefix, kind := engine.SplitPattern(c)
		if prefix == "" && kind == engine.Below {
			continue
		}
		if t.damage != nil { // it may be of a message of this list
			it.Close()
			return nil, 0, nil, nil, t.damage
		}
		for seq := range t.list(pattern{prefix, kind}, t.listed) {
			if !t.at(seq).removed {
				recent[i] = append(recent[i], seq)
			}
		}
		slices.Reverse(recent[i])
	}
	return it, end, recent, t.leaving, nil
}

// merge fills the page with what the walks come to, up to until and to the
// query's bounds.
func (l *Log) merge(ctx context.Context, page *engine.Page, it *pebble.Iterator, walks []*walk, q *engine.Query, until uint64) error {
	if len(walks) == 0 {
		return nil
	}
	messages, err := it.Clone(pebble.CloneOptions{})
	if err != nil {
		return damage(err)
	}
	defer messages.Close()
	h := walkHeap{walks, q.Backward}
	h.init()
	f := filling{page: page, q: q}
	var last uint64
	var full bool
	for ; len(h.walks) > 0; err = h.step(it) {
		if err != nil {
			return err
		}
		switch seq := h.walks[0].seq; {
		case seq == last: // in several lists
			continue
		case seq > until:
			return nil
		case full:
			page.More = true
			return nil
		default:
			m, _, err := l.messageAt(messages, seq)
			if err != nil {
				return err
			}
			if m == nil {
				return corrupt("message %d is missing", seq)
			}
			last, full = seq, f.add(m)
			if len(page.Messages)%128 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return err
}

// messageAt reads a message, nil if there is none.
func (l *Log) messageAt(it *pebble.Iterator, seq uint64) (*engine.Message, recordInfo, error) {
	var buf [9]byte
	k := messageKey(buf[:0], seq)
	if !it.SeekGE(k) || !bytes.Equal(it.Key(), k) {
		return nil, recordInfo{}, damage(it.Error())
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return nil, recordInfo{}, damage(err)
	}
	m, info, err := decodeRecord(v, seq)
	if err != nil {
		return nil, info, err
	}
	m.ID.Epoch = l.epoch
	return m, info, nil
}

// orDamage returns the iterator's error, or else says what is wrong with what
// it found.
func orDamage(it *pebble.Iterator, format string, args ...any) error {
	if err := it.Error(); err != nil {
		return damage(err)
	}
	return corrupt(format, args...)
}
