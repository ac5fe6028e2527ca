// Package handback gives connections that were taken over from an http.Server
// (http.Hijacker) back to it, for their next requests.
//
// A hijacked connection cannot be un-hijacked. But a server can serve any
// number of listeners, so there is one more for it, which accepts what is
// given back.
package handback

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Listeners are those for all servers that connections come from. The zero
// value is ready for use.
type Listeners struct {
	mu      sync.Mutex
	servers map[*http.Server]*Queue // guarded by mu
	closed  bool                    // guarded by mu
	running sync.WaitGroup
}

// Give hands a connection without TLS back to its server, after the bytes that
// were read from it already. It returns false if the server takes no more
// connections: the caller has to close it.
func (l *Listeners) Give(srv *http.Server, conn net.Conn, read []byte) bool {
	if conn.SetDeadline(time.Time{}) != nil {
		return false
	}
	if len(read) > 0 {
		conn = NewConn(conn, read, nil)
	}
	return l.of(srv, conn.LocalAddr()).Put(conn)
}

// of returns the server's listener, which has the address of the connection
// that was given first.
func (l *Listeners) of(srv *http.Server, addr net.Addr) *Queue {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return closed
	}
	if n := l.servers[srv]; n != nil {
		return n
	}
	n := NewQueue(addr)
	if l.servers == nil {
		l.servers = map[*http.Server]*Queue{}
	}
	l.servers[srv] = n
	l.running.Go(func() {
		_ = srv.Serve(n) // it ends when the server or the listener is closed
		_ = n.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.servers, srv)
	})
	return n
}

// Close ends the listeners. Connections that were not accepted are closed.
func (l *Listeners) Close() error {
	l.mu.Lock()
	l.closed = true
	for _, n := range l.servers {
		_ = n.Close()
	}
	l.mu.Unlock()
	l.running.Wait()
	return nil
}

// closed takes nothing.
var closed = &Queue{closed: true}

// A Queue is a listener that accepts what Put gives it. What waits is bounded
// by what there is: connections that clients keep open.
type Queue struct {
	addr net.Addr
	some chan struct{} // a token while there may be something to accept

	mu     sync.Mutex
	conns  []net.Conn // guarded by mu
	closed bool       // guarded by mu
}

// NewQueue returns a listener that says it has an address.
func NewQueue(addr net.Addr) *Queue { return &Queue{addr: addr, some: make(chan struct{}, 1)} }

// Put gives a connection to whoever accepts. It returns false if nobody does
// any more.
func (n *Queue) Put(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.conns = append(n.conns, c)
	n.wake()
	return true
}

func (n *Queue) wake() {
	select {
	case n.some <- struct{}{}:
	default:
	}
}

// Accept returns the next connection that was given back.
func (n *Queue) Accept() (net.Conn, error) {
	for {
		n.mu.Lock()
		switch {
		case n.closed:
			n.mu.Unlock()
			n.wake()
			return nil, net.ErrClosed
		case len(n.conns) > 0:
			c := n.conns[0]
			n.conns[0] = nil
			if n.conns = n.conns[1:]; len(n.conns) == 0 {
				n.conns = nil
			}
			n.mu.Unlock()
			return c, nil
		}
		n.mu.Unlock()
		<-n.some
	}
}

// Close ends Accept, and closes what was not accepted.
func (n *Queue) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	for _, c := range n.conns {
		_ = c.Close() // nobody has it any more
	}
	n.conns = nil
	n.wake()
	return nil
}

// Addr implements net.Listener.
func (n *Queue) Addr() net.Addr { return n.addr }

// A Func takes a connection back, after the bytes that were read from it
// already. It returns false if it does not: the caller has to close it.
type Func func(conn net.Conn, read []byte) bool

// A Conn is a connection of which some bytes were read already.
type Conn struct {
	net.Conn
	read []byte
	back Func

	unsent  []byte
	timeout time.Duration
}

// NewConn returns a connection that begins with what was read. Back, if it is
// not nil, is for who takes the connection over from its server.
func NewConn(conn net.Conn, read []byte, back Func) *Conn {
	return &Conn{Conn: conn, read: read, back: back}
}

// SendFirst has bytes written before anything is read: the end of earlier
// answers. The client must not pause for longer than a time-out.
func (c *Conn) SendFirst(b []byte, timeout time.Duration) { c.unsent, c.timeout = b, timeout }

// Back returns what takes the connection back, or nil.
func (c *Conn) Back() Func { return c.back }

// Read returns what was read already, and then what comes.
func (c *Conn) Read(b []byte) (int, error) {
	if len(c.unsent) > 0 {
		if err := c.send(); err != nil {
			return 0, err
		}
	}
	if len(c.read) > 0 {
		n := copy(b, c.read)
		c.read = c.read[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// sendPiece is how much is written within one time-out.
const sendPiece = 32 << 10

func (c *Conn) send() error {
	for len(c.unsent) > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(c.timeout)) // if it fails, writing does too
		n, err := c.Write(c.unsent[:min(len(c.unsent), sendPiece)])
		if err != nil {
			return err
		}
		c.unsent = c.unsent[n:]
	}
	return c.SetWriteDeadline(time.Time{})
}

// CloseWrite tells the client that nothing more comes. The HTTP server does so
// before it closes a connection with something unread, which would otherwise be
// reset before the client has read the answer.
func (c *Conn) CloseWrite() error {
	if conn, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return conn.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Bare returns the connection itself, once all that was read already has been
// taken; until then c.
func (c *Conn) Bare() net.Conn {
	if len(c.read) > 0 {
		return c
	}
	return c.Conn
}
