package transport

import (
	"bytes"
	"context"
	"crypto/sha1" // #nosec G505 -- RFC 6455 says so, and it keeps nothing secret
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// webSocket frames envelopes as text frames (RFC 6455, 5.6).
type webSocket struct{}

func (webSocket) Slot() int { return websocketSlot }

func (webSocket) AppendMessage(dst []byte, m *engine.Message) []byte {
	return append(dst, textFrame(wire.AppendEnvelope(nil, m))...)
}

func (webSocket) AppendControl(dst []byte, c *wire.Control) []byte {
	return append(dst, textFrame(wire.AppendControl(nil, c))...)
}

func textFrame(payload []byte) []byte { return compile(ws.NewTextFrame(payload)) }

func compile(f ws.Frame) []byte {
	b, err := ws.CompileFrame(f)
	if err != nil {
		panic(err) // it writes to memory
	}
	return b
}

// paddedWebSocket puts white space after the first envelope; what pads nothing
// else would be a message to the client.
type paddedWebSocket struct {
	webSocket
	padding int
}

func (f paddedWebSocket) AppendControl(dst []byte, c *wire.Control) []byte {
	b := f.webSocket.AppendControl(nil, c)
	if c.Kind == wire.Open {
		b = textFrame([]byte(string(wire.AppendControl(nil, c)) + pad(string(b), f.padding, " ")))
	}
	return append(dst, b...)
}

// webSocketKind is what connections have in common that ask for so much
// padding.
func (s *Server) webSocketKind(padding int) *pump.Kind {
	if padding == 0 && s.webSockets != nil {
		return s.webSockets
	}
	k := &pump.Kind{Framing: webSocket{}, Class: Class(WebSocket), Parked: pump.Parked{
		Tail: func(c *pump.Conn, last pump.Flush) []byte {
			client, _ := c.Owner().(*webSocketClient)
			return client.closeFrame(last)
		},
		Input: func(c *pump.Conn, b []byte) (done bool) {
			client, _ := c.Owner().(*webSocketClient)
			if client == nil {
				client = &webSocketClient{server: s, conn: c}
				c.SetOwner(client)
			}
			client.lease = c.Lease()
			b = bytes.Clone(b)
			s.tasks.Go(func() {
				client.read(s.Pump.Closed(), b)
				c.Resume()
			})
			return false
		},
		Gone: func(*pump.Conn) { s.Gone() },
	}}
	if padding > 0 {
		k.Framing = paddedWebSocket{padding: padding}
	}
	return k
}

// closeWait is how long a client has to answer a close frame.
const closeWait = time.Second

func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, q *Request, o pump.ConnOptions) (parked bool) {
	c, head, input := s.upgrade(w, r)
	if c == nil {
		return false
	}
	o.Kind = s.webSocketKind(q.Padding)
	if s.mayPark(w, r) {
		if to, ok := detach(c); ok {
			to.Head, to.Input = head, input
			s.Pump.Park(o, to)
			return true
		}
	}
	defer c.Close()
	conn := s.Pump.Join(o)
	defer conn.Leave()
	body := s.connWriter(c)
	defer body.end()

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	client := &webSocketClient{server: s, conn: conn, lease: o.Place.Held()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		client.read(ctx, input)
		for !client.closed {
			n, err := c.Read(buf)
			if err != nil {
				cancel()
				return
			}
			// Once the client did what must end the connection, what it still
			// sends is read and dropped: a connection that is closed with
			// unread bytes is reset, and the close frame lost.
			client.read(ctx, buf[:n])
		}
	}()
	if _, err := body.Write(head); err == nil {
		writeWebSocket(ctx, body, client)
	}
	// The reader may be waiting for room to answer.
	conn.Leave()
	cancel()
	// The other side may still have to answer a close frame.
	_ = c.SetReadDeadline(time.Now().Add(closeWait)) // if it fails, reading does too
	<-done
	return false
}

