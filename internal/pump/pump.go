// Package pump carries messages from the log to connections.
//
// A message takes this way: the engine stores it; every worker reads it from
// the log's tail (worker.go), finds its own connections of that channel
// (set.go, table.go), takes the message's bytes in each connection's framing
// from a table that all share (frames.go), and writes them to the connection's
// socket (socket.go), or hands them to the goroutine that writes the response
// (slot.go). A channel with many readers is served a slice at a time
// (fanout.go). A connection that is behind the tail, because it just came or
// because its client reads slowly, is read for from its own cursor until it has
// caught up (catchup.go), and may be left something out by the rules for slow
// ones (slow.go). There is no queue for a connection: the log is the queue.
package pump

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// Options of a pump. All fields have defaults.
type Options struct {
	// Workers is how many goroutines share the connections; default GOMAXPROCS.
	Workers int
	// Heartbeat is the longest silence of a stream; default 25 s.
	Heartbeat time.Duration
	// WriteTimeout is how long a client may take nothing of what a parked
	// connection has for it; default 30 s.
	WriteTimeout time.Duration
	// NoParking leaves every connection to a goroutine of its own.
	NoParking bool
	// NoRing has parked connections written by a system call for each, where
	// an io_uring could send to many at once.
	NoRing bool
	// SlowRules say what slow connections get.
	SlowRules []SlowRule
	// FrameBytes bounds the table of shared frames; default 8 MiB.
	FrameBytes int64
	// Logger takes what an operator should know; default slog.Default.
	Logger *slog.Logger
}

// A Framing is how one transport encodes messages and controls. It has no
// state, so that its bytes can be shared by all connections.
type Framing interface {
	// Slot tells framings apart in the table of shared frames: from 0, below
	// Slots.
	Slot() int
	// AppendMessage and AppendControl append the framing's bytes to dst.
	AppendMessage(dst []byte, m *engine.Message) []byte
	AppendControl(dst []byte, c *wire.Control) []byte
}

// Slots is the number of framings there may be.
const Slots = 16

// An Item is one message or one control of a Flush.
type Item struct {
	Message *engine.Message
	Control *wire.Control
	// Bytes are the item in the connection's framing, shared: not to be
	// written to. Nil where the connection has no framing.
	Bytes []byte
}

// A Flush is what a connection is to be sent next.
type Flush struct {
	// Items in their order. The slice may be shared by connections.
	Items []Item
	// Position is where the connection stands after the flush.
	Position engine.Cursor
	// Last is set on a connection's last flush.
	Last bool
}

// A Pump serves the connections of one log.
type Pump struct {
	engine   engine.Engine
	follower engine.Follower // the engine, if it is one
	opts     Options
	slow     []SlowRule // nil if all connections get everything
	frames   *frames
	workers  []*worker
	reads    *mailbox[read]

	next   atomic.Uint64 // the worker of the next connection
	conns  atomic.Int64
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New starts a pump on the engine.
func New(e engine.Engine, o Options) *Pump {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 25 * time.Second
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = 30 * time.Second
	}
	if o.FrameBytes <= 0 {
		o.FrameBytes = 8 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	follower, _ := e.(engine.Follower)
	p := &Pump{engine: e, follower: follower, opts: o, slow: slowRules(o.SlowRules), frames: newFrames(o.FrameBytes), reads: newMailbox[read]()}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for i := range o.Workers {
		w := newWorker(p, i)
		p.workers = append(p.workers, w)
		p.wg.Go(w.run)
		p.wg.Go(p.reader)
	}
	p.wg.Go(p.watch)
	return p
}

// watch wakes the workers when the log has grown.
func (p *Pump) watch() {
	for {
		end := p.engine.End()
		for _, w := range p.workers {
			w.inbox.wake()
		}
		err := p.engine.Wait(p.ctx, end)
		switch {
		case err == nil:
			continue
		case p.ctx.Err() != nil, errors.Is(err, engine.ErrClosed):
			return
		}
		p.opts.Logger.Error("halley: waiting for the log failed", "error", err)
		select {
		case <-time.After(retryRead):
		case <-p.ctx.Done():
			return
		}
	}
}

// grown wakes the other workers if a worker's clients may have published, which
// is sooner than the watcher would.
func (p *Pump) grown(by *worker) {
	if p.engine.End() == by.pos {
		return
	}
	for _, w := range p.workers {
		if w != by {
			w.inbox.wake()
		}
	}
}

// Join adds a connection. Whoever calls it takes the connection's flushes with
// Next, and calls Leave in the end.
func (p *Pump) Join(o ConnOptions) *Conn {
	c := newConn(p.nextWorker(), &o)
	c.slot = newSlot()
	p.conns.Add(1)
	join := func(w *worker, c *Conn) {
		w.hold(c, o.Place.Held())
		w.join(c, o.Channels, o.Timeout)
	}
	if !o.Place.take(c, func() bool { return c.worker.inbox.put(command{conn: c, do: join}) }) {
		p.conns.Add(-1)
	}
	return c
}

func (p *Pump) nextWorker() *worker { return p.workers[p.next.Add(1)%uint64(len(p.workers))] }

// Conns returns the number of connections.
func (p *Pump) Conns() int { return int(p.conns.Load()) }

// Drain ends every connection, and each that joins from now on, at a time of
// its own within the window, which begins now. Until then it gets what it would
// get. It is then told to come back after a delay. A second Drain may make the
// window shorter, but not longer.
func (p *Pump) Drain(window time.Duration, delay func() time.Duration) {
	end := time.Now().Add(window)
	for _, w := range p.workers {
		w.inbox.put(command{do: func(w *worker, _ *Conn) { w.drain(end, delay) }})
	}
}

// Close ends the pump and the Next calls of all its connections.
func (p *Pump) Close() {
	p.cancel()
	for _, w := range p.workers {
		w.inbox.wake()
	}
	p.wg.Wait()
}

// Closed returns a context that ends when the pump is closed.
func (p *Pump) Closed() context.Context { return p.ctx }
