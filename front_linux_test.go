package halley_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// A holdingLog stops the worker that stores "hold", so that what clients do
// meanwhile is there at once when it goes on.
type holdingLog struct {
	engine.Engine
	held, release chan struct{}
}

func newHoldingLog(t testing.TB) *holdingLog {
	return &holdingLog{newLog(t), make(chan struct{}), make(chan struct{})}
}

func (l *holdingLog) AppendNow(b engine.Batch) (engine.Receipt, error) {
	if string(b.Messages[0].Data) == "hold" {
		l.held <- struct{}{}
		<-l.release
	}
	return l.Engine.(engine.Immediate).AppendNow(b)
}

// serveHeld serves with one worker, whose sockets have buffers of so many
// bytes if they are not 0.
func serveHeld(t testing.TB, o halley.Options, receive, send int) (*frontServer, *holdingLog) {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			for option, size := range map[int]int{syscall.SO_RCVBUF: receive, syscall.SO_SNDBUF: send} {
				if size > 0 {
					if err := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, option, size); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}}
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := newHoldingLog(t)
	o.Workers = 1
	return serveFrontOn(t, l, log, o, &http.Server{}, true), log
}

// while does what clients do while the worker is stopped.
func (l *holdingLog) while(s *frontServer, do func()) {
	s.Helper()
	c := s.dial().send(post("hold", "hold"))
	<-l.held
	do()
	l.release <- struct{}{}
	c.want(200, `{"id":`)
	_ = c.Close()
}

// subscribed waits until there are so many subscriptions.
func (s *frontServer) subscribed(n int) {
	s.Helper()
	for start := time.Now(); s.hub.Connections() != n; runtime.Gosched() {
		if time.Since(start) > patience {
			s.Fatalf("%d subscriptions, want %d", s.hub.Connections(), n)
		}
	}
}

// A client that sends no more gets its answers.
func TestFrontHalfClose(t *testing.T) {
	s, log := serveHeld(t, halley.Options{}, 0, 0)
	c := s.dial()
	log.while(s, func() { c.send(post("a", "1"), post("a", "2")).end() })
	c.want(200, `{"id":`)
	c.want(200, `{"id":`)
	c.wantEnd()
	c = s.dial()
	log.while(s, func() { c.send(post("a", "3"), get("/comet/info")).end() })
	c.want(200, `{"id":`)
	c.want(200, `"protocol":1`)
	c.wantEnd()
}

// Answers come in their order where requests fill the worker's buffer to the
// last byte, and others for the HTTP server follow. Other clients have their
// turn meanwhile.
func TestFrontFullBuffer(t *testing.T) {
	s, log := serveHeld(t, halley.Options{}, 1<<20, 1<<20)
	const size = 1024
	request := post("a", strings.Repeat("x", 100+size-len(post("a", strings.Repeat("x", 100)))))
	if len(request) != size {
		t.Fatalf("%d bytes", len(request))
	}
	const there = 2 * 64 << 10 // before the worker goes on
	const n = 10 * there / size
	c, other := s.dial(), s.dial()
	log.while(s, func() {
		go c.send(strings.Repeat(request, n), get("/"))
		for start := time.Now(); c.unread(s) < there; runtime.Gosched() {
			if time.Since(start) > patience {
				t.Errorf("the socket takes %d bytes", c.unread(s))
				break // and the worker must go on
			}
		}
		other.send(post("other", "1"))
	})
	other.want(200, `{"id":`)
	if at := slices.Index(stored(t, s.hub), "other 1"); at < 0 || at > there/size {
		t.Errorf("another client had to wait for %d messages", at)
	}
	last := ""
	for range n {
		body := c.want(200, `{"id":`)
		if len(body) < len(last) || len(body) == len(last) && body <= last {
			t.Fatalf("id %s after %s", body, last)
		}
		last = body
	}
	c.want(200, "hello")
}

// unread returns how many bytes of the client's there are in the server's
// socket (proc_pid_net(5)).
func (c *client) unread(s *frontServer) int {
	c.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		c.Fatal(err)
	}
	local, remote := hexAddr(c.RemoteAddr()), hexAddr(c.LocalAddr())
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 4 && f[1] == local && f[2] == remote {
			var sent, received int
			if _, err := fmt.Sscanf(f[4], "%x:%x", &sent, &received); err != nil {
				c.Fatal(err)
			}
			return received
		}
	}
	return 0
}

