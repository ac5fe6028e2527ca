package conformance

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A kind is a transport and a format.
type kind struct {
	name      string
	transport string
	format    string // "format=" is not sent if empty
	media     string
	polls     bool // each answer is complete
}

var (
	kindLongPolling  = kind{"long-polling", "long-polling", "", "application/json", true}
	kindJSONP        = kind{"jsonp", "jsonp", "", "text/javascript", true}
	kindIframe       = kind{"iframe", "iframe", "", "text/html", false}
	kindMultipart    = kind{"multipart", "multipart", "envelope", "multipart/x-mixed-replace", false}
	kindXHRStreaming = kind{"xhr-streaming", "xhr-streaming", "", "application/x-ndjson", false}
	kindSSE          = kind{"sse", "sse", "envelope", "text/event-stream", false}
	kindSSERaw       = kind{"sse-raw", "sse", "raw", "text/event-stream", false}
	kindWebSocket    = kind{"websocket", "websocket", "", "", false}

	// kinds are those that carry cursors: all but raw multipart.
	kinds = []kind{kindLongPolling, kindJSONP, kindIframe, kindMultipart, kindXHRStreaming, kindSSE, kindSSERaw, kindWebSocket}
	// streams are those that are held open.
	streams = []kind{kindIframe, kindMultipart, kindXHRStreaming, kindSSE, kindSSERaw, kindWebSocket}
)

// subscription is what is asked for.
type subscription struct {
	channels []string
	cursor   string   // left out if empty
	extra    []string // more parameters, in pairs
	header   []string // in pairs
	form     bool     // by POST
}

// on is the subscription of a channel from a cursor.
func on(channel, cursor string) subscription {
	return subscription{channels: []string{channel}, cursor: cursor}
}

func (q subscription) query(k kind) string {
	var pairs []string
	if k.transport != "" {
		pairs = append(pairs, "transport", k.transport)
	}
	for _, c := range q.channels {
		pairs = append(pairs, "channel", c)
	}
	if q.cursor != "" {
		pairs = append(pairs, "cursor", q.cursor)
	}
	if k.format != "" {
		pairs = append(pairs, "format", k.format)
	}
	if k.transport == "jsonp" || k.transport == "iframe" {
		pairs = append(pairs, "callback", callback)
	}
	return query(append(pairs, q.extra...)...)
}

// callback is the function that jsonp and iframe responses call.
const callback = "suite.call_1$"

// stream is a response that is held open and read in the background.
type stream struct {
	t      tb
	kind   kind
	status int
	header http.Header
	resp   *http.Response
	conn   net.Conn // of a WebSocket
	reader reader

	mu      sync.Mutex
	data    []byte // all that came
	arrived []time.Time
	err     error         // why it ended
	changed chan struct{} // closed when data or err change
	close   func()        // closes the connection, if it is not closed

	pos int // how much of data was read as frames
}

// open subscribes; the response must be a stream.
func (s *server) open(t tb, k kind, q subscription) *stream {
	t.Helper()
	st := s.connect(t, k, q)
	want := http.StatusOK
	if k.transport == "websocket" {
		want = http.StatusSwitchingProtocols
	}
	if st.status != want {
		t.Fatalf("%s: got %d %q, want %d", k.name, st.status, clip(st.whole()), want)
	}
	if k.transport != "websocket" {
		checkMedia(t, k.name, st.header, k.media)
		checkHeader(t, k.name, st.header)
	}
	r, err := newReader(k, st.header)
	if err != nil {
		t.Fatalf("%s: %v", k.name, err)
	}
	st.reader = r
	return st
}

