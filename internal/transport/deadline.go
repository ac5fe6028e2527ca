package transport

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// writePiece is how much of a response is written under one deadline: so that
// a client which reads slowly is told from one that does not read.
const writePiece = 32 << 10

// A deadline bounds the writes of one response. Once the pump is closed there
// is a moment left for all of them together.
type deadline struct {
	set     func(time.Time) error
	timeout time.Duration
	closed  context.Context
}

// extend gives the next piece its time. Where deadlines are not supported there
// is none.
func (d deadline) extend() {
	if d.closed.Err() == nil {
		_ = d.set(time.Now().Add(d.timeout))
	}
	if d.closed.Err() != nil { // also if it was closed meanwhile
		d.expire()
	}
}

// clear leaves all the time there is, until the next piece.
func (d deadline) clear() { _ = d.set(time.Time{}) }

// expire leaves what is being written a moment.
func (d deadline) expire() { _ = d.set(time.Now().Add(closeWait)) }

// A bodyWriter writes a response's body piece by piece, until the handler that
// made it calls end.
type bodyWriter struct {
	w        io.Writer
	flush    func() error
	deadline deadline
	left     int // bytes that may be written under the present deadline
	unwatch  func() bool

	mu   sync.Mutex
	over bool // guarded by mu: the response is not ours any more
}

func (s *Server) bodyWriter(w http.ResponseWriter) *bodyWriter {
	rc := http.NewResponseController(w)
	return s.newBodyWriter(w, rc.Flush, rc.SetWriteDeadline)
}

// connWriter writes to a connection that was hijacked.
func (s *Server) connWriter(c net.Conn) *bodyWriter {
	return s.newBodyWriter(c, func() error { return nil }, c.SetWriteDeadline)
}

func (s *Server) newBodyWriter(w io.Writer, flush func() error, set func(time.Time) error) *bodyWriter {
	b := &bodyWriter{w: w, flush: flush, deadline: deadline{set, s.WriteTimeout, s.Pump.Closed()}}
	b.unwatch = context.AfterFunc(b.deadline.closed, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.over {
			b.deadline.expire()
		}
	})
	return b
}

func (b *bodyWriter) end() {
	b.unwatch()
	b.mu.Lock()
	b.over = true
	b.mu.Unlock()
}

// extend begins a new piece.
func (b *bodyWriter) extend() {
	b.deadline.extend()
	b.left = writePiece
}

func (b *bodyWriter) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		if b.left == 0 {
			b.extend()
		}
		var m int
		m, err = b.w.Write(p[n:min(len(p), n+b.left)])
		n += m
		b.left -= m
	}
	return n, err
}

// WriteBody writes a whole body to a client that may be slow, or gone.
func (s *Server) WriteBody(w http.ResponseWriter, body []byte) error {
	b := s.bodyWriter(w)
	defer b.end()
	_, err := b.Write(body)
	return err
}

// watchConn returns a context that ends when the client of a hijacked
// connection has gone. What it sends is read and dropped. The caller closes
// the connection and then calls done.
func watchConn(c net.Conn) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		defer cancel()
		_, _ = io.Copy(io.Discard, c)
	}()
	return ctx, func() {
		_ = c.Close() // the goroutine is still reading
		<-over
	}
}

// can tells whether a response can do something, itself or, as
// http.ResponseController finds it, what it wraps.
func can[T any](w http.ResponseWriter) bool {
	for {
		if _, ok := w.(T); ok {
			return true
		}
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = u.Unwrap()
	}
}