func hexAddr(a net.Addr) string {
	return fmt.Sprintf("0100007F:%04X", a.(*net.TCPAddr).Port)
}

// What is stored is not what is read next.
func TestFrontBodyKept(t *testing.T) {
	s, log := serveHeld(t, halley.Options{}, 1<<20, 0)
	c := s.dial()
	var want []string
	for _, data := range []string{strings.Repeat("a", 60000), strings.Repeat("b", 60000)} {
		log.while(s, func() { c.send(post("a", data)) })
		c.want(200, "id")
		want = append(want, "hold hold", "a "+data)
	}
	if got := stored(t, s.hub); !slices.Equal(got, want) {
		t.Errorf("stored: %.200q", got)
	}
}

// A poll that times out is answered before what its client sent meanwhile,
// whoever serves that.
func TestFrontPollThenRequest(t *testing.T) {
	s, log := serveHeld(t, halley.Options{}, 0, 0)
	for _, next := range []struct{ request, want string }{
		{get("/"), "hello"},
		{post("a", "1"), `{"id":`},
		{get("/comet/subscribe?channel=a&timeout=0"), `"messages":[]`},
	} {
		c := s.dial().send(get("/comet/subscribe?channel=a&timeout=0.25"))
		s.subscribed(1)
		log.while(s, func() {
			c.send(next.request).end()
			time.Sleep(260 * time.Millisecond) // the poll's time
		})
		c.want(200, `"messages":[]`)
		if !strings.Contains(next.request, "subscribe") { // who has gone gets no poll's answer
			c.want(200, next.want)
		}
		c.wantEnd()
	}
}

// A subscription that has lost its client before it begins is not held.
func TestFrontGoneAtOnce(t *testing.T) {
	for _, query := range []string{"", "&transport=sse", "&transport=multipart", "&transport=websocket"} {
		s, log := serveHeld(t, halley.Options{MaxConnections: 1}, 0, 0)
		c := s.dial()
		log.while(s, func() {
			upgrade := "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
			c.send(strings.TrimSuffix(get("/comet/subscribe?channel=a"+query), "\r\n"), upgrade)
			c.end()
		})
		s.dial().send(get("/comet/subscribe?channel=a&timeout=0")).want(200, `"messages":[]`)
		s.subscribed(0)
	}
}

// Answers that a socket does not take at once come all the same, and in their
// order, where the HTTP server has to go on.
func TestFrontSlowPipeline(t *testing.T) {
	s, log := serveHeld(t, halley.Options{}, 1<<20, 1)
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if err := syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1); err != nil {
				t.Error(err)
			}
		})
	}}
	conn, err := dialer.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := s.dial()
	c.TCPConn = conn.(*net.TCPConn)
	c.r.Reset(conn)
	_ = conn.SetDeadline(time.Now().Add(patience))
	const n = 400
	log.while(s, func() { c.send(strings.Repeat(post("a", "1"), n), get("/"), post("a", "2")) })
	for range n {
		c.want(200, `{"id":`)
	}
	c.want(200, "hello")
	c.want(200, `{"id":`)
}

// Who publishes and does not read the answers is cut.
func TestFrontDeafPublisher(t *testing.T) {
	s, _ := serveHeld(t, halley.Options{WriteTimeout: 50 * time.Millisecond}, 0, 0)
	c := s.dial()
	requests := strings.Repeat(post("a", "1"), 1000)
	for {
		if _, err := io.WriteString(c, requests); err != nil {
			if os.IsTimeout(err) {
				t.Error("the client is never cut")
			}
			return
		}
	}
}

// An empty line after a POST is none of the next request.
func TestFrontLineAfterPost(t *testing.T) {
	s := serveFront(t, newLog(t), halley.Options{}, &http.Server{}, true)
	c := s.dial()
	for _, next := range []string{get("/"), post("a", "1"), get("/comet/subscribe?channel=a&timeout=0")} {
		c.send(post("a", "1"), "\r\n").want(200, "id")
		c.send(next).want(200, "")
		c = s.dial().send(post("a", "1"))
		c.want(200, "id")
		c.send("\r\n", next).want(200, "")
	}
}

