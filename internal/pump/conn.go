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

// ErrTooMany is returned by Change.
var ErrTooMany = errors.New("pump: too many channels")

// A Kind is what connections that are served alike have in common. They share
// one.
type Kind struct {
	// Framing encodes the items; nil leaves their Bytes nil.
	Framing Framing
	// Class is what Stats count connections under, below Classes.
	Class uint8
	// Poll makes connections that end with their first flush: as soon as there
	// is a message or a gap, or when their time is over. They get no open
	// control and no heartbeats.
	Poll bool
	// Silent leaves out the heartbeats of streams.
	Silent bool
	// Limit ends a stream after a time, and a visitor that sends nothing for so
	// long; 0 and less never do.
	Limit time.Duration
	// Whole makes connections that get every message, whatever the rules for
	// slow ones say.
	Whole bool
	// Parked is how connections are served that Park has made.
	Parked Parked
	// Next is what becomes of a parked poll's connection once it is answered,
	// if Parked has Reply.
	Next *Kind
}

// Parked is how a worker serves parked connections. It calls these functions
// in its own goroutine: they must not block. Those that are nil do nothing.
type Parked struct {
	// Prefix returns what is to be written before a message, for the framing
	// that depends on what went before: the content type of the message that
	// was written last, "" if none was.
	Prefix func(contentType string, m *engine.Message) []byte
	// Tail returns what is written after the last flush.
	Tail func(c *Conn, last Flush) []byte
	// Input takes what the client has sent, in bytes that are the worker's
	// again afterwards, and nothing if a visitor with an owner sends no more. If
	// it returns false, nothing more is read until Resume is called. Without
	// Input nothing is read at all.
	Input func(c *Conn, b []byte) (done bool)
	// Answer takes a poll's flush, and the socket with it.
	Answer func(c *Conn, f Flush)
	// Reply, in place of Answer, returns the response to a poll, after which
	// the client's next request is read.
	Reply func(c *Conn, f Flush) []byte
	// Alive has Reply be called only for a client that is not known to have gone:
	// to another, Gone is all that is called.
	Alive bool
	// Gone is called once when the connection is over.
	Gone func(c *Conn)
	// Write takes all bytes of a stream that has no socket: its Socket has FD
	// -1. So connections can be simulated, more than a machine has sockets for.
	Write func(c *Conn, b []byte)
}

// ConnOptions say what a connection wants.
type ConnOptions struct {
	Kind *Kind
	// Channels are names and patterns, valid and each once. The slice is the
	// connection's from now on.
	Channels []string
	// After is where to start; the zero Cursor is the oldest message retained.
	After engine.Cursor
	// From has the starts of single channels, later than After, or is nil. A
	// position of an epoch that is not the log's counts as none.
	From []engine.Cursor
	// Timeout is how long a poll is held; 0 answers at once.
	Timeout time.Duration
	// Place is where a lease holds the connection, nil if none does.
	Place *Place
	// Owner is what Kind's functions are told of the connection.
	Owner any
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
	// behind: messages up to rare.cursor were handed over; the log is to be
	// read from there.
	behind state = iota
	// live: the connection gets what its worker reads from the tail.
	live
	// gone: the connection has left, or its last flush was handed over.
	gone
	// visiting: it is not subscribed; its requests are read.
	visiting
)

// A Conn is a connection: a set of channels and a position. Its worker alone
// touches it. It is written either by a goroutine of its own, which takes
// flushes with Next, or, if it is parked, by the worker.
//
// There may be a million, most of them idle: what only some need at a time is
// in rare.
type Conn struct {
	worker *worker
	kind   *Kind
	owner  any
	set    *set
	slot   *slot // nil if it is parked
	rare   *rare // nil while there is nothing in it

	// sent is the last id it was sent.
	sent engine.Cursor
	// last, while live: the messages up to here are done with.
	last uint64

	before, after *Conn  // in the wheel's list
	due           uint32 // tick of the wheel
	touched       uint32 // tick when it was last sent something

	fd         int32  // its socket if it is parked, or -1
	generation uint32 // of fd, to know an event for an earlier socket by
	limit      uint32 // tick that ends it, or 0
	at         uint32 // in set.members
	first, end int32  // its part of the worker's batch, -1 if none

	// left is set once the connection is gone, for who works for it elsewhere.
	left  atomic.Bool
	state state
	flags flags
}

type flags uint16

const (
	opened   flags = 1 << iota // the open control was handed over
	queued                     // waits in the worker's list of catch-ups
	reading                    // a read for it is on its way; its result comes by the inbox
	expired                    // a poll that is to be answered at once
	blocked                    // its socket takes no more; the poller tells when it does
	watched                    // the poller looks for room in the socket
	paused                     // what the client sent is being dealt with
	input                      // the client has sent more meanwhile
	eof                        // the client sends no more, after what is to be read
	closing                    // gone, but for the socket, which the client may close first
	borrowed                   // its socket is not the worker's to close
	onWheel
	slow      // its client took no more, and it was not live since
	layered   // it has a Layer
	answering // an answer waits for the others of its batch
	leased    // it has a Lease
)

func (c *Conn) is(f flags) bool { return c.flags&f != 0 }
func (c *Conn) on(f flags)      { c.flags |= f }
func (c *Conn) off(f flags)     { c.flags &^= f }

