package bayeux

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/halley-comet/halley"
)

// Where there is one connection for many replies, a connect is held by a
// goroutine of its own, whose response is a part of the stream.

// A part is such a response.
type part struct {
	header http.Header
	body   []byte
}

func newPart() *part { return &part{header: http.Header{}} }

func (p *part) Header() http.Header { return p.header }
func (p *part) WriteHeader(int)     {}

func (p *part) Write(b []byte) (int, error) {
	p.body = append(p.body, b...)
	return len(b), nil
}

// writeTimeout is how long a client may leave a stream unread.
const writeTimeout = 30 * time.Second

// serveEventSource serves Faye's transport eventsource: what is delivered to the
// session that the path names at its end. All else goes by other requests.
// Faye's own server gives no ids, but its client takes them: they are for
// EventSource, which comes back with the last by itself.
func (h *Handler) serveEventSource(w http.ResponseWriter, r *http.Request) {
	id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	x := &exchange{handler: h, r: r}
	s, client := x.session(&message{channel: "/meta/connect", clientID: id})
	if s == nil {
		http.Error(w, "the client ID is not known", http.StatusNotFound)
		return
	}
	flush := http.NewResponseController(w)
	_ = flush.SetReadDeadline(time.Time{}) // where it is supported
	write := func(text string) bool {
		_ = flush.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := io.WriteString(w, text); err != nil { // #nosec G705 -- text/event-stream with nosniff, and JSON in it
			return false
		}
		if flush.Flush() != nil {
			return false
		}
		_ = flush.SetWriteDeadline(time.Time{})
		return true
	}
	header := w.Header()
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no")
	// A browser that is told nothing comes back after three to five seconds.
	if !write("retry: 1000\r\n\r\n") {
		return
	}
	after, number := r.Header.Get("Last-Event-ID"), 0
	defer func() { s.endStream(number) }()
	for {
		c := &connect{
			m:      &message{channel: "/meta/connect", timeout: -1},
			stream: true, number: number, after: after, pause: h.options.Timeout,
		}
		p := newPart()
		err := s.hold(p, r, client, c, h.options.Timeout)
		number = c.number
		if problem, ok := errors.AsType[*halley.Problem](err); ok && problem.Temporary() {
			select {
			case <-time.After(max(problem.RetryAfter, time.Second)):
				continue
			case <-r.Context().Done():
			}
			return
		}
		s.mu.Lock()
		over := err != nil || s.ended || c.replaced != nil
		s.mu.Unlock()
		if over || r.Context().Err() != nil {
			return
		}
		// What is written may not arrive. A browser tells by the id where to go
		// on. One without data keeps proxies from closing the stream.
		text := "id: " + c.at + "\r\n"
		if string(p.body) != "[]" {
			text += "data: " + string(p.body) + "\r\n"
		}
		text += "\r\n"
		if !write(text) {
			c.gone()
			return
		}
	}
}

// endStream notes that a stream is over.
func (s *Session) endStream(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streaming == number {
		s.streaming = 0
	}
}

func isUpgrade(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), webSocket)
}

// A socket is a WebSocket, over which any number of sessions may go, each with
// a connect that is held.
type socket struct {
	handler *Handler
	conn    net.Conn
	r       *http.Request
	client  *halley.Client
	problem error
	address string // that limits are for

	mu   sync.Mutex
	last map[*Session]*connect // guarded by mu: that were answered here
}

// serveWebSocket serves the transport websocket: each message is what a request
// is to long-polling.
func (h *Handler) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	client, problem := h.hub.Identify(r, "")
	conn, rw, _, err := ws.HTTPUpgrader{Header: w.Header().Clone()}.Upgrade(r, w)
	if err != nil {
		return // it was answered
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := &socket{handler: h, conn: conn, r: r.WithContext(ctx), client: client, problem: problem, address: h.hub.LimitedAddress(r), last: map[*Session]*connect{}}
	if !h.addSocket(c) {
		c.end(ws.StatusCode(1013), "there are as many connections as there may be") // RFC 6455's registry: try again later
		_ = conn.Close()
		return
	}
	defer h.removeSocket(c)
	defer c.close()
	c.read(io.MultiReader(rw.Reader, conn))
}

// close ends what is held. A reply that no connect has followed here may have
// met the end of the connection.
func (c *socket) close() {
	_ = c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, last := range c.last {
		last.gone()
	}
}