// What a name allows that came from outside, it does not on loopback.
func TestFrontHostOnLoopback(t *testing.T) {
	outside := ""
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			outside = n.IP.String()
		}
	}
	if outside == "" {
		t.Skip("this machine has no other address than loopback")
	}
	for _, address := range []string{"0.0.0.0:0", "[::]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Log(err) // without IPv6
			continue
		}
		s := serveFrontOn(t, l, newLog(t), halley.Options{Workers: 1}, &http.Server{}, true)
		_, port, _ := net.SplitHostPort(s.addr)
		for _, request := range []string{post("a", "1"), get("/comet/subscribe?channel=a&timeout=0")} {
			request = strings.Replace(request, "Host: localhost", "Host: rebound.example", 1)
			for range 2 {
				dialTo(t, net.JoinHostPort(outside, port)).send(request).want(200, "")
				dialTo(t, net.JoinHostPort("127.0.0.1", port)).send(request).want(403, "forbidden-host")
				dialTo(t, net.JoinHostPort(outside, port)).send(request).want(200, "")
			}
		}
	}
}

// An early answer to a body that is too large is not lost to a reset.
func TestFrontLargeBody(t *testing.T) {
	s := serveFront(t, newLog(t), halley.Options{MaxBody: 1000}, &http.Server{}, true)
	c := s.dial().send("POST /comet/publish?channel=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17000000\r\n\r\n", strings.Repeat("x", 150000))
	c.want(413, "too-large")
	c.wantEnd()
}

// A body that comes a byte at a time has an end, whether it is waited for here or
// by the HTTP server.
func TestSlowBody(t *testing.T) {
	const timeout = 300 * time.Millisecond
	for _, front := range []bool{true, false} {
		for _, head := range []string{
			"POST /comet/publish?channel=a HTTP/1.1\r\nContent-Length: 100",
			"POST /comet/publish?channel=a HTTP/1.1\r\nContent-Length: 100000",
			"POST /comet/publish?channel=a//b HTTP/1.1\r\nContent-Length: 1000", // refused before that
			"POST /comet/nothing HTTP/1.1\r\nContent-Length: 1000",
			"POST /comet/subscribe?transport=sse HTTP/1.1\r\nContent-Length: 1000",
		} {
			s := serveFront(t, newLog(t), halley.Options{WriteTimeout: timeout}, &http.Server{}, front)
			c := s.dial().send(head + "\r\nHost: localhost\r\n\r\n")
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = io.Copy(io.Discard, c.r) // a reset is an end too
			}()
			for n, over := 0, false; !over; n++ {
				select {
				case <-ended:
					over = true
				case <-time.After(timeout / 6):
					_, _ = io.WriteString(c, "x") // it may be over
				}
				if n == 90 {
					t.Fatalf("front %v: the body may go on for ever of %q", front, head)
				}
			}
		}
	}
}

// Time-outs are the server's.
func TestFrontTimeouts(t *testing.T) {
	const soon = 100 * time.Millisecond
	s := serveFront(t, newLog(t), halley.Options{}, &http.Server{ReadHeaderTimeout: soon, IdleTimeout: soon}, true)
	s.dial().wantEnd()
	c := s.dial().send("POST /comet/pub") // which the HTTP server has then
	if b, err := io.ReadAll(c.r); !strings.HasPrefix(string(b), "HTTP/1.1 400 ") || err != nil {
		t.Errorf("a part of a request: %q, %v", b, err)
	}
	c = s.dial().send(post("a", "1"))
	c.want(200, "id")
	c.wantEnd()
	c = s.dial().send(get("/comet/subscribe?channel=a&timeout=0"))
	c.want(200, "messages")
	c.wantEnd()
	// A poll is held for longer than they are.
	c = s.dial().send(get("/comet/subscribe?channel=a&timeout=0.2"))
	c.want(200, "messages")
	c.wantEnd()

	s = serveFront(t, newLog(t), halley.Options{}, &http.Server{ReadHeaderTimeout: -1, IdleTimeout: -1}, true)
	c = s.dial()
	time.Sleep(soon) // nothing happens
	c.send(post("a", "1")).want(200, "id")
	time.Sleep(soon) // nothing happens
	c.send(post("a", "1")).want(200, "id")
}