// connect subscribes, whatever the answer.
func (s *server) connect(t tb, k kind, q subscription) *stream {
	t.Helper()
	if k.transport == "websocket" {
		return s.handshake(t, "/subscribe?"+q.query(k), q.header...)
	}
	method, path, body, header := "GET", "/subscribe?"+q.query(k), "", q.header
	if q.form {
		method, path, body = "POST", "/subscribe", q.query(k)
		header = append([]string{"Content-Type", "application/x-www-form-urlencoded"}, header...)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.request(ctx, method, path, body, header)
	if err != nil {
		t.Fatalf("%s: %v", k.name, err)
	}
	late := time.AfterFunc(patience, cancel)
	resp, err := s.client.Do(r)
	late.Stop()
	if err != nil {
		t.Fatalf("%s: %v", k.name, err)
	}
	st := &stream{t: t, kind: k, status: resp.StatusCode, header: resp.Header, resp: resp, changed: make(chan struct{})}
	st.run(resp.Body, func() { cancel(); resp.Body.Close() })
	return st
}

// handshake asks for a WebSocket.
func (s *server) handshake(t tb, path string, header ...string) *stream {
	t.Helper()
	conn := s.dial(t)
	var nonce [16]byte
	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	conn.SetDeadline(time.Now().Add(patience))
	err := s.writeRequest(conn, "GET "+s.base.EscapedPath()+path+" HTTP/1.1", append([]string{
		"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", key}, header...)...)
	if err != nil {
		t.Fatalf("websocket: %v", err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, &http.Request{Method: "GET"})
	if err != nil {
		t.Fatalf("websocket: %v", err)
	}
	conn.SetDeadline(time.Time{})
	st := &stream{t: t, kind: kindWebSocket, status: resp.StatusCode, header: resp.Header, resp: resp, conn: conn, changed: make(chan struct{})}
	body := io.Reader(resp.Body)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		body = br
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		if got, want := resp.Header.Get("Sec-WebSocket-Accept"), base64.StdEncoding.EncodeToString(sum[:]); got != want {
			t.Errorf("websocket: got Sec-WebSocket-Accept %q, want %q (RFC 6455, 4.2.2)", got, want)
		}
		if !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") || !hasToken(resp.Header, "Connection", "upgrade") {
			t.Errorf("websocket: got %v, want Upgrade: websocket and Connection: Upgrade", resp.Header)
		}
		st.reader = webSocketFrames{}
	}
	st.run(body, func() { conn.Close() })
	return st
}

// run reads body until it ends, or the case does.
func (st *stream) run(body io.Reader, stop func()) {
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := body.Read(buf)
			st.mu.Lock()
			if n > 0 {
				st.data = append(st.data, buf[:n]...)
				st.arrived = append(st.arrived, time.Now())
			}
			st.err = err
			close(st.changed)
			st.changed = make(chan struct{})
			st.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	st.close = sync.OnceFunc(func() {
		stop()
		reading.Wait()
	})
	st.t.Cleanup(st.close)
}

// more waits until more has come, at most so long.
func (st *stream) more(most time.Duration) {
	st.mu.Lock()
	changed := st.changed
	ready := len(st.data) > st.pos || st.err != nil
	st.mu.Unlock()
	if ready {
		return
	}
	select {
	case <-changed:
	case <-time.After(most):
	}
}

// wait waits until f is content with all that came.
func (st *stream) wait(what string, f func(data []byte, ended error) bool) {
	st.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		st.mu.Lock()
		data, err, changed := st.data, st.err, st.changed
		st.mu.Unlock()
		if f(data, err) {
			return
		}
		if err != nil {
			st.t.Fatalf("%s: waiting for %s, the stream ended (%v) after %q", st.kind.name, what, err, clip(data))
		}
		select {
		case <-changed:
		case <-timeout.C:
			st.t.Fatalf("%s: waited %v for %s, got %q", st.kind.name, patience, what, clip(data))
		}
	}
}

// whole waits for the end and returns all that came.
func (st *stream) whole() []byte {
	st.t.Helper()
	var all []byte
	st.wait("the end", func(data []byte, ended error) bool { all = data; return ended != nil })
	return all
}

// got returns all that came so far.
func (st *stream) got() []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.data
}

// next waits for the next frame and returns its event.
func (st *stream) next() event {
	st.t.Helper()
	var found *event
	st.wait("a frame", func(data []byte, ended error) bool {
		for {
			e, n, err := st.reader.next(data[st.pos:])
			if err != nil {
				st.t.Fatalf("%s: byte %d: %v", st.kind.name, st.pos, err)
			}
			st.pos += n
			if n == 0 || e != nil {
				found = e
				return e != nil
			}
		}
	})
	return *found
}

// nextMessage returns the next event that is no heartbeat.
func (st *stream) nextMessage() event {
	st.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if e := st.next(); e.control != "heartbeat" {
			return e
		}
		if time.Now().After(deadline) {
			st.t.Fatalf("%s: in %v there were only heartbeats", st.kind.name, patience)
		}
	}
}