// silence is how long a client may send nothing: its connects come more often.
func (c *socket) silence() time.Duration {
	o := &c.handler.options
	return max(o.Timeout, o.MultiSessionInterval) + o.Interval + o.MaxInterval + 30*time.Second
}

func (c *socket) read(from io.Reader) {
	control := wsutil.ControlFrameHandler(lockedWriter{c}, ws.StateServerSide)
	reader := wsutil.Reader{
		Source: from, State: ws.StateServerSide, CheckUTF8: true, MaxFrameSize: int64(c.handler.options.MaxBody),
		OnIntermediate: control,
	}
	for {
		_ = c.conn.SetReadDeadline(time.Now().Add(c.silence())) // a socket supports it
		header, err := reader.NextFrame()
		switch {
		case err == wsutil.ErrFrameTooLarge:
			c.end(ws.StatusMessageTooBig, "the message is too large")
			return
		case err != nil:
			return
		case header.OpCode.IsControl():
			if err := control(header, &reader); err != nil {
				return
			}
			continue
		case header.OpCode == ws.OpBinary:
			c.end(ws.StatusUnsupportedData, "messages are text")
			return
		}
		text, err := io.ReadAll(io.LimitReader(&reader, int64(c.handler.options.MaxBody)+1))
		if err != nil {
			if errors.Is(err, wsutil.ErrInvalidUTF8) {
				c.end(ws.StatusInvalidFramePayloadData, "the text is not UTF-8")
			}
			return
		}
		if len(text) > c.handler.options.MaxBody {
			c.end(ws.StatusMessageTooBig, "the message is too large")
			return
		}
		c.serve(text)
	}
}

// serve answers a message as a request is answered, maybe later.
func (c *socket) serve(text []byte) {
	h := c.handler
	messages, err := parse(text, h.options.MaxBatch)
	if err != nil {
		c.write(append((&reply{b: []byte(`[{"successful":false`)}).text("error", fault(400, "", err.Error())).end(), ']'))
		return
	}
	x := &exchange{handler: h, r: c.r, socket: true, browser: browser(c.r), client: c.client, problem: c.problem}
	x.run(messages)
	if x.connect == nil {
		c.write(x.body())
		return
	}
	// The other replies do not wait.
	if len(x.replies) > 0 {
		c.write(x.body())
		x.replies = nil
	}
	held := x.connect
	s := held.session
	held.written = make(chan struct{})
	p := newPart()
	c.mu.Lock()
	if last := c.last[s]; last != nil { // what was sent before has come, as this has
		s.mu.Lock()
		if s.mark != nil && s.mark.by == last {
			held.confirms = true
		}
		s.mu.Unlock()
		delete(c.last, s)
	}
	c.forget()
	c.mu.Unlock()
	// Connects take each other's places in the order in which they come.
	err = s.begin(c.r, held, x.timeout, replyType)
	h.running.Go(func() {
		defer close(held.written)
		if err == nil {
			err = s.serve(p, c.r, x.connectClient, held)
		}
		if err != nil {
			x.replies = [][]byte{h.connectReply(held, x.connectFailed(err), nil)}
			p.body = x.body()
		}
		c.mu.Lock()
		c.last[s] = held
		c.mu.Unlock()
		if !c.write(p.body) {
			held.gone()
		}
	})
}

// forget removes what is kept of sessions that have ended, where it is much. mu
// is held.
func (c *socket) forget() {
	if len(c.last) < 16 {
		return
	}
	for s := range c.last {
		s.mu.Lock()
		ended := s.ended
		s.mu.Unlock()
		if ended {
			delete(c.last, s)
		}
	}
}

// body returns the replies as one array.
func (x *exchange) body() []byte {
	b := []byte{'['}
	for i, r := range x.replies {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, r...)
	}
	return append(b, ']')
}

// write sends a message, and reports false if that failed.
func (c *socket) write(text []byte) bool {
	if len(text) == 0 {
		return true
	}
	_, err := lockedWriter{c}.Write(ws.MustCompileFrame(ws.NewTextFrame(text)))
	return err == nil
}

// end closes with a reason.
func (c *socket) end(code ws.StatusCode, reason string) {
	_, _ = lockedWriter{c}.Write(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(code, reason)))) // it is told or is gone
}

// lockedWriter writes frames one after the other.
type lockedWriter struct{ c *socket }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	_ = w.c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // a socket supports it
	n, err := w.c.conn.Write(b)
	if err != nil {
		_ = w.c.conn.Close() // a part of a frame may have gone out
	}
	return n, err
}
