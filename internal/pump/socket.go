package pump

import (
	"errors"

	"github.com/halley-comet/halley/engine"
)

// A parked connection has no goroutine: its worker writes to its socket, one
// system call a flush, and a poller tells when its client is gone, has sent
// something, or takes more after it took no more for a while.
//
// What a socket does not take is not kept. The connection is then behind, as
// if it had come with a cursor: it stands before the message that was cut off,
// of which so many bytes were sent. When there is room again, the message is
// read from the log and encoded again. Controls, which are in no log, are the
// exception: their few bytes wait.

// ErrNoPoller is returned where connections cannot be parked.
var ErrNoPoller = errors.New("pump: no parked connections on this system")

// A Socket is what Park takes over.
type Socket struct {
	// FD is a connected stream socket, non-blocking or not; -1 if there is
	// Kind.Parked.Write in its place.
	FD int
	// Borrowed sockets are not closed by the pump: Kind.Parked.Gone or Answer
	// does it.
	Borrowed bool
	// Layer is between the connection and the socket; nil if there is none.
	Layer Layer
	// Head is written before anything else.
	Head []byte
	// Input is what was read from it already.
	Input []byte
}

// sockets are what a worker has of parked connections.
type sockets struct {
	conns      []*Conn // by descriptor
	layers     map[*Conn]Layer
	generation uint32
	sender     sender
	queue      []outgoing
	joined     []byte // bytes of the queue
	pieces     []piece
	buf        []byte
	rest       int // bytes in rare.rest of all
}

// An outgoing is a send that waits for the others of its batch.
type outgoing struct {
	conn  *Conn
	items []Item
	bytes []byte
}

// A piece is a part of what is written to a socket.
type piece struct {
	bytes   []byte
	message *engine.Message // nil for what is not in the log
	prefix  bool            // of the message, and not the message
	before  int             // bytes of it that were sent already
}

// What was not taken of responses and controls is kept for clients that do not
// read. A response may be 1 MiB and more. Once they hold so much in all, the
// next that would add to it is cut, unless it is little.
const (
	restBytes  = 64 << 20 // of the pump's connections, each worker having its share
	littleRest = 4 << 10
)

// sendBatch is how many sends wait for each other at most.
const sendBatch = 256

// CanPark tells whether connections can be parked here.
func (p *Pump) CanPark() bool { return haveSockets && !p.opts.NoParking }

// Park adds a connection that the pump writes itself. The socket is the pump's
// from now on, until Kind.Parked.Gone or Answer is called.
func (p *Pump) Park(o ConnOptions, s Socket) *Conn {
	c := newConn(p.nextWorker(), &o)
	c.fd, c.rare.head = int32(s.FD), s.Head
	if s.Borrowed {
		c.on(borrowed)
	}
	p.conns.Add(1)
	park := func(w *worker, c *Conn) {
		w.hold(c, o.Place.Held())
		if err := w.watch(c); err != nil {
			w.pump.opts.Logger.Error("halley: a socket cannot be polled", "error", err)
			w.leave(c)
			return
		}
		w.setLayer(c, s.Layer)
		w.join(c, o.Channels, o.Timeout)
		if len(s.Input) > 0 && c.fd >= 0 && c.kind.Parked.Input != nil && !c.kind.Parked.Input(c, s.Input) {
			c.on(paused)
		}
		if c.is(layered) { // which may have read more than it has given
			c.on(input)
			w.readInput(c)
		}
	}
	if !o.Place.take(c, func() bool { return c.worker.inbox.put(command{conn: c, do: park}) }) {
		p.conns.Add(-1)
		c.closeFD()
	}
	return c
}

// Resume has what else the client has sent be read, after Input.
func (c *Conn) Resume() {
	c.worker.inbox.put(command{conn: c, do: func(w *worker, c *Conn) {
		c.off(paused)
		w.readInput(c)
	}})
}

// watch begins to poll a connection's socket.
func (w *worker) watch(c *Conn) error {
	if c.kind.Parked.Write != nil {
		return nil
	}
	s := &w.sockets
	poller := w.poller.Load()
	if poller == nil {
		var err error
		if poller, err = newPoller(); err != nil {
			return err
		}
		w.poller.Store(poller)
		s.sender.start(w.pump.opts.NoRing)
	}
	for len(s.conns) <= int(c.fd) {
		s.conns = append(s.conns, nil)
	}
	s.generation++
	c.generation = s.generation
	s.conns[c.fd] = c
	limitUnsent(c.fd)
	return poller.add(c.fd, c.generation, c.kind.Parked.Input != nil)
}