func TestFrontMaxConnections(t *testing.T) {
	s := serveFront(t, newLog(t), halley.Options{MaxConnections: 2}, &http.Server{}, true)
	held := s.dial().send(get("/comet/subscribe?channel=a"))
	s.subscribed(1)
	stream := s.dial().send(get("/comet/subscribe?channel=a&transport=sse"))
	if r, _ := stream.response(); r.StatusCode != 200 {
		t.Fatal(r.Status)
	}
	c := s.dial()
	for range 3 {
		c.send(get("/comet/subscribe?channel=a")).want(503, "too-many-connections")
	}
	publish(t, s.hub, "a", "1")
	held.want(200, `"data":"1"`)
	_ = stream.Close()
	s.subscribed(0)
	for range 3 {
		s.dial().send(get("/comet/subscribe?channel=a&timeout=0")).want(200, "messages")
	}
}

// Clients are admitted at the rate that is set in front of the server too.
func TestFrontAdmitRate(t *testing.T) {
	s := serveFront(t, newLog(t), halley.Options{AdmitRate: 1}, &http.Server{}, true)
	stream := s.dial().send(get("/comet/subscribe?channel=a&transport=sse"))
	if r, _ := stream.response(); r.StatusCode != 200 {
		t.Fatal(r.Status)
	}
	s.subscribed(1)
	refused := 0
	for range 20 { // a slow machine may take longer than a second for some
		c := s.dial().send(get("/comet/subscribe?channel=a&transport=xhr-streaming"))
		if r, body := c.response(); r.StatusCode == 503 && strings.Contains(body, `"code":"overloaded"`) {
			refused++
		}
		_ = c.Close()
		s.dial().send(get("/comet/subscribe?channel=a&timeout=0")).want(200, "messages")
	}
	if refused == 0 {
		t.Error("none of 20 clients was refused")
	}
}

// What the engine refuses to do at once is tried again, once, by the HTTP
// server.
func TestFrontAppendErrors(t *testing.T) {
	log := &refusingLog{Engine: newLog(t)}
	s := serveFront(t, log, halley.Options{}, &http.Server{}, true)
	c := s.dial().send(post("a", "1"))
	c.want(200, "id")
	if log.now.Load() != 1 || log.append.Load() != 1 {
		t.Errorf("%d and then %d attempts", log.now.Load(), log.append.Load())
	}
	log.down.Store(true)
	s.dial().send(post("a", "2")).want(503, "engine-unavailable")
	if got := stored(t, s.hub); len(got) != 1 {
		t.Errorf("stored: %q", got)
	}
	// One that always waits.
	s = serveFront(t, struct{ engine.Engine }{newLog(t)}, halley.Options{}, &http.Server{}, true)
	s.dial().send(post("a", "1"), post("a", "2"), get("/")).want(200, "id")
	if got := stored(t, s.hub); len(got) == 0 || len(got) > 2 || got[0] != "a 1" {
		t.Errorf("stored: %q", got)
	}
}

type refusingLog struct {
	engine.Engine
	now, append atomic.Int64
	down        atomic.Bool
}

func (l *refusingLog) AppendNow(engine.Batch) (engine.Receipt, error) {
	l.now.Add(1)
	return engine.Receipt{}, engine.ErrUnavailable
}

func (l *refusingLog) Append(ctx context.Context, b engine.Batch) (engine.Receipt, error) {
	if l.append.Add(1); l.down.Load() {
		return engine.Receipt{}, engine.ErrUnavailable
	}
	return l.Engine.Append(ctx, b)
}