// received is what a subscription brought.
type received struct {
	open     event // of streams
	gap      bool
	gapID    string // of streams
	messages []event
	cursor   string // where to go on
	begin    int    // of streams: where the first message's frame starts, in the body
}

// receive subscribes and reads until there were n messages or, with n = 0, to
// the end of what a poll answers or a stream opens with.
func (s *server) receive(t tb, k kind, n int, q subscription) received {
	t.Helper()
	if k.polls {
		return s.poll(t, k, n, q)
	}
	var r received
	st := s.open(t, k, q)
	defer st.close()
	if r.open = st.next(); r.open.control != "open" {
		t.Fatalf("%s: got %v, want open first", k.name, r.open)
	}
	r.cursor = r.open.id
	for deadline := time.Now().Add(patience); len(r.messages) < n; {
		begin := st.pos
		e := st.next()
		if time.Now().After(deadline) {
			t.Fatalf("%s: got %d messages in %v, want %d", k.name, len(r.messages), patience, n)
		}
		switch e.control {
		case "":
			if len(r.messages) == 0 {
				r.begin = begin
			}
			r.messages = append(r.messages, e)
		case "gap":
			if r.gap || len(r.messages) > 0 || r.cursor != r.open.id {
				t.Errorf("%s: a gap that does not follow open", k.name)
			}
			r.gap, r.gapID = true, e.id
		case "heartbeat":
		default:
			t.Fatalf("%s: got %v, want a message", k.name, e)
		}
		r.cursor = e.id
	}
	return r
}

// poll polls until there were n messages.
func (s *server) poll(t tb, k kind, n int, q subscription) received {
	t.Helper()
	var r received
	for deadline := time.Now().Add(patience); ; {
		timeout := "5"
		if n == 0 {
			timeout = "0"
		}
		now := q
		now.extra = append([]string{"timeout", timeout}, q.extra...)
		p := s.pollOnce(t, k, now)
		r.gap = r.gap || p.gap
		r.messages = append(r.messages, p.messages...)
		r.cursor = p.cursor
		if len(r.messages) >= n {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: waited %v for %d messages, got %d", k.name, patience, n, len(r.messages))
		}
		q.cursor, q.header = p.cursor, nil
	}
}

func (s *server) pollOnce(t tb, k kind, q subscription) page {
	t.Helper()
	r := s.subscribeOnce(t, k, q)
	if r.status != http.StatusOK {
		t.Fatalf("%s: got %s, want 200", k.name, r)
	}
	checkMedia(t, k.name, r.header, k.media)
	body := r.body
	if k.transport == "jsonp" {
		var err error
		if body, err = unwrap(body); err != nil {
			t.Fatalf("jsonp: %v", err)
		}
	}
	p, err := parsePage(body)
	if err != nil {
		t.Fatalf("%s: got %s: %v", k.name, r, err)
	}
	return p
}

// subscribeOnce subscribes and reads the whole answer.
func (s *server) subscribeOnce(t tb, k kind, q subscription) *response {
	t.Helper()
	if q.form {
		return s.do(t, "POST", "/subscribe", q.query(k), append([]string{"Content-Type", "application/x-www-form-urlencoded"}, q.header...)...)
	}
	return s.get(t, "/subscribe?"+q.query(k), q.header...)
}

// unwrap takes the callback off: "/**/callback(…);".
func unwrap(body []byte) ([]byte, error) {
	const head, tail = "/**/" + callback + "(", ");"
	b := string(body)
	if !strings.HasPrefix(b, head) || !strings.HasSuffix(b, tail) {
		return nil, fmt.Errorf("got %q, want %s…%s", clip(body), head, tail)
	}
	return body[len(head) : len(b)-len(tail)], nil
}

// write sends a WebSocket frame, masked as a client's must be (RFC 6455, 5.3).
func (st *stream) write(first byte, payload []byte) {
	st.t.Helper()
	if err := writeMasked(st.conn, first, payload); err != nil {
		st.t.Fatalf("websocket: write: %v", err)
	}
}

func writeMasked(w io.Writer, first byte, payload []byte) error {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i&3])
	}
	_, err := w.Write(b)
	return err
}

// say sends a text frame.
func (st *stream) say(text string) {
	st.t.Helper()
	st.write(0x80|opText, []byte(text))
}