// unwatch leaves the socket of a connection to whoever has it next.
func (w *worker) unwatch(c *Conn) {
	if int(c.fd) < len(w.sockets.conns) && w.sockets.conns[c.fd] == c {
		w.sockets.conns[c.fd] = nil
		w.poller.Load().remove(c.fd)
	}
	c.fd = -1
}

// closeSocket ends a connection that the worker has forgotten.
func (w *worker) closeSocket(c *Conn) {
	w.wheel.remove(c)
	if c.is(layered) {
		delete(w.sockets.layers, c)
	}
	if c.fd < 0 {
		return
	}
	if c.rare != nil {
		w.sockets.rest -= len(c.rare.rest)
	}
	fd := c.fd
	w.unwatch(c)
	c.fd = fd
	c.closeFD()
}

// closeFD closes a connection's socket, and says so.
func (c *Conn) closeFD() {
	if !c.is(borrowed) {
		closeFD(c.fd)
	}
	c.fd = -1
	c.rare = nil
	if c.kind.Parked.Gone != nil {
		c.kind.Parked.Gone(c)
	}
}

// close ends all connections, and those that are to come.
func (w *worker) close() {
	w.inbox.close()
	w.runCommands()
	w.sendQueued() // answers to what was done
	for _, c := range w.sockets.conns {
		if c != nil {
			w.cut(c, pumpClosed)
		}
	}
	for _, c := range w.conns() { // goroutines', which Next ends
		w.forget(c, pumpClosed)
	}
	w.sockets.sender.close()
	if p := w.poller.Swap(nil); p != nil {
		p.close()
	}
}

// runEvents does what the poller has seen, and tells whether there was
// anything.
func (w *worker) runEvents() (some bool) {
	poller := w.poller.Load()
	if poller == nil {
		return false
	}
	defer w.sendQueued()
	for range eventBatches {
		events, more := poller.events()
		for i := range events {
			e := &events[i]
			fd, generation := e.socket()
			if int(fd) >= len(w.sockets.conns) {
				continue
			}
			if c := w.sockets.conns[fd]; c != nil && c.generation == generation {
				w.event(c, e)
			}
		}
		some = some || len(events) > 0
		if !more {
			break
		}
	}
	return some
}

func (w *worker) event(c *Conn, e *event) {
	if e.writable() && c.is(blocked) {
		w.writable(c)
	}
	switch {
	case c.fd < 0:
	case e.broken(), e.closed() && c.kind.Parked.Input == nil:
		w.leave(c)
	case e.readable() || e.closed():
		c.on(input)
		if e.closed() {
			c.on(eof)
		}
		w.readInput(c)
	}
}

// readInput reads what a client has sent, until there is something to be dealt
// with.
func (w *worker) readInput(c *Conn) {
	for reads := 0; c.is(input) && !c.is(paused) && c.fd >= 0 && c.kind.Parked.Input != nil && (c.state != visiting || !c.is(blocked)); reads++ {
		if reads == inputReads {
			w.revisits = append(w.revisits, c)
			return
		}
		if c.is(answering) {
			w.sendQueued() // before anything else is sent, or the end
			continue
		}
		buf := w.sockets.input()
		b, err := w.receiveOn(c, buf)
		switch {
		case err == errAgain:
			c.off(input)
		case err == nil && len(b) == 0 && c.state == visiting && c.owner != nil:
			// It has sent a part of something, of which Input may dispose.
			if c.kind.Parked.Input(c, nil); c.fd >= 0 {
				w.leave(c)
			}
		case err != nil || len(b) == 0:
			w.leave(c)
		case c.is(closing):
			// It is no more than the goodbye; what else it may be comes late.
		default:
			if len(b) < len(buf) && !c.is(eof) && !c.is(layered) {
				c.off(input) // that was all: the poller tells of more
			}
			if !c.kind.Parked.Input(c, b) {
				c.on(paused)
			}
		}
	}
	if c.is(eof) && c.fd >= 0 && c.kind.Parked.Input == nil {
		w.leave(c) // a visitor that has joined, and is gone
	}
}

