package pump

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// A connection that is behind has the log read for it from its own cursor, a
// page at a time, each when there is room for it. Once a page ends at or after
// the worker's position, the connection is live: what follows, the worker will
// find in the tail, and what the page brought, it knows to leave out. Both
// happen in the worker, so that no message can slip in between.
//
// The last stretch is read by the worker itself, from what the engine holds in
// memory. Older pages are read by the pump's readers meanwhile.

// retryRead is how long a connection waits after its engine could not read.
const retryRead = time.Second

// A read is a page that a reader is to get for a connection.
type read struct {
	conn  *Conn
	query engine.Query
	slow  *slowRead // nil unless it is to be left something out
	reads uint32
}

// catchUpSoon puts a connection on the list of those to read for.
func (w *worker) catchUpSoon(c *Conn) {
	if !c.is(queued) && (!c.is(reading) || c.ending()) && c.state != gone {
		c.on(queued)
		w.catchups = append(w.catchups, c)
	}
}

// fallBehind makes a connection one that is behind, at a cursor.
func (w *worker) fallBehind(c *Conn, at engine.Cursor) {
	c.state = behind
	c.rarely().cursor = at
	w.listBehind(c)
	w.catchUpSoon(c)
}

// runCatchups serves some of the connections that are behind, and tells
// whether there are more.
func (w *worker) runCatchups() bool {
	for range min(len(w.catchups)-w.caughtUp, catchupBatch) {
		c := w.catchups[w.caughtUp] // the list may grow meanwhile
		w.catchups[w.caughtUp] = nil
		w.caughtUp++
		c.off(queued)
		w.catchUp(c)
	}
	// What is left moves up once it is no more than what is done: a storm's list
	// is long.
	if rest := len(w.catchups) - w.caughtUp; rest <= w.caughtUp {
		copy(w.catchups, w.catchups[w.caughtUp:])
		clear(w.catchups[rest:])
		w.catchups, w.caughtUp = w.catchups[:rest], 0
	}
	return len(w.catchups) > 0
}

func (w *worker) catchUp(c *Conn) {
	if c.state == gone || !c.room() {
		return // ready comes when there is room
	}
	if c.ending() && !c.cut() {
		f := Flush{Position: w.position(c)}
		if ctrl := c.rare.ending; ctrl != nil {
			f.Items = []Item{*w.control(c, ctrl)}
		}
		w.finish(c, f)
		return
	}
	if w.answer(c); c.state != behind || c.is(reading) || !c.room() {
		return
	}
	end := w.pump.engine.End()
	at, slow := c.rare.cursor, w.slowRead(c)
	if at == end || c.kind.Poll && len(c.set.names()) == 0 { // as those that come back from an answer are, or want nothing
		w.page(c, pageRead{Page: engine.Page{Start: end, End: end}}, nil)
		return
	}
	if w.pump.follower != nil && at.Epoch == end.Epoch && at.Seq > end.Seq && w.isAhead(c, at) {
		return
	}
	c.rare.ahead = time.Time{}
	q := engine.Query{Channels: c.set.names(), After: at, From: c.rare.since(end.Epoch), Limit: flushItems, Bytes: flushBytes}
	switch {
	case c.kind.Poll:
		q.Limit, q.Bytes = pollItems, pollBytes
	case len(q.Channels) == 0:
		// Only to know where it stands: page leaves the message out.
		q.Channels, q.Limit = []string{"**"}, 1
	case c.ending():
		q.Limit, slow = 1, nil // the rest of the message that it was cut in
	}
	if at.Epoch == end.Epoch && at.Seq <= end.Seq && at.Seq+engine.Recent >= end.Seq {
		page, err := w.pump.read(q, slow)
		w.page(c, page, err)
		return
	}
	c.on(reading)
	w.pump.reads.put(read{conn: c, query: q, slow: slow, reads: c.rare.reads})
	w.sendHead(c)
}

// isAhead tells whether an engine may not have come to a connection's position,
// and then waits for it. Most often that is a matter of milliseconds.
func (w *worker) isAhead(c *Conn, at engine.Cursor) bool {
	var once sync.Once
	again := func() {
		once.Do(func() {
			w.inbox.put(command{conn: c, do: func(w *worker, c *Conn) {
				c.off(reading)
				w.catchUpSoon(c)
			}})
		})
	}
	if !w.pump.follower.Ahead(at, again) {
		return false
	}
	if c.rare.ahead.IsZero() {
		c.rare.ahead = time.Now()
	}
	if c.kind.Poll && time.Since(c.rare.ahead) > aheadPatience {
		once.Do(func() {}) // it is not called any more
		c.rare.ahead = time.Time{}
		w.readFailed(c, engine.ErrUnavailable)
		return true
	}
	c.on(reading) // until it is called
	time.AfterFunc(retryRead, again)
	w.sendHead(c)
	return true
}

