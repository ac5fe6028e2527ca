package pump

import (
	"errors"
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
	reads uint32
}

// catchUpSoon puts a connection on the list of those to read for.
func (w *worker) catchUpSoon(c *Conn) {
	if !c.queued && (!c.reading || c.ending != nil) && c.state != gone {
		c.queued = true
		w.catchups = append(w.catchups, c)
	}
}

// fallBehind makes a live connection one that is behind, at a cursor.
func (w *worker) fallBehind(c *Conn, at engine.Cursor) {
	c.state = behind
	c.cursor = at
	c.pending = nil
	w.catchUpSoon(c)
}

// runCatchups serves some of the connections that are behind, and tells
// whether there are more.
func (w *worker) runCatchups() bool {
	n := min(len(w.catchups), catchupBatch)
	for _, c := range w.catchups[:n] {
		c.queued = false
		w.catchUp(c)
	}
	// The list may have grown meanwhile.
	rest := copy(w.catchups, w.catchups[n:])
	clear(w.catchups[rest:])
	w.catchups = w.catchups[:rest]
	return rest > 0
}

func (w *worker) catchUp(c *Conn) {
	if c.state == gone || !c.room() {
		return // ready comes when there is room
	}
	if c.ending != nil {
		w.finish(c, Flush{Items: []Item{w.control(c, c.ending)}, Position: w.position(c), Last: true})
		return
	}
	if w.answer(c); c.state != behind || c.reading || !c.room() {
		return
	}
	end := w.pump.engine.End()
	q := engine.Query{Channels: c.opts.Channels, After: c.cursor, From: c.from(end.Epoch), Limit: flushItems, Bytes: flushBytes}
	switch {
	case c.opts.Poll:
		q.Limit, q.Bytes = pollItems, pollBytes
	case len(q.Channels) == 0:
		// Only to know where it stands: page leaves the message out.
		q.Channels, q.Limit = []string{"**"}, 1
	}
	if at := c.cursor; at.Epoch == end.Epoch && at.Seq <= end.Seq && at.Seq+engine.Recent >= end.Seq {
		page, err := w.pump.engine.Read(w.pump.ctx, q)
		w.page(c, page, err)
		return
	}
	c.reading = true
	w.pump.reads.put(read{conn: c, query: q, reads: c.reads})
}

// from returns what is to be left out in the log's present epoch.
func (c *Conn) from(epoch string) []uint64 {
	if c.opts.From == nil {
		return nil
	}
	from := make([]uint64, len(c.opts.From))
	for i, f := range c.opts.From {
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
			page, err := p.engine.Read(p.ctx, r.query)
			r.conn.worker.inbox.put(command{conn: r.conn, do: func(w *worker, c *Conn) {
				c.reading = false
				switch {
				case c.state == gone:
				case c.reads != r.reads || c.ending != nil:
					w.catchUpSoon(c) // its channels have changed
				default:
					w.page(c, page, err)
				}
			}})
		}
	}
}

// page hands a page of the log to a connection that is behind and has room.
func (w *worker) page(c *Conn, page engine.Page, err error) {
	if err != nil {
		w.readFailed(c, err)
		return
	}
	if !c.room() {
		return // a heartbeat took it; the page is read again when there is room
	}
	if len(c.opts.Channels) == 0 {
		page.Messages, page.More, page.End = nil, false, w.pump.engine.End()
	}
	var items []Item
	if !c.opened && !c.opts.Poll {
		items = append(items, w.control(c, &wire.Control{Kind: wire.Open, ID: page.Start, Interval: w.pump.opts.Heartbeat}))
		c.lastSent = w.now
		if !c.opts.Silent {
			w.wheel.add(c, w.now)
		}
	}
	if page.Gap {
		items = append(items, w.control(c, &wire.Control{Kind: wire.Gap, ID: page.Start}))
	}
	if len(items) > 0 {
		c.sent = page.Start
	}
	c.opened = true
	for _, m := range page.Messages {
		items = append(items, Item{Message: m, Bytes: w.bytes(c, m)})
		c.sent = m.ID
	}
	c.cursor = page.End
	if len(items) > 0 {
		f := Flush{Items: items, Position: page.End}
		if c.opts.Poll {
			f.Items, f.Last = pollPage(items), true
			w.finish(c, f)
			return
		}
		w.offer(c, f)
	}
	if page.More || page.End.Epoch != w.pos.Epoch || page.End.Seq < w.pos.Seq {
		w.catchUpSoon(c)
		return
	}
	c.state = live
	c.last = page.End.Seq
	if c.expired {
		w.expire(c)
		return
	}
	w.answer(c)
}

func (w *worker) readFailed(c *Conn, err error) {
	switch {
	case w.pump.ctx.Err() != nil:
	case errors.Is(err, engine.ErrUnavailable) && c.opts.Poll:
		p := wire.NewProblem(wire.EngineUnavailable, "the log cannot be read now")
		p.RetryAfter = 2 * retryRead
		w.end(c, &wire.Control{Kind: wire.Error, Problem: p})
	case errors.Is(err, engine.ErrUnavailable):
		c.reading = true // until it is time to try again
		time.AfterFunc(retryRead, func() {
			w.inbox.put(command{conn: c, do: func(w *worker, c *Conn) {
				c.reading = false
				w.catchUpSoon(c)
			}})
		})
	case errors.Is(err, engine.ErrClosed):
		w.end(c, &wire.Control{Kind: wire.Reconnect, Delay: retryRead})
	default:
		w.pump.opts.Logger.Error("halley: reading the log for a connection failed", "error", err)
		w.end(c, &wire.Control{Kind: wire.Error, Problem: wire.NewProblem(wire.Internal, "reading the log failed")})
	}
}