// inputReads is how often a client is read before others have their turn. One
// whose connection is closing may send without end.
const inputReads = 2

// input returns a buffer to read into.
func (s *sockets) input() []byte {
	if cap(s.buf) < 64<<10 {
		s.buf = make([]byte, 64<<10)
	}
	return s.buf[:64<<10]
}

// writable is called when a socket takes more.
func (w *worker) writable(c *Conn) {
	c.touched = w.wheel.at
	if !w.flushLayer(c) {
		return
	}
	c.off(blocked)
	if r := c.rare; r != nil && r.rest != nil {
		rest := r.rest
		r.rest = nil
		w.sockets.rest -= len(rest)
		w.sendPieces(c, append(w.sockets.pieces[:0], piece{bytes: rest}))
	}
	switch {
	case c.is(blocked) || c.fd < 0:
	case c.state == gone:
		w.sayGoodbye(c)
	case c.state == visiting:
		w.keepTime(c)
		w.readInput(c)
	default:
		w.ready(c)
	}
}

// sendHead sends the response's head alone, when the rest may take a while.
func (w *worker) sendHead(c *Conn) {
	if c.slot == nil && c.rare.head != nil && !c.kind.Poll {
		w.send(c, Flush{})
	}
}

// enqueue sends live items to a connection when the batch is full or over.
func (w *worker) enqueue(c *Conn, items []Item, joined []byte) {
	s := &w.sockets
	if c.kind.Parked.Prefix != nil || c.is(layered) {
		w.send(c, Flush{Items: items})
		return
	}
	switch {
	case joined != nil:
	case len(items) == 1:
		joined = items[0].Bytes
	default:
		start := len(s.joined)
		for _, it := range items {
			s.joined = append(s.joined, it.Bytes...)
		}
		joined = s.joined[start:len(s.joined):len(s.joined)]
	}
	if write := c.kind.Parked.Write; write != nil {
		write(c, joined)
		c.touched = w.wheel.at
		return
	}
	s.queue = append(s.queue, outgoing{c, items, joined})
	if len(s.queue) == sendBatch {
		w.sendQueued()
	}
}

// sendQueued sends what was enqueued.
func (w *worker) sendQueued() {
	s := &w.sockets
	if len(s.queue) == 0 {
		return
	}
	for i, n := range s.sender.sendAll(s.queue) {
		o := &s.queue[i]
		o.conn.off(answering)
		if int(n) == len(o.bytes) {
			o.conn.touched = w.wheel.at
			continue
		}
		s.pieces = s.pieces[:0]
		for _, it := range o.items {
			s.pieces = append(s.pieces, piece{bytes: it.Bytes, message: it.Message})
		}
		if o.items == nil { // a response
			s.pieces = append(s.pieces, piece{bytes: o.bytes})
		}
		w.cutOff(o.conn, s.pieces, int(n))
		w.boundRest(o.conn)
		clear(s.pieces)
	}
	clear(s.queue)
	s.queue = s.queue[:0]
	s.joined = s.joined[:0]
	if cap(s.joined) > 4<<20 {
		s.joined = nil
	}
}

// send writes a flush to a connection's socket.
func (w *worker) send(c *Conn, f Flush) {
	pieces := w.sockets.pieces[:0]
	r := c.rare
	if r != nil && r.head != nil {
		pieces = append(pieces, piece{bytes: r.head})
		r.head = nil
	}
	prefix := c.kind.Parked.Prefix
	announced := ""
	if prefix != nil {
		announced = c.announced()
	}
	for i, it := range f.Items {
		before := 0
		if i == 0 && r != nil && r.offset > 0 {
			// The rest of what was cut off, if it is still there.
			if it.Message == nil || it.Message.ID != r.partial || len(it.Bytes) < r.offset {
				w.cut(c, restTrimmed)
				return
			}
			w.countsOf(c).Bytes -= uint64(r.offset)
			it.Bytes, before = it.Bytes[r.offset:], r.offset
			r.offset = 0
		} else if prefix != nil && it.Message != nil && len(it.Bytes) > 0 {
			if b := prefix(announced, it.Message); b != nil {
				pieces = append(pieces, piece{bytes: b, message: it.Message, prefix: true})
			}
		}
		if prefix != nil && it.Message != nil && len(it.Bytes) > 0 {
			announced = it.Message.ContentType
		}
		pieces = append(pieces, piece{bytes: it.Bytes, message: it.Message, before: before})
	}
	if f.Last && c.kind.Parked.Tail != nil {
		pieces = append(pieces, piece{bytes: c.kind.Parked.Tail(c, f)})
	}
	w.sendPieces(c, pieces)
	w.boundRest(c)
	if f.Last && c.fd >= 0 {
		c.on(closing)
		if !c.is(blocked) {
			w.sayGoodbye(c)
		}
	}
}

