package pump

import "net/netip"

// A visitor is a parked connection that is subscribed to nothing yet, or no
// more: what its client sends goes to Kind.Parked.Input, which answers it
// (Respond), subscribes it (Join), or takes the socket away (Release). Those
// three are for Input alone, in whose worker they act.

// Visit adds a visitor, which is cut when nothing comes from it within
// kind.Limit, if there is one. It returns false once the pump is closed, and
// leaves the socket to the caller.
func (p *Pump) Visit(kind *Kind, fd int) bool {
	return p.nextWorker().inbox.put(command{do: func(w *worker, _ *Conn) { w.visit(kind, int32(fd)) }})
}

func (w *worker) visit(kind *Kind, fd int32) {
	c := &Conn{worker: w, kind: kind, state: visiting, fd: fd, first: -1}
	w.counts.visitors++
	if err := w.watch(c); err != nil {
		w.pump.opts.Logger.Error("halley: a socket cannot be polled", "error", err)
		w.leave(c)
		return
	}
	c.touched = w.wheel.at
	w.keepTime(c)
}

// RemoteAddr returns the address of a visitor's client, the zero AddrPort if it
// is not known.
func (c *Conn) RemoteAddr() netip.AddrPort { return remoteAddr(c.fd) }

// Worker tells which of the pump's workers serves the connection, from 0.
func (c *Conn) Worker() int { return c.worker.number }

// Workers returns how many workers there are.
func (p *Pump) Workers() int { return len(p.workers) }

// Respond sends bytes to a visitor. There is one call for what Input was
// called with.
func (c *Conn) Respond(b []byte) { c.worker.respond(c, b) }

// Become sets what a visitor is, from what it sends next on.
func (c *Conn) Become(kind *Kind) {
	c.touched = c.worker.wheel.at
	if c.kind != kind {
		c.kind = kind
		c.worker.keepTime(c) // its limit may be shorter
	}
}

// Join makes a visitor a subscriber. Head is written before anything else.
func (c *Conn) Join(o ConnOptions, head []byte) {
	w := c.worker
	w.wheel.remove(c)
	w.counts.visitors--
	c.kind, c.owner, c.state = o.Kind, o.Owner, behind
	c.rare = &rare{cursor: o.After, from: o.From, head: head}
	w.pump.conns.Add(1)
	o.Place.take(c, func() bool {
		w.hold(c, o.Place.Held())
		return true
	})
	w.join(c, o.Channels, o.Timeout)
}

// Release ends a visitor and returns its socket, which is the caller's then.
func (c *Conn) Release() (fd int) {
	w := c.worker
	fd = int(c.fd)
	w.unwatch(c)
	w.forget(c, clientLeft)
	return fd
}

// revisit makes a visitor of a poll's socket. The poll is forgotten later:
// something may still be on its way to it.
func (w *worker) revisit(c *Conn) *Conn {
	v := &Conn{
		worker: w, kind: c.kind.Next, state: visiting, fd: c.fd, generation: c.generation, first: -1,
		flags: c.flags & (watched | input | eof), touched: w.wheel.at,
	}
	w.sockets.conns[c.fd] = v
	w.counts.visitors++
	c.fd = -1
	w.keepTime(v)
	if v.is(input) {
		w.revisits = append(w.revisits, v)
	}
	return v
}

// runRevisits reads what clients sent while their polls were held, and what
// more there is of those that send much.
func (w *worker) runRevisits() bool {
	list := w.revisits
	w.revisits = nil
	for _, v := range list {
		w.readInput(v)
	}
	return len(list) > 0
}

// respond has bytes sent with the next batch.
func (w *worker) respond(c *Conn, b []byte) {
	s := &w.sockets
	c.on(answering)
	s.queue = append(s.queue, outgoing{conn: c, bytes: b})
	if len(s.queue) == sendBatch {
		w.sendQueued()
	}
}
