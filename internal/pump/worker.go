package pump

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// A command is something for a worker to do, to a connection where it has one.
type command struct {
	conn *Conn
	do   func(*worker, *Conn)
}

// A worker owns a share of the connections. All its fields but the inbox and
// the poller belong to its goroutine.
type worker struct {
	pump   *Pump
	number int
	inbox  *mailbox[command]
	poller atomic.Pointer[poller] // nil until a connection is parked

	// pos is how far the worker has walked the log. A live connection has been
	// handed all its messages up to pos, but for those of fan-outs in progress.
	pos   engine.Cursor
	index *index
	count int // of connections
	// fanouts in progress, in the order of their first messages.
	fanouts []*fanout
	turn    int // the fan-out whose slice comes next
	// catchups, from caughtUp on, wait to have the log read for them.
	catchups []*Conn
	caughtUp int
	revisits []*Conn
	sockets  sockets

	wheel    *wheel
	now      time.Time
	silence  uint32 // ticks after which a stream gets a heartbeat
	patience uint32 // ticks in which a client has to take something
	linger   uint32 // ticks in which a client may close its socket itself

	leases   map[*Conn]*Lease
	drained  func() time.Duration // set once the pump drains
	drainEnd time.Time

	counts  counts
	behind  *Conn // the first of those that are
	surveys []*survey
	gone    chan struct{} // closed when the worker has ended

	// Buffers used again and again.
	commands []command
	tail     []*engine.Message
	found    []*set
	touched  []*Conn
	batch    []entry
	items    []Item
	wanted   []*fanout
}

// An entry is a message of the batch for one connection, and the place of its
// next one, or -1.
type entry struct {
	message *engine.Message
	next    int32
	alone   bool // no other connection of the worker gets the message
}

// What a worker does in one turn, before it looks at everything else again.
const (
	tailBatch    = 256 // messages of the tail
	tailBytes    = flushBytes
	wideList     = 512 // connections: more make a fan-out of its own
	catchupBatch = 64  // connections behind
	eventBatches = 4   // of the poller's events, which keep until the next turn
)

// linger is how long a client has to close its connection after the end.
const linger = time.Second

func newWorker(p *Pump, number int) *worker {
	wheel := newWheel(p.opts.Heartbeat)
	w := &worker{
		pump:     p,
		number:   number,
		inbox:    newMailbox[command](),
		pos:      p.engine.End(),
		index:    newIndex(),
		wheel:    wheel,
		silence:  max(wheel.span(p.opts.Heartbeat), 4) - 2, // early, so that none waits longer
		patience: wheel.span(p.opts.WriteTimeout),
		linger:   wheel.span(linger),
		gone:     make(chan struct{}),
		tail:     make([]*engine.Message, 0, tailBatch),
	}
	w.inbox.rung = w.wake
	return w
}

func (w *worker) run() {
	defer close(w.gone)
	defer w.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for w.pump.ctx.Err() == nil {
		if w.work() {
			continue
		}
		d := w.wheel.sleep(w.now)
		if p := w.poller.Load(); p != nil {
			// Who waits for this processor would have to be found by another
			// thread, as the scheduler does not know that this one sleeps.
			runtime.Gosched()
			p.sleep(d, w.inbox.drain)
			continue
		}
		timer.Reset(d)
		select {
		case <-w.inbox.woken:
		case <-timer.C:
		case <-w.pump.ctx.Done():
		}
	}
}

// wake is called when there is something in the inbox, or something new in the
// log.
func (w *worker) wake() {
	if p := w.poller.Load(); p != nil {
		p.wake()
	}
}

// work is one turn. It tells whether there may be more to do at once.
func (w *worker) work() bool {
	w.now = time.Now()
	w.beat()
	w.runCommands()
	busy := w.runEvents()
	if busy {
		w.pump.grown(w)
	}
	busy = w.walk() || busy
	busy = w.runFanout() || busy
	busy = w.runCatchups() || busy
	w.sendQueued()
	busy = w.runSurvey() || busy
	return w.runRevisits() || busy
}

