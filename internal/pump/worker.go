package pump

import (
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// A command is something for a worker to do, to a connection where it has one.
type command struct {
	conn *Conn
	do   func(*worker, *Conn)
}

// A worker owns a share of the connections. All its fields but the inbox
// belong to its goroutine.
type worker struct {
	pump  *Pump
	inbox *mailbox[command]

	// pos is how far the worker has walked the log. A live connection has been
	// handed all its messages up to pos, but for those of fan-outs in progress.
	pos   engine.Cursor
	conns map[*Conn]struct{}
	index *index
	// fanouts in progress, in the order of their first messages.
	fanouts []*fanout
	turn    int // the fan-out whose slice comes next
	// catchups wait to have the log read for them.
	catchups []*Conn
	wheel    wheel
	now      time.Time
	drained  func() time.Duration // set once the pump drains

	// Buffers used again and again.
	commands []command
	tail     []*engine.Message
	lists    []*list
	touched  []*Conn
	wanted   []*fanout
}

// What a worker does in one turn, before it looks at everything else again.
const (
	tailBatch    = 256 // messages of the tail
	tailBytes    = flushBytes
	wideList     = 512 // connections: more make a fan-out of its own
	catchupBatch = 64  // connections behind
)

func newWorker(p *Pump) *worker {
	return &worker{
		pump:  p,
		inbox: newMailbox[command](),
		pos:   p.engine.End(),
		conns: map[*Conn]struct{}{},
		index: newIndex(),
		wheel: newWheel(p.opts.Heartbeat),
		tail:  make([]*engine.Message, 0, tailBatch),
	}
}

func (w *worker) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for w.pump.ctx.Err() == nil {
		w.now = time.Now()
		w.runCommands()
		busy := w.walk()
		busy = w.runFanout() || busy
		busy = w.runCatchups() || busy
		next := w.beat()
		if busy {
			continue
		}
		timer.Reset(next)
		select {
		case <-w.inbox.woken:
		case <-timer.C:
		case <-w.pump.ctx.Done():
		}
	}
}

func (w *worker) runCommands() {
	w.commands = w.inbox.takeAll(w.commands)
	for i := range w.commands {
		w.commands[i].do(w, w.commands[i].conn)
		w.commands[i] = command{}
	}
}