// HTTP/2 begins as no request of HTTP/1 does.
func TestFrontHTTP2(t *testing.T) {
	server := &http.Server{Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	s := serveFront(t, newLog(t), halley.Options{}, server, true)
	tr := &http.Transport{Protocols: new(http.Protocols)}
	defer tr.CloseIdleConnections()
	tr.Protocols.SetUnencryptedHTTP2(true)
	r, err := (&http.Client{Transport: tr}).Get("http://" + s.addr + "/comet/info")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.ProtoMajor != 2 || r.StatusCode != 200 {
		t.Errorf("got %s %s", r.Proto, r.Status)
	}
}

// Once the hub is closed, the server serves the rest.
func TestFrontClosedHub(t *testing.T) {
	s := serveFront(t, newLog(t), halley.Options{}, &http.Server{}, true)
	idle := s.dial().send(post("a", "1"))
	idle.want(200, "id")
	_ = s.hub.Close() // it returns nil
	idle.wantEnd()
	c := s.dial().send(get("/"))
	c.want(200, "hello")
	c.send(get("/comet/info")).want(200, "protocol")
}

// A hub and a server end in either way, and leave nothing behind.
func TestFrontShutdown(t *testing.T) {
	for _, drain := range []bool{true, false} {
		s := serveFront(t, newLog(t), halley.Options{}, &http.Server{}, true)
		before := s.open()
		idle := s.dial().send(post("a", "1"))
		idle.want(200, "id")
		fresh := s.dial()
		poll := s.dial().send(get("/comet/subscribe?channel=a"))
		s.subscribed(1)
		var streams []*client
		for _, name := range []string{"sse", "iframe&callback=f", "multipart", "xhr-streaming", "websocket"} {
			c := s.dial().send(strings.TrimSuffix(get("/comet/subscribe?channel=a&transport="+name), "\r\n"),
				"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
			if name != "multipart" { // whose head comes with the first message
				c.response()
			}
			streams = append(streams, c)
		}
		s.subscribed(6)
		if drain {
			var ended sync.WaitGroup
			for _, c := range streams {
				ended.Go(func() {
					if _, err := io.Copy(io.Discard, c.r); err != nil {
						t.Error(err)
					}
					_ = c.Close() // that is all
				})
			}
			if err := s.hub.Drain(t.Context()); err != nil {
				t.Error(err)
			}
			ended.Wait()
			poll.want(200, `"messages":[]`)
			// The connections go on until the server has its end.
			poll.send(get("/comet/subscribe?channel=a")).want(503, "draining")
			idle.send(post("a", "2")).want(200, "id")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := s.server.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			// What is for the server has nobody to serve it.
			if _, err := idle.send(get("/")).r.ReadByte(); err == nil || os.IsTimeout(err) {
				t.Errorf("a connection for a server that is closed: %v", err)
			}
		}
		_ = s.hub.Close() // it returns nil
		_ = s.server.Close()
		for _, c := range append(streams, idle, fresh, poll) {
			_, err := io.Copy(io.Discard, c.r)
			if os.IsTimeout(err) {
				t.Errorf("drained %v: a connection stays open", drain)
			}
			_ = c.Close() // it may be
		}
		s.close()
		for start := time.Now(); ; runtime.Gosched() {
			after := s.open()
			if after.goroutines < before.goroutines && after.fds < before.fds {
				break
			}
			if time.Since(start) > patience {
				buf := make([]byte, 1<<20)
				t.Fatalf("drained %v: %+v, before there was any client %+v\n%s", drain, after, before, buf[:runtime.Stack(buf, true)])
			}
		}
	}
}

// resources are what the process has open.
type resources struct{ fds, goroutines int }

func (s *frontServer) open() resources {
	s.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		s.Fatal(err)
	}
	return resources{len(fds), runtime.NumGoroutine()}
}

// A countingLog counts what is stored by a worker.
type countingLog struct {
	engine.Engine
	now atomic.Int64
}

func (l *countingLog) AppendNow(b engine.Batch) (engine.Receipt, error) {
	l.now.Add(1)
	return l.Engine.(engine.Immediate).AppendNow(b)
}

// A body may come after its head, in as many pieces as the client likes: the
// worker waits for it. A client that goes before is told by the HTTP server.
func TestFrontBodyInPieces(t *testing.T) {
	log := &countingLog{Engine: newLog(t)}
	s := serveFront(t, log, halley.Options{Workers: 1}, &http.Server{}, true)
	request := post("a", "0123456789")
	head := len(request) - 10
	other, n := s.dial(), int64(0)
	// The worker has dealt with what was sent before once it answers another.
	read := func() {
		other.send(post("other", "x")).want(200, `{"id":`)
		n++
	}
	c := s.dial()
	for _, cuts := range [][]int{{head}, {head, head + 1, head + 9}, {head + 5}, {head, len(request)}} {
		at := 0
		for _, cut := range cuts {
			c.send(request[at:cut])
			read()
			at = cut
		}
		c.send(request[at:]+request).want(200, `{"id":`)
		c.want(200, `{"id":`)
		if n += 2; log.now.Load() != n {
			t.Errorf("cut at %d: the worker has stored %d messages, want %d", cuts, log.now.Load(), n)
		}
	}
	for _, m := range stored(t, s.hub) {
		if m != "a 0123456789" && m != "other x" {
			t.Errorf("stored %q", m)
		}
	}
	c.send(request[:head+3])
	read()
	c.end()
	c.want(400, `ended early`)
}
