package halley_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/conformance"
	"github.com/halley-comet/halley/engine/memory"
)

// newTLSServer starts a server with the hub in front of it, and returns its
// address and what its clients trust.
func newTLSServer(t *testing.T, o *halley.Options) (*halley.Hub, net.Addr, *tls.Config) {
	t.Helper()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := halley.New(log, o)
	if err != nil {
		t.Fatal(err)
	}
	// For its certificate alone.
	other := httptest.NewTLSServer(http.NotFoundHandler())
	other.Close()
	roots := x509.NewCertPool()
	roots.AddCert(other.Certificate())

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: hub, TLSConfig: &tls.Config{Certificates: other.TLS.Certificates}}
	served := make(chan error, 1)
	go func() { served <- s.ServeTLS(hub.Front(s, l), "", "") }()
	t.Cleanup(func() {
		hub.Close()
		s.Close()
		<-served
		log.Close()
	})
	return hub, l.Addr(), &tls.Config{RootCAs: roots}
}

func TestTLSConformance(t *testing.T) {
	_, addr, config := newTLSServer(t, &halley.Options{Heartbeat: 250 * time.Millisecond})
	conformance.TestWith(t, "https://"+addr.String()+"/comet", conformance.Options{Quick: true, TLS: config})
}

// A stream over TLS has no goroutine, nor has a held poll.
func TestTLSParks(t *testing.T) {
	hub, addr, config := newTLSServer(t, nil)
	before := runtime.NumGoroutine()
	const n = 50
	for i := range n {
		transport := []string{"sse", "xhr-streaming", "iframe&callback=f", "multipart&format=envelope", "long-polling"}[i%5]
		conn, err := tls.Dial("tcp", addr.String(), config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /comet/subscribe?channel=a&timeout=60&transport=%s HTTP/1.1\r\nHost: localhost\r\n\r\n", transport)
	}
	eventually(t, "all are there", func() bool { return hub.Connections() == n })
	eventually(t, "their goroutines are gone", func() bool { return runtime.NumGoroutine() < before+n/5 })
}

// A client that reads slowly gets everything over TLS too, from the log: what
// waits for it is a record.
func TestTLSSlowReader(t *testing.T) {
	hub, addr, config := newTLSServer(t, nil)
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	const count = 100
	for range count {
		if _, err := hub.Publish(t.Context(), halley.Message{Channel: "a", ContentType: "text/plain", Data: data}); err != nil {
			t.Fatal(err)
		}
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Control: smallBuffers}, Config: config}
	conn, err := dialer.DialContext(t.Context(), "tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /comet/subscribe?channel=a&cursor=earliest&transport=xhr-streaming HTTP/1.1\r\nHost: localhost\r\n\r\n")
	eventually(t, "it is there", func() bool { return hub.Connections() == 1 })
	resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for i := 0; i < count; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		switch {
		case strings.Contains(line, `"control"`) || line == "\n":
		case strings.Contains(line, fmt.Sprintf(`-%d"`, i+1)) && strings.Contains(line, string(data)):
			i++
		default:
			t.Fatalf("got %.100q in place of message %d", line, i+1)
		}
	}
	// It is told of the end, by TLS as well.
	hub.Close()
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") && err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}