func (w *worker) runCommands() {
	w.commands = w.inbox.takeAll(w.commands)
	for i := range w.commands {
		w.commands[i].do(w, w.commands[i].conn)
		w.commands[i] = command{}
	}
	if cap(w.commands) > 1<<14 {
		w.commands = nil // a storm's
	}
}

// conns returns all connections.
func (w *worker) conns() []*Conn {
	all := make([]*Conn, 0, w.count)
	for _, s := range w.index.sets.chains {
		for ; s != nil; s = s.next {
			for _, c := range s.members {
				if c != nil {
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// walk hands on the next messages of the tail, and tells whether there may be
// more.
func (w *worker) walk() bool {
	end := w.pump.engine.End()
	if end == w.pos || w.fanoutsFull() {
		return false
	}
	if w.count == 0 {
		w.pos = end
		return false
	}
	tail, ok := w.pump.engine.Tail(w.pos, w.tail[:0])
	if !ok {
		// The log has another epoch, or has run away from this worker: every
		// connection reads on by itself, and is told of a gap where there is one.
		for _, c := range w.conns() {
			if c.state == live {
				w.fallBehind(c, w.position(c))
			}
		}
		w.endFanouts()
		w.pos = w.pump.engine.End()
		return true
	}
	size := 0
	for _, m := range tail {
		w.pos = m.ID
		w.deliver(m)
		if size += len(m.Data); size >= tailBytes {
			w.flushTouched()
			size = 0
		}
	}
	w.flushTouched()
	clear(tail)
	return len(tail) > 0
}

// deliver finds the connections of a message: a few are served at once, many
// by a fan-out.
func (w *worker) deliver(m *engine.Message) {
	w.found = w.index.find(w.found[:0], m.Channel)
	n := 0
	for _, s := range w.found {
		n += len(s.members)
	}
	if n > wideList || w.fanningOut(m.Channel) != nil {
		w.fanOut(m)
	} else {
		for _, s := range w.found {
			for _, c := range s.members {
				if c != nil {
					w.hand(c, m, n == 1)
				}
			}
		}
	}
	clear(w.found)
}

// hand adds a message to what a connection gets in this batch, after those of
// fan-outs that have not come to it yet.
func (w *worker) hand(c *Conn, m *engine.Message, alone bool) {
	if c.state != live || c.last >= m.ID.Seq {
		return
	}
	if len(w.fanouts) > 0 {
		w.wanted = w.wantedBy(c, w.wanted[:0], nil)
		w.handBefore(c, m.ID.Seq, w.wanted)
	}
	w.add(c, m, alone)
}

func (w *worker) add(c *Conn, m *engine.Message, alone bool) {
	at := int32(len(w.batch))
	w.batch = append(w.batch, entry{m, -1, alone})
	if c.first < 0 {
		w.touched = append(w.touched, c)
		c.first = at
	} else {
		w.batch[c.end].next = at
	}
	c.end = at
	c.last = m.ID.Seq
}

// flushTouched hands over what the batch brought to each connection.
func (w *worker) flushTouched() {
	for i, c := range w.touched {
		start := len(w.items)
		if c.state == live {
			for at := c.first; at >= 0; at = w.batch[at].next {
				e := &w.batch[at]
				w.items = append(w.items, Item{Message: e.message, Bytes: w.bytes(c, e)})
			}
		}
		c.first = -1
		w.touched[i] = nil
		if len(w.items) > start {
			w.flush(c, w.items[start:len(w.items):len(w.items)], nil)
		}
	}
	w.sendQueued()
	clear(w.batch)
	clear(w.items)
	w.touched, w.batch, w.items = w.touched[:0], w.batch[:0], w.items[:0]
}

// bytes returns a message of the batch in a connection's framing. One that is
// for a single connection, and is written before the batch is over, needs no
// place in the table of frames.
func (w *worker) bytes(c *Conn, e *entry) []byte {
	if !e.alone || c.slot != nil || c.kind.Framing == nil {
		return c.bytes(e.message)
	}
	s := &w.sockets
	start := len(s.joined)
	s.joined = c.kind.Framing.AppendMessage(s.joined, e.message)
	return s.joined[start:len(s.joined):len(s.joined)]
}

// flush hands live items to a connection, or leaves them to a catch-up if it
// has no room. The items are the worker's, until the batch is over; joined are
// their bytes in one piece, if they are there.
func (w *worker) flush(c *Conn, items []Item, joined []byte) {
	if !c.room() {
		at := items[0].Message.ID
		at.Seq--
		w.fallBehind(c, at)
		w.slowed(c)
		return
	}
	last := items[len(items)-1].Message.ID
	c.sent = last
	switch {
	case c.kind.Poll:
		w.finish(c, Flush{Items: slices.Clone(pollPage(items))})
	case c.slot != nil:
		w.offer(c, Flush{Items: slices.Clone(items), Position: last})
	default:
		w.handed(c, items, joined)
		w.enqueue(c, items, joined)
	}
}

// pollPage cuts a poll's items to what one answer may hold, but for a first
// message that is larger.
func pollPage(items []Item) []Item {
	messages, size := 0, 0
	for i, it := range items {
		if it.Message == nil {
			continue
		}
		if size += len(it.Bytes); messages == pollItems || messages > 0 && size > pollBytes {
			return items[:i]
		}
		messages++
	}
	return items
}

// offer hands over a flush, for which there is room.
func (w *worker) offer(c *Conn, f Flush) {
	w.handed(c, f.Items, nil)
	switch {
	case c.slot != nil:
		c.slot.flushes <- f
	case c.kind.Poll && c.kind.Parked.Alive && hasGone(c.fd):
		w.leave(c)
	case c.kind.Poll && c.kind.Parked.Reply != nil:
		w.respond(w.revisit(c), c.kind.Parked.Reply(c, f))
	case c.kind.Poll:
		w.unwatch(c)
		c.kind.Parked.Answer(c, f)
	default:
		w.send(c, f)
		return
	}
	if !c.kind.Poll {
		c.touched = w.wheel.at
	}
}

// finish hands over a connection's last flush and forgets the connection.
func (w *worker) finish(c *Conn, f Flush) {
	if n := len(f.Items); n > 0 && f.Items[n-1].Message != nil {
		f.Position = f.Items[n-1].Message.ID
	}
	f.Last = true
	w.letGo(c) // before a poll's answer: the client may come again at once
	w.offer(c, f)
	w.forget(c, c.reason())
}

// position returns where a connection stands: it has been handed all its
// messages up to there.
func (w *worker) position(c *Conn) engine.Cursor {
	if c.state != live {
		return c.rarely().cursor
	}
	p := w.pos
	if m := w.outstanding(c); m != nil {
		p.Seq = m.ID.Seq - 1
	}
	p.Seq = max(p.Seq, c.last)
	return p
}

func (w *worker) join(c *Conn, channels []string, timeout time.Duration) {
	if c.state == gone {
		return
	}
	if w.count == 0 {
		w.pos = w.pump.engine.End() // it may not have walked while alone
	}
	w.count++
	w.index.add(c, channels)
	w.began(c)
	w.listBehind(c)
	switch {
	case c.kind.Poll && timeout <= 0:
		c.on(expired)
	case c.kind.Poll:
		c.touched = w.wheel.ticks(w.now.Add(timeout)) + 1
	default:
		c.touched = w.wheel.at
		if c.kind.Limit > 0 {
			c.limit = w.wheel.at + w.wheel.span(c.kind.Limit)
		}
	}
	if w.pump.slow != nil && !c.kind.Poll {
		c.rarely().resumed = w.pump.engine.End()
	}
	w.keepTime(c)
	w.catchUpSoon(c)
	if w.drained != nil {
		w.setLeave(c)
	}
}

// leave ends a connection that nobody will take flushes from any more.
func (w *worker) leave(c *Conn) { w.cut(c, clientLeft) }

// cut is leave for another reason than that the client has gone.
func (w *worker) cut(c *Conn, why string) {
	w.forget(c, why)
	if c.slot == nil {
		w.closeSocket(c)
		return
	}
	for range c.slot.flushes { // what was not taken
	}
}

// forget lets go of a connection, but for the last flush on its way.
func (w *worker) forget(c *Conn, why string) {
	if c.state == gone {
		return
	}
	if c.state == visiting {
		w.counts.visitors--
	} else {
		w.pump.conns.Add(-1)
	}
	w.unlistBehind(c)
	c.state = gone
	c.left.Store(true)
	w.letGo(c)
	if !c.is(closing) {
		w.wheel.remove(c)
	}
	if c.set != nil {
		w.index.remove(c)
		w.count--
		w.ended(c, why)
	}
	if c.slot != nil {
		close(c.slot.flushes)
	}
	if r := c.rare; r != nil {
		for _, q := range r.requests {
			close(q.done)
		}
		r.requests, r.from, r.ending = nil, nil, nil
	}
}

// ready is called when a connection that had no room has it again.
func (w *worker) ready(c *Conn) {
	switch {
	case c.state == gone:
	case c.state == behind || c.ending():
		if c.slot != nil && w.wheel.at-c.touched >= w.wheel.span(slowFlush) {
			w.slowed(c)
		}
		w.catchUpSoon(c)
	default:
		w.answer(c)
	}
}

func (w *worker) expire(c *Conn) {
	c.on(expired)
	if c.state == live {
		w.finish(c, Flush{Position: w.position(c)})
	}
}

// answer does what a connection's client has asked for, while there is room for
// the answers.
func (w *worker) answer(c *Conn) {
	for c.rare != nil && len(c.rare.requests) > 0 && c.is(opened) && c.room() && !c.cut() {
		q := c.rare.requests[0]
		c.rare.requests = c.rare.requests[1:]
		if it := q.do(w, c); it != nil {
			w.offer(c, Flush{Items: []Item{*it}, Position: w.position(c)})
		}
		close(q.done)
	}
	c.tidy()
}

func (w *worker) control(c *Conn, ctrl *wire.Control) *Item {
	it := &Item{Control: ctrl}
	if c.kind.Framing != nil {
		it.Bytes = c.kind.Framing.AppendControl(nil, ctrl)
	}
	return it
}

// change adds and removes channels. What is new starts after the last id that
// the connection was sent, so the log is read again from there: of the other
// channels nothing after it was handed over. It reports false if there would
// be more than max.
func (w *worker) change(c *Conn, max int, add, remove []string) bool {
	removed := make(map[string]bool, len(remove))
	for _, name := range remove {
		removed[name] = true
	}
	have := make(map[string]bool, len(c.set.names())+len(add))
	var names []string
	for _, name := range c.set.names() {
		if !removed[name] {
			have[name] = true
			names = append(names, name)
		}
	}
	at := w.position(c)
	for _, name := range add {
		if !have[name] {
			have[name] = true
			names = append(names, name)
			at = c.sent
		}
	}
	if len(add) > 0 && len(names) > max {
		return false
	}
	w.index.remove(c)
	w.index.add(c, names)
	r := c.rarely()
	r.reads++
	r.from = nil // the start of each was long ago
	w.fallBehind(c, at)
	return true
}

// end ends a connection once there is room, with a control if there is one.
func (w *worker) end(c *Conn, ctrl *wire.Control) {
	if c.state == gone || c.ending() {
		return
	}
	r := c.rarely()
	r.ending, r.over = ctrl, true
	w.catchUpSoon(c)
}

func (w *worker) drain(end time.Time, delay func() time.Duration) {
	w.drained, w.drainEnd = delay, end
	for _, c := range w.conns() {
		w.setLeave(c)
	}
}

// setLeave draws by lot when a connection is to go, in the time that is left.
func (w *worker) setLeave(c *Conn) {
	left := w.drainEnd.Sub(w.now)
	if left <= 0 {
		w.sendAway(c)
		return
	}
	tick := max(w.wheel.ticks(w.now.Add(rand.N(left))), 1)
	switch {
	case c.kind.Poll && int32(c.touched-tick) > 0:
		c.touched = tick
	case !c.kind.Poll && (c.limit == 0 || int32(c.limit-tick) > 0):
		c.limit = tick
	}
	w.keepTime(c)
}

// sendAway tells a stream when to come back. A poll is answered: it comes back
// anyhow.
func (w *worker) sendAway(c *Conn) {
	if c.kind.Poll {
		w.expire(c)
		return
	}
	w.end(c, &wire.Control{Kind: wire.Reconnect, Delay: w.drained()}) // once there is room
}
