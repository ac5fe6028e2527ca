package halley_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
)

func newServer(t *testing.T, e engine.Engine, o *halley.Options) (*halley.Hub, *httptest.Server) {
	t.Helper()
	if e == nil {
		log, err := memory.New(memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { log.Close() })
		e = log
	}
	hub, err := halley.New(e, o)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(hub)
	t.Cleanup(func() {
		hub.Close()
		s.Close()
	})
	return hub, s
}

// eventually waits until a condition holds, which nothing tells of.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

// A WebSocket client that asks and asks, and reads nothing, is cut, though the
// goroutine that reads from it waits for room to answer.
func TestWebSocketAsksWithoutReading(t *testing.T) {
	hub, s := newServer(t, nil, &halley.Options{WriteTimeout: 200 * time.Millisecond})
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, _, err := (ws.Dialer{}).Upgrade(conn, mustURL(t, s.URL+"/comet/subscribe")); err != nil {
		t.Fatal(err)
	}
	frame := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"unsubscribe":["a"],"ref":"` + strings.Repeat("r", 240) + `"}`))))
	for err == nil { // until the server does not take more
		if err = conn.SetWriteDeadline(time.Now().Add(5 * time.Second)); err == nil {
			_, err = conn.Write(frame)
		}
	}
	eventually(t, "the connection is let go", func() bool { return hub.Connections() == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := hub.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
}

// A client that reads steadily, however slowly, gets what it asked for.
func TestSlowReader(t *testing.T) {
	const timeout = 2 * time.Second // a machine that is busy may keep a reader waiting
	hub, s := newServer(t, nil, &halley.Options{WriteTimeout: timeout})
	if _, err := hub.Publish(t.Context(), halley.Message{Channel: "a", Data: make([]byte, 1<<20)}); err != nil {
		t.Fatal(err)
	}
	read := func(t *testing.T, path string) {
		dialer := net.Dialer{Control: smallBuffers}
		conn, err := dialer.DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /comet/%s HTTP/1.1\r\nHost: localhost\r\n\r\n", path)
		resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
		if err != nil {
			t.Fatal(err)
		}
		// A piece every so often takes longer than the time-out in all.
		ticker := time.NewTicker(timeout / 100)
		defer ticker.Stop()
		n, start := 0, time.Now()
		for buf := make([]byte, 8<<10); ; {
			m, err := io.ReadFull(resp.Body, buf)
			n += m
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && n > 1<<20 {
				break
			}
			if err != nil {
				t.Fatalf("after %d bytes and %v: %v", n, time.Since(start), err)
			}
			<-ticker.C
		}
		if n < 1<<20 {
			t.Errorf("%d bytes came", n)
		}
	}
	for _, path := range []string{"subscribe?channel=a&cursor=earliest", "history?channel=a"} {
		t.Run(path[:strings.Index(path, "?")], func(t *testing.T) {
			t.Parallel()
			read(t, path)
		})
	}
}

// A watchedWriter tells how much was written, and whether a write waits.
type watchedWriter struct {
	http.ResponseWriter
	bytes   *atomic.Int64
	writing *atomic.Bool
}

func (w watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w watchedWriter) Write(b []byte) (int, error) {
	w.writing.Store(true)
	defer w.writing.Store(false)
	n, err := w.ResponseWriter.Write(b)
	w.bytes.Add(int64(n))
	return n, err
}

// Close does not wait for a client that does not read.
func TestCloseCuts(t *testing.T) {
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	hub, err := halley.New(log, &halley.Options{WriteTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var bytes atomic.Int64
	var writing atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hub.ServeHTTP(watchedWriter{w, &bytes, &writing}, r)
	}))
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /comet/subscribe?channel=a&transport=sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
	eventually(t, "the stream is there", func() bool { return hub.Connections() == 1 })
	last := int64(-1)
	eventually(t, "the writer waits", func() bool {
		if _, err := hub.Publish(t.Context(), halley.Message{Channel: "a", Data: make([]byte, 1<<20)}); err != nil {
			t.Fatal(err)
		}
		stuck := writing.Load() && bytes.Load() == last && last > 1<<20
		last = bytes.Load()
		return stuck
	})
	closed := make(chan struct{})
	go func() {
		hub.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Fatal("Close waits for a client that does not read")
	}
}

// A coldEngine takes its time for what is not at hand.
type coldEngine struct {
	engine.Engine
	thaw chan struct{}
}

func (e coldEngine) Read(ctx context.Context, q engine.Query) (engine.Page, error) {
	if end := e.End(); q.After.Epoch != end.Epoch || q.After.Seq > end.Seq || q.After.Seq+engine.Recent < end.Seq {
		select {
		case <-e.thaw:
		case <-ctx.Done():
			return engine.Page{}, ctx.Err()
		}
	}
	return e.Engine.Read(ctx, q)
}

// Whoever asks for what is far away does not hold up who is live.
func TestColdReads(t *testing.T) {
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cold := coldEngine{log, make(chan struct{})}
	defer close(cold.thaw)
	hub, s := newServer(t, cold, &halley.Options{Workers: 1})
	live, err := hub.Subscribe(t.Context(), halley.SubscribeOptions{Channels: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, _, err := (ws.Dialer{}).Upgrade(conn, mustURL(t, s.URL+"/comet/subscribe?cursor=earliest")); err != nil {
		t.Fatal(err)
	}
	for i, cursor := range []string{"earliest", "other-1", log.End().Epoch + "-9223372036854775807"} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, _ := http.NewRequestWithContext(ctx, "GET", s.URL+"/comet/subscribe?channel=a&transport=sse&cursor="+cursor, nil)
		go func() {
			if resp, err := http.DefaultClient.Do(r); err == nil {
				<-ctx.Done()
				resp.Body.Close()
			}
		}()
		eventually(t, "the stream is there", func() bool { return hub.Connections() == i+3 })
		if _, err := hub.Publish(t.Context(), halley.Message{Channel: "a"}); err != nil {
			t.Fatal(err)
		}
		within, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		if _, err := live.Next(within); err != nil {
			t.Fatalf("live, while one waits for %s: %v", cursor, err)
		}
	}
}

// A key without a digest still tells other content.
func TestKeyWithoutDigest(t *testing.T) {
	hub, _ := newServer(t, nil, nil)
	batch := func(data string) halley.Batch {
		return halley.Batch{Key: "k", Messages: []halley.Message{{Channel: "a", Data: []byte(data)}}}
	}
	for _, data := range []string{"one", "one"} {
		if _, err := hub.PublishBatch(t.Context(), batch(data)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := hub.PublishBatch(t.Context(), batch("two")); !errors.Is(err, halley.ErrKeyReused) {
		t.Errorf("got %v, want ErrKeyReused", err)
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// smallBuffers keeps the kernel from taking much that a client does not read.
func smallBuffers(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) // the test is only less sharp without
	})
}