// aheadPatience is how long a poll is held for which the engine is behind.
const aheadPatience = 4 * time.Second

// retryAfter has a connection read for after a while.
func (w *worker) retryAfter(c *Conn, d time.Duration) {
	c.on(reading) // until it is time
	time.AfterFunc(d, func() {
		w.inbox.put(command{conn: c, do: func(w *worker, c *Conn) {
			c.off(reading)
			w.catchUpSoon(c)
		}})
	})
}

// since returns what is to be left out in the log's present epoch.
func (r *rare) since(epoch string) []uint64 {
	if r.from == nil {
		return nil
	}
	from := make([]uint64, len(r.from))
	for i, f := range r.from {
		if f.Epoch == epoch {
			from[i] = f.Seq
		}
	}
	return from
}

// reader gets pages for connections that are far behind.
func (p *Pump) reader() {
	for {
		select {
		case <-p.reads.woken:
		case <-p.ctx.Done():
			return
		}
		for {
			r, ok := p.reads.takeOne()
			if !ok {
				break
			}
			if r.conn.left.Load() {
				continue
			}
			page, err := p.read(r.query, r.slow)
			r.conn.worker.inbox.put(command{conn: r.conn, do: func(w *worker, c *Conn) {
				c.off(reading)
				switch {
				case c.state == gone:
				case c.rarely().reads != r.reads || c.ending() && !c.cut():
					w.catchUpSoon(c) // its channels have changed
				default:
					w.page(c, page, err)
				}
			}})
		}
	}
}

// page hands a page of the log to a connection that is behind and has room.
func (w *worker) page(c *Conn, page pageRead, err error) {
	if err != nil {
		w.readFailed(c, err)
		return
	}
	if !c.room() {
		return // something else took it; the page is read again when there is room
	}
	if len(c.set.names()) == 0 {
		page.Messages, page.More, page.End = nil, false, w.pump.engine.End()
	}
	var items []Item
	if !c.is(opened) && !c.kind.Poll {
		items = append(items, *w.control(c, &wire.Control{Kind: wire.Open, ID: page.Start, Interval: w.pump.opts.Heartbeat}))
	}
	if page.Gap {
		w.counts.gaps++
		items = append(items, *w.control(c, &wire.Control{Kind: wire.Gap, ID: page.Start}))
	}
	if len(items) > 0 {
		c.sent = page.Start
	}
	items = slices.Grow(items, len(page.Messages))
	for i, m := range page.Messages {
		items = w.skip(c, items, page, i)
		items = append(items, Item{Message: m, Bytes: c.bytes(m)})
		c.sent = m.ID
	}
	items = w.skip(c, items, page, len(page.Messages))
	c.rare.cursor = page.End
	if len(items) > 0 {
		f := Flush{Items: items, Position: page.End}
		if c.kind.Poll {
			f.Items = pollPage(items)
			w.finish(c, f)
			return
		}
		start := !c.is(opened)
		c.on(opened)
		w.offer(c, f)
		if c.state == gone {
			return
		}
		if start {
			w.keepTime(c)
		}
		if c.is(blocked) {
			return // it stands where it was cut off
		}
	}
	if page.More || page.End.Epoch != w.pos.Epoch || page.End.Seq < w.pos.Seq {
		w.catchUpSoon(c)
		return
	}
	w.unlistBehind(c)
	c.state = live
	c.off(slow)
	c.last = page.End.Seq
	switch {
	case c.is(expired):
		w.expire(c)
	case c.ending():
		w.catchUpSoon(c)
	default:
		w.answer(c)
	}
}

func (w *worker) readFailed(c *Conn, err error) {
	switch tooSlow, ok := errors.AsType[errTooSlow](err); {
	case ok && c.ending():
		w.catchUpSoon(c) // another reason came first
	case ok:
		w.end(c, &wire.Control{Kind: wire.Error, Problem: wire.NewProblem(wire.TooSlow, tooSlow.Error())})
	case w.pump.ctx.Err() != nil:
	case errors.Is(err, engine.ErrUnavailable) && c.kind.Poll:
		p := wire.NewProblem(wire.EngineUnavailable, "the log cannot be read now")
		p.RetryAfter = 2 * retryRead
		w.end(c, &wire.Control{Kind: wire.Error, Problem: p})
	case errors.Is(err, engine.ErrUnavailable):
		w.retryAfter(c, retryRead)
	case errors.Is(err, engine.ErrClosed):
		w.end(c, &wire.Control{Kind: wire.Reconnect, Delay: retryRead})
	default:
		w.pump.opts.Logger.Error("halley: reading the log for a connection failed", "error", err)
		w.end(c, &wire.Control{Kind: wire.Error, Problem: wire.NewProblem(wire.Internal, "reading the log failed")})
	}
}
