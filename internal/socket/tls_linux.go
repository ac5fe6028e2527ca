package socket

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"syscall"
)

// A TLS is the connection below a tls.Conn, and the tls.Conn itself once it is
// parked. Until then it is an ordinary connection; then its reads and writes do
// not wait, so that what they bring to the tls.Conn may be done in a worker.
type TLS struct {
	net.Conn
	tls  *tls.Conn // nil until it is parked
	fd   int
	rest []byte // of ciphertext, for which the socket had no room
}

// TLSListener returns a listener of connections that can be parked under TLS.
func TLSListener(l net.Listener) net.Listener { return tlsListener{l} }

type tlsListener struct{ net.Listener }

func (l tlsListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || rawConn(conn) == nil {
		return conn, err
	}
	return &TLS{Conn: conn, fd: -1}, nil
}

// A tlsAddr is how a request is known to have come over a TLS: net/http keeps
// the address of a request's connection, and shows nothing else of it.
type tlsAddr struct{ net.Addr }

// LocalAddr implements net.Conn.
func (c *TLS) LocalAddr() net.Addr { return tlsAddr{c.Conn.LocalAddr()} }

// CanParkTLS tells whether a request's connection can be parked under TLS.
func CanParkTLS(ctx context.Context) bool {
	_, ok := ctx.Value(http.LocalAddrContextKey).(tlsAddr)
	return ok
}

// TLSOf returns the connection below a tls.Conn, or nil if it is another.
func TLSOf(conn net.Conn) *TLS {
	if t, ok := conn.(*tls.Conn); ok {
		below, _ := t.NetConn().(*TLS)
		return below
	}
	return nil
}

// Descriptor returns the descriptor of a connection that is not parked.
func (c *TLS) Descriptor() (fd int, ok bool) { return Descriptor(c.Conn) }

// Park takes the socket out of the connection below a tls.Conn.
func (c *TLS) Park(above net.Conn) (fd int, ok bool) {
	if c.fd, ok = Detach(c.Conn); ok {
		c.tls = above.(*tls.Conn)
	}
	return c.fd, ok
}

// maxRecord is the plaintext of a record at most (RFC 8446, 5.1).
const maxRecord = 16 << 10

// Send encrypts and writes what the socket takes at once, and at most a record
// more, which waits. It returns how much of b that is, or -1 if the connection
// is broken.
func (c *TLS) Send(b []byte) int {
	n := 0
	for n < len(b) && len(c.rest) == 0 {
		m, err := c.tls.Write(b[n:min(len(b), n+maxRecord)])
		if err != nil {
			return -1
		}
		n += m
	}
	return n
}

// Flush writes what waits, and returns how much still does, or -1.
func (c *TLS) Flush() int {
	n := sendNow(c.fd, c.rest)
	if n < 0 {
		return -1
	}
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil
	}
	return len(c.rest)
}

// Waits tells whether there is something for Flush.
func (c *TLS) Waits() bool { return len(c.rest) > 0 }

// Receive reads what has come: 0 bytes while nothing has, -1 once nothing will.
func (c *TLS) Receive(b []byte) int {
	n, err := c.tls.Read(b)
	if n == 0 && err != nil && !errors.Is(err, errAgain) {
		return -1
	}
	return n
}

// Goodbye tells the other side that nothing more comes.
func (c *TLS) Goodbye() { _ = c.tls.CloseWrite() } // it is told or is gone

// Read implements net.Conn.
func (c *TLS) Read(b []byte) (int, error) {
	if c.tls == nil {
		return c.Conn.Read(b)
	}
	for {
		n, err := syscall.Read(c.fd, b)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return 0, errAgain
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, net.ErrClosed
		default:
			return n, nil
		}
	}
}

// Write implements net.Conn.
func (c *TLS) Write(b []byte) (int, error) {
	if c.tls == nil {
		return c.Conn.Write(b)
	}
	n := 0
	if len(c.rest) == 0 {
		if n = sendNow(c.fd, b); n < 0 {
			return 0, net.ErrClosed
		}
	}
	c.rest = append(c.rest, b[n:]...)
	return len(b), nil
}

func sendNow(fd int, b []byte) int {
	if len(b) == 0 {
		return 0
	}
	for {
		n, err := syscall.SendmsgN(fd, b, nil, nil, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
		switch err {
		case nil:
			return n
		case syscall.EAGAIN:
			return 0
		case syscall.EINTR:
		default:
			return -1
		}
	}
}

// errAgain is returned where nothing has come yet. A tls.Conn takes it for
// temporary.
var errAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "socket: nothing has come yet" }
func (again) Timeout() bool   { return false }
func (again) Temporary() bool { return true }
