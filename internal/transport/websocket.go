package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
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

func textFrame(payload []byte) []byte {
	b, err := ws.CompileFrame(ws.NewTextFrame(payload))
	if err != nil {
		panic(err) // it writes to memory
	}
	return b
}

// A webSocketConn is an upgraded connection. Data frames are written by one
// goroutine, control frames by the reading one as well.
type webSocketConn struct {
	net.Conn
	deadline deadline
	mu       sync.Mutex // held while frames are written
	closed   bool       // guarded by mu: a close frame was sent
	// What the close frame will say, whoever sends it; 0 if that is not set.
	code   ws.StatusCode // guarded by mu
	reason string        // guarded by mu
}

func (c *webSocketConn) write(frames ...[]byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writeLocked(frames...)
}

func (c *webSocketConn) writeLocked(frames ...[]byte) error {
	if c.closed {
		return net.ErrClosed
	}
	var piece net.Buffers
	size := 0
	for i, f := range frames {
		for len(f) > 0 {
			n := min(len(f), writePiece-size)
			piece, f, size = append(piece, f[:n]), f[n:], size+n
			if size < writePiece && (len(f) > 0 || i < len(frames)-1) {
				continue
			}
			c.deadline.extend()
			if _, err := piece.WriteTo(c.Conn); err != nil {
				return err
			}
			piece, size = piece[:0], 0
		}
	}
	return nil
}

// close sends a close frame, once, after which nothing is sent (RFC 6455,
// 5.5.1).
func (c *webSocketConn) close(code ws.StatusCode, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.code != 0 {
		code, reason = c.code, c.reason
	}
	b, err := ws.CompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(code, reason)))
	if err != nil {
		panic(err) // it writes to memory
	}
	_ = c.writeLocked(b) // the connection ends in any case
	c.closed = true
}

// closeWith sets what the close frame will say.
func (c *webSocketConn) closeWith(code ws.StatusCode, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.code, c.reason = code, reason
}

// closeWait is how long a client has to answer a close frame.
const closeWait = time.Second

func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, q *Request, o pump.ConnOptions) {
	c, br := s.upgrade(w, r)
	if c == nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(s.Pump.Closed(), c.deadline.expire)()
	o.Framing = webSocket{}
	conn := s.Pump.Join(o)
	defer conn.Leave()

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	reader := &webSocketReader{server: s, conn: conn, ws: c, channels: map[string]bool{}}
	for _, name := range q.Channels {
		reader.channels[name] = true
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		if reader.run(ctx, br) {
			// What was answered before is written before the close frame. What
			// the client still sends is read for as long as it has to answer: a
			// connection that is closed with unread bytes is reset, and the
			// close frame lost.
			conn.Finish()
			_, _ = io.Copy(io.Discard, br)
		}
	}()
	s.writeWebSocket(ctx, c, conn, q.Padding)
	// The reader may be waiting for room to answer.
	conn.Leave()
	cancel()
	// The other side may still have to answer a close frame.
	_ = c.SetReadDeadline(time.Now().Add(closeWait)) // if it fails, reading does too
	<-done
}

// writeWebSocket writes flushes until one side ends the connection.
func (s *Server) writeWebSocket(ctx context.Context, c *webSocketConn, conn *pump.Conn, padding int) {
	var buf [][]byte
	for {
		f, err := conn.Next(ctx)
		if err != nil {
			c.close(ws.StatusGoingAway, "")
			return
		}
		buf = buf[:0]
		for _, it := range f.Items {
			b := it.Bytes
			if padding > 0 {
				// White space after the first envelope; what pads nothing else
				// would be a message to the client.
				b = textFrame([]byte(string(wire.AppendControl(nil, it.Control)) + pad(string(b), padding, " ")))
				padding = 0
			}
			buf = append(buf, b)
		}
		if c.write(buf...) != nil {
			return
		}
		if f.Last {
			c.close(closeCode(f), "")
			return
		}
	}
}

// closeCode says in the close frame what the last control said before it.
func closeCode(f pump.Flush) ws.StatusCode {
	if n := len(f.Items); n > 0 && f.Items[n-1].Control != nil && f.Items[n-1].Control.Kind == wire.Error {
		return ws.StatusInternalServerError
	}
	return ws.StatusGoingAway
}

// upgrade answers the opening handshake. It returns nil once it has refused.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request) (*webSocketConn, *bufio.Reader) {
	if p := checkUpgrade(w, r); p != nil {
		if p.Code == wire.UpgradeRequired {
			w.Header().Set("Sec-WebSocket-Version", "13")
			if r.ProtoMajor == 1 { // HTTP/2 has no such headers (RFC 9113, 8.2.2)
				w.Header().Set("Connection", "Upgrade")
				w.Header().Set("Upgrade", "websocket")
			}
		}
		p.Write(w)
		return nil, nil
	}
	// The answer is written after hijacking: the time-out for it is this
	// handler's affair.
	u := ws.HTTPUpgrader{Timeout: s.WriteTimeout, Header: http.Header{
		"Cache-Control":          {w.Header().Get("Cache-Control")},
		"X-Content-Type-Options": {"nosniff"},
	}}
	conn, rw, _, err := u.Upgrade(r, w)
	if err != nil {
		if conn != nil {
			_ = conn.Close() // it has failed already
		}
		return nil, nil
	}
	_ = conn.SetDeadline(time.Time{}) // those of the embedder's server
	d := deadline{conn.SetWriteDeadline, s.WriteTimeout, s.Pump.Closed()}
	return &webSocketConn{Conn: conn, deadline: d}, rw.Reader
}