// walk hands on the next messages of the tail, and tells whether there may be
// more.
func (w *worker) walk() bool {
	end := w.pump.engine.End()
	if end == w.pos || w.fanoutsFull() {
		return false
	}
	if len(w.conns) == 0 {
		w.pos = end
		return false
	}
	tail, ok := w.pump.engine.Tail(w.pos, w.tail[:0])
	if !ok {
		// The log has another epoch, or has run away from this worker: every
		// connection reads on by itself, and is told of a gap where there is one.
		for c := range w.conns {
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
	w.lists = w.index.find(w.lists[:0], m.Channel)
	n := 0
	for _, l := range w.lists {
		n += len(l.conns)
	}
	if n > wideList || w.fanningOut(m.Channel) != nil {
		w.fanOut(m)
		return
	}
	for _, l := range w.lists {
		for _, c := range l.conns {
			if c != nil {
				w.hand(c, m)
			}
		}
	}
}

// hand adds a message to what a connection gets in this batch, after those of
// fan-outs that have not come to it yet.
func (w *worker) hand(c *Conn, m *engine.Message) {
	if c.state != live || c.last >= m.ID.Seq {
		return
	}
	if len(w.fanouts) > 0 {
		w.wanted = w.wantedBy(c, w.wanted[:0], nil)
		w.handBefore(c, m.ID.Seq, w.wanted)
	}
	w.add(c, m)
}

func (w *worker) add(c *Conn, m *engine.Message) {
	if len(c.pending) == 0 {
		w.touched = append(w.touched, c)
	}
	b := w.bytes(c, m)
	c.pending = append(c.pending, Item{Message: m, Bytes: b})
	c.last = m.ID.Seq
}

func (w *worker) bytes(c *Conn, m *engine.Message) []byte {
	if c.opts.Framing == nil {
		return nil
	}
	return w.pump.frames.get(c.opts.Framing, m)
}

// flushTouched hands over what the batch brought to each connection.
func (w *worker) flushTouched() {
	for i, c := range w.touched {
		items := c.pending
		c.pending = nil
		w.touched[i] = nil
		if c.state == live {
			w.flush(c, items)
		}
	}
	w.touched = w.touched[:0]
}

// flush hands live items to a connection, or leaves them to a catch-up if it
// has no room.
func (w *worker) flush(c *Conn, items []Item) {
	first, last := items[0].Message.ID, items[len(items)-1].Message.ID
	if !c.room() {
		first.Seq--
		w.fallBehind(c, first)
		return
	}
	if c.opts.Poll {
		w.finish(c, Flush{Items: pollPage(items), Last: true})
		return
	}
	w.offer(c, Flush{Items: items, Position: last})
	c.sent = last
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

// offer puts a flush into the slot, which has room.
func (w *worker) offer(c *Conn, f Flush) {
	c.slot <- f
	c.lastSent = w.now
}

// finish hands over a connection's last flush and forgets the connection.
func (w *worker) finish(c *Conn, f Flush) {
	if n := len(f.Items); n > 0 && f.Items[n-1].Message != nil {
		f.Position = f.Items[n-1].Message.ID
	}
	w.offer(c, f)
	w.forget(c)
}

// position returns where a connection stands: it has been handed all its
// messages up to there.
func (w *worker) position(c *Conn) engine.Cursor {
	if c.state != live {
		return c.cursor
	}
	p := w.pos
	if m := w.outstanding(c); m != nil {
		p.Seq = m.ID.Seq - 1
	}
	p.Seq = max(p.Seq, c.last)
	return p
}

func (w *worker) join(c *Conn) {
	if c.state == gone {
		return
	}
	if len(w.conns) == 0 {
		w.pos = w.pump.engine.End() // it may not have walked while alone
	}
	w.conns[c] = struct{}{}
	for _, name := range c.opts.Channels {
		w.index.add(c, name)
	}
	w.catchUpSoon(c)
	if w.drained != nil {
		w.sendAway(c)
	}
}

// leave forgets a connection that nobody will take flushes from any more.
func (w *worker) leave(c *Conn) {
	w.forget(c)
	for range c.slot { // what was not taken: the wheel may hold c for a while
	}
}

func (w *worker) forget(c *Conn) {
	if c.state == gone {
		return
	}
	c.state = gone
	c.left.Store(true)
	close(c.slot)
	for len(c.subs) > 0 {
		w.index.remove(c, len(c.subs)-1)
	}
	delete(w.conns, c)
	c.opts, c.subs, c.pending = ConnOptions{}, nil, nil
	for _, r := range c.requests {
		close(r.done)
	}
	c.requests = nil
	w.pump.conns.Add(-1)
}

// ready is called when a connection that had no room has it again.
func (w *worker) ready(c *Conn) {
	switch {
	case c.state == gone:
	case c.state == behind || c.ending != nil:
		w.catchUpSoon(c)
	default:
		w.answer(c)
	}
}

func (w *worker) expire(c *Conn) {
	c.expired = true
	if c.state == live {
		w.finish(c, Flush{Position: w.position(c), Last: true})
	}
}

// answer does what a connection's client has asked for, while there is room for
// the answers.
func (w *worker) answer(c *Conn) {
	for len(c.requests) > 0 && c.opened && c.room() {
		r := c.requests[0]
		c.requests = c.requests[1:]
		if ctrl := r.do(w, c); ctrl != nil {
			w.offer(c, Flush{Items: []Item{w.control(c, ctrl)}, Position: w.position(c)})
		}
		close(r.done)
	}
}

func (w *worker) control(c *Conn, ctrl *wire.Control) Item {
	it := Item{Control: ctrl}
	if c.opts.Framing != nil {
		it.Bytes = c.opts.Framing.AppendControl(nil, ctrl)
	}
	return it
}

// change adds and removes channels. What is new starts after the last id that
// the connection was sent, so the log is read again from there: of the other
// channels nothing after it was handed over.
func (w *worker) change(c *Conn, add, remove []string) {
	removed := make(map[string]bool, len(remove))
	for _, name := range remove {
		removed[name] = true
	}
	have := make(map[string]bool, len(c.subs))
	for i := len(c.subs) - 1; i >= 0; i-- {
		if name := c.subs[i].name; removed[name] {
			w.index.remove(c, i)
		} else {
			have[name] = true
		}
	}
	grown := false
	for _, name := range add {
		if !have[name] {
			have[name], grown = true, true
			w.index.add(c, name)
		}
	}
	c.opts.Channels = make([]string, len(c.subs))
	for i, s := range c.subs {
		c.opts.Channels[i] = s.name
	}
	c.reads++
	if grown {
		w.fallBehind(c, c.sent)
	}
}

// end ends a connection with a control, once there is room for it.
func (w *worker) end(c *Conn, ctrl *wire.Control) {
	if c.state == gone || c.ending != nil {
		return
	}
	c.ending = ctrl
	w.catchUpSoon(c)
}

func (w *worker) drain(delay func() time.Duration) {
	w.drained = delay
	for c := range w.conns {
		w.sendAway(c)
	}
}

// sendAway tells a stream when to come back. A poll is answered: it comes back
// anyhow.
func (w *worker) sendAway(c *Conn) {
	if c.opts.Poll {
		w.expire(c)
		return
	}
	w.end(c, &wire.Control{Kind: wire.Reconnect, Delay: w.drained()})
}
