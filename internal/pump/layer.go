package pump

// A Layer stands between what a parked connection is sent and its socket, as
// TLS does. Its methods do not wait. They belong to the connection's worker.
type Layer interface {
	// Send writes as much of b as the socket takes at once, and little more,
	// which waits. It returns how much of b that is, or -1 if the connection is
	// broken.
	Send(b []byte) int
	// Flush writes what waits. It returns how much still does, or -1.
	Flush() int
	// Waits tells whether there is something for Flush.
	Waits() bool
	// Receive reads what has come: 0 bytes while nothing has, -1 once nothing
	// will.
	Receive(b []byte) int
	// Goodbye tells the other side that nothing more comes.
	Goodbye()
}

// layer returns a connection's layer; most have none. Those that have are found
// by a map, which is small next to what a layer needs.
func (w *worker) layer(c *Conn) Layer {
	if !c.is(layered) {
		return nil
	}
	return w.sockets.layers[c]
}

func (w *worker) setLayer(c *Conn, l Layer) {
	if l == nil {
		return
	}
	if w.sockets.layers == nil {
		w.sockets.layers = map[*Conn]Layer{}
	}
	w.sockets.layers[c] = l
	c.on(layered)
}

// sendOn writes to a connection's socket, as sender.send does.
func (w *worker) sendOn(c *Conn, b []byte) int {
	if l := w.layer(c); l != nil {
		return l.Send(b)
	}
	return w.sockets.sender.send(c.fd, b)
}

// receiveOn reads from a connection's socket, as receive does.
func (w *worker) receiveOn(c *Conn, buf []byte) ([]byte, error) {
	l := w.layer(c)
	if l == nil {
		return receive(c.fd, buf)
	}
	n := l.Receive(buf)
	w.waitForLayer(c) // it may have had to answer
	switch {
	case n < 0:
		return nil, nil
	case n == 0:
		return nil, errAgain
	}
	return buf[:n], nil
}

// waitForLayer blocks a connection whose layer has something that waits.
func (w *worker) waitForLayer(c *Conn) {
	if l := w.layer(c); l != nil && l.Waits() && !c.is(blocked) {
		w.block(c)
	}
}

// flushLayer tells whether a connection's socket has room now.
func (w *worker) flushLayer(c *Conn) bool {
	l := w.layer(c)
	if l == nil {
		return true
	}
	n := l.Flush()
	if n < 0 {
		w.leave(c)
	}
	return n == 0
}
