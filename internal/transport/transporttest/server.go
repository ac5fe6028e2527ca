package transporttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Protocol is a version of HTTP, with or without TLS.
type Protocol string

// The protocols that Serve speaks.
const (
	HTTP1    Protocol = "http1"
	HTTP1TLS Protocol = "http1-tls"
	H2C      Protocol = "h2c"
	HTTP2    Protocol = "http2"
)

func (p Protocol) tls() bool { return p == HTTP1TLS || p == HTTP2 }
func (p Protocol) two() bool { return p == H2C || p == HTTP2 }

// A Server serves HTTP over connections in memory, which hold nothing: a byte
// is written when it is read. So it can run in a synctest bubble, and a client
// that does not read is felt at once.
type Server struct {
	// URL has a loopback name for its host.
	URL string
	// Client keeps no cookies and follows no redirects. It speaks the
	// server's protocol only.
	Client *http.Client

	pipes *pipes
}

// Serve serves with s until the test ends.
func Serve(t testing.TB, s *http.Server, p Protocol) *Server {
	t.Helper()
	srv := &Server{URL: "http://localhost", pipes: newPipes()}
	var protocols http.Protocols
	switch p {
	case H2C:
		protocols.SetUnencryptedHTTP2(true)
	case HTTP2:
		protocols.SetHTTP2(true)
	default:
		protocols.SetHTTP1(true)
	}
	s.Protocols = &protocols
	if s.ErrorLog == nil {
		s.ErrorLog = log.New(io.Discard, "", 0) // of connections that tests cut
	}
	tr := &http.Transport{
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return srv.Dial() },
		Protocols:       &protocols,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	srv.Client = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	if p.tls() {
		srv.URL = "https://localhost"
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate()}}
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer srv.pipes.Close()
		if p.tls() {
			_ = s.ServeTLS(srv.pipes, "", "") // it ends with the test
			return
		}
		_ = s.Serve(srv.pipes)
	}()
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		_ = s.Close()
		<-served
	})
	return srv
}

// Dial connects to the server, without TLS.
func (s *Server) Dial() (net.Conn, error) { return s.pipes.dial(-1) }

// certificate makes a certificate that is valid at the time that bubbles begin
// with, too.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// pipes is a net.Listener whose connections are net.Pipes.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	open []net.Conn // guarded by mu: the server's ends, since the last cut
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// dial connects. A budget of 0 or more cuts the connection after the server
// has written so many bytes.
func (l *pipes) dial(budget int) (net.Conn, error) {
	client, server := net.Pipe()
	if budget >= 0 {
		server = &cutConn{Conn: server, budget: budget}
	}
	select {
	case l.conns <- server:
		l.mu.Lock()
		l.open = append(l.open, server)
		l.mu.Unlock()
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// cut breaks all connections.
func (l *pipes) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		_ = c.Close() // that is the cut
	}
	l.open = nil
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

func (l *pipes) Addr() net.Addr { return pipesAddr{} }

type pipesAddr struct{}

func (pipesAddr) Network() string { return "memory" }
func (pipesAddr) String() string  { return "memory" }

// A cutConn breaks after so many bytes have been written.
type cutConn struct {
	net.Conn
	mu     sync.Mutex
	budget int
}

var errCut = errors.New("transporttest: the connection was cut")

func (c *cutConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p) <= c.budget {
		n, err := c.Conn.Write(p)
		c.budget -= n
		return n, err
	}
	n, err := c.Conn.Write(p[:c.budget])
	c.budget = 0
	_ = c.Conn.Close() // that is the cut
	if err == nil {
		err = errCut
	}
	return n, err
}
