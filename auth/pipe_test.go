package auth_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
)

// A backend is an HTTP server that is reached without a network, so that it
// can be had in a bubble of synctest.
type backend struct {
	client *http.Client

	mu       sync.Mutex
	handler  http.HandlerFunc // nil: connections are refused
	requests int
}

func newBackend(t *testing.T) *backend {
	b := &backend{}
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: b, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // it ends with the test
	}()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		b.mu.Lock()
		down := b.handler == nil
		b.mu.Unlock()
		if down {
			return nil, net.ErrClosed
		}
		client, server := net.Pipe()
		select {
		case l.conns <- server:
			return client, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	b.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close() // as above
		<-done
	})
	return b
}

// answer has the backend answer so from now on; nil: it is down.
func (b *backend) answer(h http.HandlerFunc) {
	b.mu.Lock()
	b.handler = h
	b.mu.Unlock()
	b.client.CloseIdleConnections()
}

// asked returns how many requests there were since it was called last.
func (b *backend) asked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.requests
	b.requests = 0
	return n
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	h := b.handler
	b.requests++
	b.mu.Unlock()
	if h == nil {
		panic(http.ErrAbortHandler)
	}
	h(w, r)
}

// pipes is a net.Listener whose connections are net.Pipes.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