// rare is what a connection has while it is behind, or is asked for something.
type rare struct {
	cursor engine.Cursor // while behind
	ahead  time.Time     // since when the engine has not come to it; zero if it has
	from   []engine.Cursor
	// resumed was the log's end when it came, until it is caught up; set only
	// where there are rules for slow connections.
	resumed engine.Cursor
	// reads counts changes of the channel set, to know a stale read by.
	reads    uint32
	ending   *wire.Control
	over     bool      // it is to end without a control
	requests []request // wait for room; one for each call in progress
	links    behindLinks

	// What a parked connection was not sent yet, but should have been.
	head    []byte // of the response
	rest    []byte // of what is not in the log
	partial engine.Cursor
	offset  int // bytes that were sent of the message at partial
}

// rarely returns what is rare of the connection, to be set.
func (c *Conn) rarely() *rare {
	if c.rare == nil {
		c.rare = &rare{}
	}
	return c.rare
}

// tidy lets go of what is not needed any more.
func (c *Conn) tidy() {
	r := c.rare
	if r != nil && c.state == live && r.ending == nil && !r.over && len(r.requests) == 0 &&
		r.head == nil && r.rest == nil && r.offset == 0 {
		c.rare = nil
	}
}

func (c *Conn) ending() bool { return c.rare != nil && (c.rare.ending != nil || c.rare.over) }

// cut tells whether the connection was sent a part of a message, whose rest
// has to come first.
func (c *Conn) cut() bool { return c.rare != nil && c.rare.offset > 0 }

// bytes returns a message in the connection's framing, nil if it has none.
func (c *Conn) bytes(m *engine.Message) []byte {
	if c.kind.Framing == nil {
		return nil
	}
	return c.worker.pump.frames.get(c.kind.Framing, m)
}

func newConn(w *worker, o *ConnOptions) *Conn {
	return &Conn{
		worker: w, kind: o.Kind, owner: o.Owner, fd: -1, first: -1,
		rare: &rare{cursor: o.After, from: o.From},
	}
}

// announced returns the content type that Prefix is asked with. It is the owner
// of a connection that has a prefix: there may be many such, with nothing else
// to be remembered.
func (c *Conn) announced() string {
	t, _ := c.owner.(string)
	return t
}

// Owner returns what the connection was made with. It and SetOwner are for
// Kind's functions.
func (c *Conn) Owner() any { return c.owner }

// SetOwner sets what Owner returns.
func (c *Conn) SetOwner(owner any) { c.owner = owner }

// room tells whether a flush can be handed over; if not, the worker's ready
// will be called when it can. Only the worker hands flushes over, so room
// stays.
func (c *Conn) room() bool {
	if c.slot == nil {
		return !c.is(blocked)
	}
	return c.slot.room()
}

// Finish ends the connection after what it was handed.
func (c *Conn) Finish() {
	c.worker.inbox.put(command{conn: c, do: func(w *worker, c *Conn) { w.end(c, nil) }})
}

// Leave ends the connection at once: nobody will call Next any more, or wants
// what it returns. It may be called more than once.
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

// endSoon is End, and cuts the connection if its client has not taken the
// control within a moment: what it is sent it has no right to any more.
func (c *Conn) endSoon(ctrl *wire.Control) {
	c.worker.inbox.put(command{conn: c, do: func(w *worker, c *Conn) {
		if w.end(c, ctrl); c.state != gone && !c.kind.Poll {
			c.limit = w.wheel.at + w.linger
			w.keepTime(c)
		}
	}})
}

// Send sends a control, and returns when it was handed over: so that who calls
// it for each of a client's requests holds no more than one.
func (c *Conn) Send(ctx context.Context, ctrl *wire.Control) error {
	return c.request(ctx, func(w *worker, c *Conn) *Item { return w.control(c, ctrl) })
}

// SendBytes sends bytes as they are to a parked connection. It returns as Send
// does.
func (c *Conn) SendBytes(ctx context.Context, b []byte) error {
	return c.request(ctx, func(*worker, *Conn) *Item { return &Item{Bytes: b} })
}

// Change adds and removes channels; what is removed and not there is ignored.
// New ones start after the last id that the connection was sent, which is the
// ID of the ack that Change sends, with ref, where ref is not nil. If there
// would be more than max, nothing changes and Change returns ErrTooMany.
func (c *Conn) Change(ctx context.Context, max int, add, remove []string, ref []byte) error {
	tooMany := false
	err := c.request(ctx, func(w *worker, c *Conn) *Item {
		if tooMany = !w.change(c, max, add, remove); tooMany || ref == nil {
			return nil
		}
		return w.control(c, &wire.Control{Kind: wire.Ack, Ref: ref, ID: c.sent})
	})
	if err == nil && tooMany {
		err = ErrTooMany
	}
	return err
}

// A request is something to do for a client that asked, once the connection
// has been opened and there is room for what it answers. done is closed when
// that was handed over, or never will be.
type request struct {
	do   func(*worker, *Conn) *Item
	done chan struct{}
}

func (c *Conn) request(ctx context.Context, do func(*worker, *Conn) *Item) error {
	r := request{do, make(chan struct{})}
	c.worker.inbox.put(command{conn: c, do: func(w *worker, c *Conn) {
		if c.state == gone {
			close(r.done)
			return
		}
		x := c.rarely()
		x.requests = append(x.requests, r)
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