// checkUpgrade finds what is wrong with an opening handshake (RFC 6455,
// 4.2.1), so that the answer is a problem as all others are.
func checkUpgrade(w http.ResponseWriter, r *http.Request) *wire.Problem {
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
	case !can[http.Hijacker](w):
		return wire.NewProblem(wire.UpgradeRequired, "something between the server and this handler does not let connections be upgraded")
	}
	return nil
}

// refuseWebSocket tells a client when to come back. A status of the handshake
// would not reach a page.
func (s *Server) refuseWebSocket(w http.ResponseWriter, r *http.Request, p *wire.Problem) {
	c, br := s.upgrade(w, r)
	if c == nil {
		return
	}
	defer c.Close()
	ctrl := &wire.Control{Kind: wire.Reconnect, Delay: retryDelay(p)}
	if c.write(webSocket{}.AppendControl(nil, ctrl)) != nil {
		return
	}
	c.close(1013, "") // Try Again Later, as registered with IANA
	_ = c.SetReadDeadline(time.Now().Add(closeWait))
	_, _ = io.Copy(io.Discard, io.LimitReader(br, 4096)) // until the client closes too
}

// retryDelay returns when a client that was refused is to come back.
func retryDelay(p *wire.Problem) time.Duration {
	if p.RetryAfter > 0 {
		return p.RetryAfter
	}
	return 2 * time.Second
}

// A webSocketReader serves what a client sends.
type webSocketReader struct {
	server   *Server
	conn     *pump.Conn
	ws       *webSocketConn
	channels map[string]bool // that the connection has, as the pump knows them too
}

var (
	errClosing = errors.New("transport: the client closes")
	errBinary  = errors.New("transport: binary message")
)

// run reads until the connection ends, or until the client does what must end
// it. It tells whether there is something to be said of that.
func (d *webSocketReader) run(ctx context.Context, br *bufio.Reader) bool {
	limit := int64(d.server.FrameLimit)
	rd := wsutil.Reader{
		Source:         br,
		State:          ws.StateServerSide,
		CheckUTF8:      true,
		MaxFrameSize:   limit,
		OnIntermediate: d.control,
	}
	for {
		h, err := rd.NextFrame()
		if err == nil && h.OpCode.IsControl() {
			if err = d.control(h, &rd); err == nil {
				err = rd.Discard() // it ends the frame for rd too
			}
			if err == nil {
				continue
			}
		}
		if err == nil && h.OpCode == ws.OpBinary {
			err = errBinary
		}
		var b []byte
		if err == nil {
			b, err = io.ReadAll(io.LimitReader(&rd, limit+1))
		}
		if err == nil && int64(len(b)) > limit {
			err = wsutil.ErrFrameTooLarge
		}
		if err == nil {
			err = d.serve(ctx, b)
		}
		if err != nil {
			return d.fail(err)
		}
	}
}

// fail sets what the close frame says of an error, and tells whether it is one
// of the client's.
func (d *webSocketReader) fail(err error) bool {
	var protocol ws.ProtocolError
	switch {
	case errors.Is(err, errBinary):
		d.ws.closeWith(ws.StatusUnsupportedData, "only text frames are understood")
	case errors.Is(err, wsutil.ErrFrameTooLarge):
		d.ws.closeWith(ws.StatusMessageTooBig, "at most "+strconv.Itoa(d.server.FrameLimit)+" bytes")
	case errors.Is(err, wsutil.ErrInvalidUTF8):
		d.ws.closeWith(ws.StatusInvalidFramePayloadData, "not UTF-8")
	case errors.As(err, &protocol):
		d.ws.closeWith(ws.StatusProtocolError, protocol.Error())
	default:
		return false // it has closed, or has gone
	}
	return true
}

// control answers a control frame.
func (d *webSocketReader) control(h ws.Header, r io.Reader) error {
	payload := make([]byte, h.Length) // at most 125, as the header was checked
	if _, err := io.ReadFull(r, payload); err != nil {
		return err
	}
	switch h.OpCode {
	case ws.OpPing:
		b, err := ws.CompileFrame(ws.NewPongFrame(payload))
		if err != nil {
			return err
		}
		return d.ws.write(b)
	case ws.OpClose:
		code := ws.StatusNormalClosure
		if len(payload) >= 2 {
			var reason string
			code, reason = ws.ParseCloseFrameData(payload)
			if err := ws.CheckCloseFrameData(code, reason); err != nil {
				code = ws.StatusProtocolError
			}
		} else if len(payload) == 1 {
			code = ws.StatusProtocolError
		}
		d.ws.close(code, "")
		return errClosing
	}
	return nil
}