// sendPieces writes pieces to a socket in one call.
func (w *worker) sendPieces(c *Conn, pieces []piece) {
	s := &w.sockets
	s.pieces = pieces
	var b []byte
	if len(pieces) == 1 {
		b = pieces[0].bytes
	} else {
		b = s.buf[:0]
		for _, p := range pieces {
			b = append(b, p.bytes...)
		}
		s.buf = b
	}
	n := len(b)
	if write := c.kind.Parked.Write; write != nil {
		write(c, b)
	} else {
		n = w.sendOn(c, b)
	}
	if n == len(b) {
		c.touched = w.wheel.at
		w.announce(c, pieces)
		w.waitForLayer(c)
	} else {
		w.cutOff(c, pieces, n)
	}
	clear(pieces)
	if cap(s.buf) > 4<<20 {
		s.buf = nil
	}
}

// announce remembers the content type of the last message that was written.
func (w *worker) announce(c *Conn, pieces []piece) {
	if c.kind.Parked.Prefix == nil {
		return
	}
	for _, p := range pieces {
		if p.message != nil && len(p.bytes) > 0 {
			if t := p.message.ContentType; t != c.announced() {
				c.owner = t
			}
		}
	}
}

// cutOff is called when a socket took only so many bytes; n is negative if it
// is broken.
func (w *worker) cutOff(c *Conn, pieces []piece, n int) {
	if n < 0 {
		w.leave(c)
		return
	}
	r := c.rarely()
	if n > 0 {
		c.touched = w.wheel.at
	}
	i := 0
	for ; n >= len(pieces[i].bytes); i++ {
		n -= len(pieces[i].bytes)
	}
	w.announce(c, pieces[:i])
	// What is not in the log and comes before the next message is kept. What
	// comes after it was not, as there is no such flush but a last one, which
	// has no messages.
	for ; i < len(pieces) && (pieces[i].message == nil || n > 0 && pieces[i].prefix); i++ {
		b := pieces[i].bytes[n:]
		r.rest = append(r.rest, b...)
		w.sockets.rest += len(b)
		w.announce(c, pieces[i:i+1])
		n = 0
	}
	if i < len(pieces) {
		m := pieces[i].message
		at := m.ID
		at.Seq--
		w.takenBack(c, pieces[i:], n)
		w.fallBehind(c, at)
		c.sent = at
		if n += pieces[i].before; n > 0 {
			r.partial, r.offset = m.ID, n
			w.announce(c, pieces[i:i+1])
		}
	}
	if c.state == behind {
		w.slowed(c)
	}
	w.block(c)
}

// boundRest ends a connection for which too much has begun to wait.
func (w *worker) boundRest(c *Conn) {
	if r := c.rare; r != nil && len(r.rest) > littleRest && w.sockets.rest > restBytes/len(w.pump.workers) {
		w.cut(c, tooMuchWaiting)
	}
}

// block has the poller tell when a connection's socket takes more.
func (w *worker) block(c *Conn) {
	c.on(blocked)
	if !c.is(watched) {
		c.on(watched)
		w.poller.Load().watchRoom(c.fd, c.generation, c.kind.Parked.Input != nil)
	}
	w.keepTime(c)
}

// sayGoodbye ends a connection whose last bytes are written: its client is to
// close it, or it would be reset if there is something unread.
func (w *worker) sayGoodbye(c *Conn) {
	c.on(closing)
	c.touched = w.wheel.at
	if l := w.layer(c); l != nil {
		l.Goodbye()
	}
	shutdownWrite(c.fd)
	w.wheel.set(c, c.touched+w.linger)
}

// HasGone tells whether a socket's client has closed it, as far as that has come
// here.
func HasGone(fd int) bool { return hasGone(int32(fd)) }

// SendNow writes to a socket what it takes at once. It returns the number of
// bytes, or -1 if the socket is broken.
func SendNow(fd int, b []byte) int { return sendTo(int32(fd), b) }
