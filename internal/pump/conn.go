package pump

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// ErrClosed is returned once the connection or the pump is closed.
var ErrClosed = errors.New("pump: closed")

// ConnOptions say what a connection wants.
type ConnOptions struct {
	// Channels are names and patterns, valid and each once. The slice is the
	// connection's from now on.
	Channels []string
	// After is where to start; the zero Cursor is the oldest message retained.
	After engine.Cursor
	// From has the starts of single channels, later than After, or is nil. A
	// position of an epoch that is not the log's counts as none.
	From []engine.Cursor
	// Framing encodes the items; nil leaves their Bytes nil.
	Framing Framing
	// Poll makes a connection that ends with its first flush: as soon as there
	// is a message or a gap, or when it is told to Expire. It gets no open
	// control and no heartbeats.
	Poll bool
	// Silent leaves out the heartbeats of a stream.
	Silent bool
}

// Bounds of one flush: they keep what waits for a slow client small, and are
// the protocol's own for a poll.
const (
	flushItems = 256
	flushBytes = 256 << 10
	pollItems  = 1000
	pollBytes  = 1 << 20
)

type state uint8

const (
	// behind: messages up to cursor were handed over; the log is to be read
	// from there.
	behind state = iota
	// live: the connection gets what its worker reads from the tail.
	live
	// gone: the connection has left, or its last flush was handed over.
	gone
)

// A Conn is a connection: a set of channels, a position and a framing. Its
// worker alone touches its fields; the goroutine that writes the response
// takes flushes with Next. Between the two there is room for one flush.
type Conn struct {
	worker *worker
	opts   ConnOptions

	slot chan Flush // of capacity 1, filled and in the end closed by the worker
	// wanted asks the writing goroutine to tell the worker when it has taken
	// the flush.
	wanted atomic.Bool
	// left is set once the connection is gone, for who works for it elsewhere.
	left atomic.Bool

	// The worker's.
	state   state
	opened  bool // the open control was handed over
	queued  bool // waits in the worker's list of catch-ups
	reading bool // a read for it is on its way; its result comes by the inbox
	expired bool // a poll that is to be answered at once
	ending  *wire.Control
	subs    []place
	// reads counts changes of the channel set, to know a stale read by.
	reads    uint32
	cursor   engine.Cursor // while behind
	last     uint64        // while live: the messages up to here are done with
	sent     engine.Cursor // the last id it was sent
	lastSent time.Time
	requests []request // wait for room; one for each call in progress
	pending  []Item    // of the batch in progress
}

func newConn(w *worker, o ConnOptions) *Conn {
	return &Conn{worker: w, opts: o, cursor: o.After, slot: make(chan Flush, 1)}
}

// Next returns the next flush. It is for the one goroutine that writes. It
// returns ctx's error, or ErrClosed when the connection has left, its last
// flush was taken, or the pump is closed.
func (c *Conn) Next(ctx context.Context) (Flush, error) {
	select {
	case f, ok := <-c.slot:
		if !ok {
			return f, ErrClosed
		}
		if c.wanted.Swap(false) {
			c.worker.inbox.put(command{conn: c, do: (*worker).ready})
		}
		return f, nil
	case <-ctx.Done():
		return Flush{}, ctx.Err()
	case <-c.worker.pump.ctx.Done():
		return Flush{}, ErrClosed
	}
}

// room tells whether a flush can be handed over; if not, the worker's ready
// will be called when it can. Only the worker fills the slot, so room stays.
func (c *Conn) room() bool {
	if len(c.slot) == 0 {
		return true
	}
	c.wanted.Store(true)
	return len(c.slot) == 0
}

// Finish ends the connection after what it was handed. Leave is due all the
// same.
func (c *Conn) Finish() {
	c.worker.inbox.put(command{conn: c, do: (*worker).forget})
}

// Leave ends the connection: nobody will call Next any more, or wants what it
// returns. It may be called more than once.
func (c *Conn) Leave() {
	c.worker.inbox.put(command{conn: c, do: (*worker).leave})
}

// Expire answers a poll with what there is.
func (c *Conn) Expire() {
	c.worker.inbox.put(command{conn: c, do: (*worker).expire})
}

// End ends the connection with a control, once what it was handed is written.
func (c *Conn) End(ctrl *wire.Control) {
	c.worker.inbox.put(command{conn: c, do: func(w *worker, c *Conn) { w.end(c, ctrl) }})
}

// Send sends a control, and returns when it was handed over: so that who calls
// it for each of a client's requests holds no more than one.
func (c *Conn) Send(ctx context.Context, ctrl *wire.Control) error {
	return c.request(ctx, func(*worker, *Conn) *wire.Control { return ctrl })
}

// Change adds and removes channels; what is removed and not there is ignored.
// New ones start after the last id that the connection was sent, which is the
// ID of the ack that Change sends, with ref, where ref is not nil.
func (c *Conn) Change(ctx context.Context, add, remove []string, ref []byte) error {
	return c.request(ctx, func(w *worker, c *Conn) *wire.Control {
		w.change(c, add, remove)
		if ref == nil {
			return nil
		}
		return &wire.Control{Kind: wire.Ack, Ref: ref, ID: c.sent}
	})
}

// A request is something to do for a client that asked, once the connection
// has been opened and there is room for what it answers. done is closed when
// that was handed over, or never will be.
type request struct {
	do   func(*worker, *Conn) *wire.Control
	done chan struct{}
}

func (c *Conn) request(ctx context.Context, do func(*worker, *Conn) *wire.Control) error {
	r := request{do, make(chan struct{})}
	c.worker.inbox.put(command{conn: c, do: func(w *worker, c *Conn) {
		if c.state == gone {
			close(r.done)
			return
		}
		c.requests = append(c.requests, r)
		w.answer(c)
	}})
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.worker.pump.ctx.Done():
		return ErrClosed
	}
}