// writeWebSocket writes flushes until one side ends the connection.
func writeWebSocket(ctx context.Context, body *bodyWriter, client *webSocketClient) {
	for {
		f, err := client.conn.Next(ctx)
		body.extend()
		if err != nil {
			if ctx.Err() == nil || client.closing.Load() != nil {
				_, _ = body.Write(client.closeFrame(f)) // it is over in any case
			}
			return
		}
		for _, it := range f.Items {
			if _, err := body.Write(it.Bytes); err != nil {
				return
			}
		}
		if f.Last {
			_, _ = body.Write(client.closeFrame(f)) // it is over in any case
			return
		}
	}
}

// upgrade checks the opening handshake and takes the connection over. It
// returns the answer, which is still to be written (RFC 6455, 4.2.2), and what
// the client has sent after its request; or nil once it has refused.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) (c net.Conn, head, input []byte) {
	p := checkUpgrade(r)
	if p == nil && !can[http.Hijacker](w) {
		p = wire.NewProblem(wire.UpgradeRequired, "something between the server and this handler does not let connections be upgraded")
	}
	if p != nil {
		if p.Code == wire.UpgradeRequired {
			w.Header().Set("Sec-WebSocket-Version", "13")
			if r.ProtoMajor == 1 { // HTTP/2 has no such headers (RFC 9113, 8.2.2)
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "websocket")
			}
		}
		s.refused(p)
		p.Write(w)
		return nil, nil, nil
	}
	c, input, _, err := hijack(w)
	if err != nil {
		return nil, nil, nil // the server has said so, or the client is gone
	}
	return c, appendAccept(upgradeHead(w.Header()), []byte(r.Header.Get("Sec-WebSocket-Key"))), input
}

// upgradeHead returns the head of a response that upgrades, for appendAccept to
// end.
func upgradeHead(h http.Header) []byte {
	return appendHeader(appendStatus(make([]byte, 0, 256), http.StatusSwitchingProtocols), http.Header{
		"Upgrade":                {"websocket"},
		"Connection":             {"Upgrade"},
		"Cache-Control":          {h.Get("Cache-Control")},
		"X-Content-Type-Options": {"nosniff"},
	})
}

// appendAccept answers a client's key (RFC 6455, 4.2.2).
func appendAccept(head, key []byte) []byte {
	accept := sha1.Sum(append(key[:len(key):len(key)], "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...)) // #nosec G401 -- as RFC 6455 has it
	head = append(head, "Sec-WebSocket-Accept: "...)
	head = base64.StdEncoding.AppendEncode(head, accept[:])
	return append(head, "\r\n\r\n"...)
}

// checkUpgrade finds what is wrong with an opening handshake (RFC 6455,
// 4.2.1), so that the answer is a problem as all others are.
func checkUpgrade(r *http.Request) *wire.Problem {
	switch {
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return wire.NewProblem(wire.UpgradeRequired, "websocket upgrades a connection of HTTP/1.1, not of "+r.Proto)
	case !isUpgrade(r.Header) || !hasToken(r.Header, "Connection", "Upgrade"):
		return wire.NewProblem(wire.UpgradeRequired, "the request has no Connection: Upgrade and Upgrade: websocket; a proxy may have removed them")
	case !strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		return wire.NewProblem(wire.UpgradeRequired, "Upgrade names other protocols too")
	case r.Method != http.MethodGet:
		return wire.NewProblem(wire.UpgradeRequired, "the upgrade must be a GET")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return wire.NewProblem(wire.UpgradeRequired, "Sec-WebSocket-Version must be 13")
	case len(r.Header.Get("Sec-WebSocket-Key")) != 24:
		return wire.NewProblem(wire.InvalidParameter, "Sec-WebSocket-Key must be 16 bytes in base64")
	}
	return nil
}

// refuseWebSocket tells a client when to come back. A status of the handshake
// would not reach a page.
func (s *Server) refuseWebSocket(w http.ResponseWriter, r *http.Request, p *wire.Problem) {
	c, b, _ := s.upgrade(w, r)
	if c == nil {
		return
	}
	ctx, done := watchConn(c)
	defer done()
	body := s.connWriter(c)
	defer body.end()
	b = webSocket{}.AppendControl(b, &wire.Control{Kind: wire.Reconnect, Delay: retryDelay(p)})
	b = append(b, compile(ws.NewCloseFrame(ws.NewCloseFrameBody(1013, "")))...) // Try Again Later, as registered with IANA
	if _, err := body.Write(b); err != nil {
		return
	}
	select { // until the client closes too
	case <-ctx.Done():
	case <-time.After(closeWait):
	}
}

// retryDelay returns when a client that was refused is to come back.
func retryDelay(p *wire.Problem) time.Duration {
	if p.RetryAfter > 0 {
		return p.RetryAfter
	}
	return 2 * time.Second
}

// A webSocketClient serves what a client sends. There is one only once it has
// sent something.
type webSocketClient struct {
	server *Server
	conn   *pump.Conn
	lease  *pump.Lease // nil if nothing holds the connection
	frames frameReader
	closed bool // the client has sent a close frame
	// closing is what the close frame will say, nil if that is not set.
	closing atomic.Pointer[closing]
}

type closing struct {
	code   ws.StatusCode
	reason string
}

var (
	errClosing = errors.New("transport: the client closes")
	errBinary  = errors.New("transport: binary message")
)

// read takes what a client has sent. Once it has done what must end the
// connection, that ends after what was answered before, and nothing more is
// read.
func (d *webSocketClient) read(ctx context.Context, b []byte) {
	if len(b) == 0 || d.closing.Load() != nil {
		return
	}
	d.frames.limit = d.server.FrameLimit
	err := d.frames.feed(b,
		func(message []byte) error { return d.serve(ctx, message) },
		func(op ws.OpCode, payload []byte) error { return d.control(ctx, op, payload) })
	if err != nil {
		d.fail(err)
		d.conn.Finish()
	}
}

// fail sets what the close frame says of an error.
func (d *webSocketClient) fail(err error) {
	var protocol ws.ProtocolError
	c := &closing{code: ws.StatusGoingAway}
	switch {
	case errors.Is(err, errClosing):
		return // it is set
	case errors.Is(err, errBinary):
		c = &closing{ws.StatusUnsupportedData, "only text frames are understood"}
	case errors.Is(err, wsutil.ErrFrameTooLarge):
		c = &closing{ws.StatusMessageTooBig, "at most " + strconv.Itoa(d.server.FrameLimit) + " bytes"}
	case errors.Is(err, wsutil.ErrInvalidUTF8):
		c = &closing{ws.StatusInvalidFramePayloadData, "not UTF-8"}
	case errors.As(err, &protocol):
		c = &closing{ws.StatusProtocolError, protocol.Error()}
	}
	d.closing.Store(c)
}

// control answers a control frame.
func (d *webSocketClient) control(ctx context.Context, op ws.OpCode, payload []byte) error {
	switch op {
	case ws.OpPing:
		return d.conn.SendBytes(ctx, compile(ws.NewPongFrame(payload)))
	case ws.OpClose:
		c := &closing{code: ws.StatusNormalClosure}
		if len(payload) >= 2 {
			var reason string
			c.code, reason = ws.ParseCloseFrameData(payload)
			if err := ws.CheckCloseFrameData(c.code, reason); err != nil {
				c.code = ws.StatusProtocolError
			}
		} else if len(payload) == 1 {
			c.code = ws.StatusProtocolError
		}
		d.closing.Store(c)
		d.closed = true
		return errClosing
	}
	return nil
}

// closeFrame returns what is sent last (RFC 6455, 5.5.1). d may be nil.
func (d *webSocketClient) closeFrame(last pump.Flush) []byte {
	c := &closing{code: ws.StatusGoingAway}
	if n := len(last.Items); n > 0 && last.Items[n-1].Control != nil && last.Items[n-1].Control.Kind == wire.Error {
		c.code = ws.StatusInternalServerError
	}
	if d != nil {
		if said := d.closing.Load(); said != nil {
			c = said
		}
	}
	return compile(ws.NewCloseFrame(ws.NewCloseFrameBody(c.code, c.reason)))
}
