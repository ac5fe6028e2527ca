package transport

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/handback"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/socket"
	"github.com/halley-comet/halley/internal/wire"
)

// A response over HTTP/1.1 is parked where that is possible: its connection is
// taken over from the HTTP server (http.Hijacker), its socket is given to the
// pump, and the handler returns. What is left is a socket and a few bytes: no
// goroutine, no buffers, none of the HTTP server's own.
//
// Under TLS that is so where the hub is in front of the server, which has to
// know the connection below. What TLS keeps for a connection stays.
//
// Everything else is served by a goroutine for each response, and looks the
// same to clients: HTTP/2, other systems, servers whose connections are not
// bare sockets, and handlers around the hub that hide the Hijacker.

// mayPark tells whether to take the connection of a request over. A handler
// around the hub that wants to see or change what is written does not pass on
// http.Hijacker; that it can be unwrapped says nothing.
func (s *Server) mayPark(w http.ResponseWriter, r *http.Request) bool {
	_, ok := w.(http.Hijacker)
	return ok && s.Pump.CanPark() && (r.TLS == nil || socket.CanParkTLS(r.Context())) && r.ProtoMajor == 1 && r.ProtoMinor >= 1 &&
		w.Header().Get("Content-Encoding") == ""
}

// hijack takes a connection over from the HTTP server, with what the client
// has sent beyond its request, and what takes it back, if there is anything.
func hijack(w http.ResponseWriter) (conn net.Conn, input []byte, back handback.Func, err error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, nil, err
	}
	_ = conn.SetDeadline(time.Time{}) // those of the embedder's server
	if n := rw.Reader.Buffered(); n > 0 {
		input = make([]byte, n)
		_, _ = io.ReadFull(rw.Reader, input) // from memory
	}
	if given, ok := conn.(*handback.Conn); ok {
		conn, back = given.Bare(), given.Back()
	}
	return conn, input, back, nil
}

// detach takes a connection's socket, and what is between.
func detach(conn net.Conn) (s pump.Socket, ok bool) {
	if below := socket.TLSOf(conn); below != nil {
		s.Layer = below
		s.FD, ok = below.Park(conn)
	} else {
		s.FD, ok = socket.Detach(conn)
	}
	return s, ok
}

// appendStatus begins a response (RFC 9112, 4).
func appendStatus(b []byte, status int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(status)...)
	return append(b, "\r\n"...)
}

// appendHeader appends a header's lines.
func appendHeader(b []byte, h http.Header) []byte {
	w := headerWriter{b}
	_ = h.Write(&w) // to memory
	return w.b
}

type headerWriter struct{ b []byte }

func (w *headerWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

func (w *headerWriter) WriteString(s string) (int, error) {
	w.b = append(w.b, s...)
	return len(s), nil
}

// AppendResponse appends a whole response of status 200. Header is what
// HeaderLines returns.
func AppendResponse(b []byte, header string, body []byte) []byte {
	b = append(b, "HTTP/1.1 200 OK\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n"...)
	b = appendDate(append(b, header...))
	return append(b, body...)
}

// HeaderLines returns a header's lines.
func HeaderLines(h http.Header) string { return string(appendHeader(nil, h)) }

// appendDate ends a head with the time.
func appendDate(b []byte) []byte {
	b = append(b, "Date: "...)
	b = time.Now().UTC().AppendFormat(b, http.TimeFormat)
	return append(b, "\r\n\r\n"...)
}

// chunked puts each item of another framing into a chunk of its own (RFC 9112,
// 7.1), for responses that the HTTP server does not write.
type chunked struct{ pump.Framing }

func (f chunked) Slot() int { return f.Framing.Slot() + chunkedSlots }

func (f chunked) AppendMessage(dst []byte, m *engine.Message) []byte {
	at := len(dst)
	return closeChunk(f.Framing.AppendMessage(openChunk(dst), m), at)
}

func (f chunked) AppendControl(dst []byte, c *wire.Control) []byte {
	at := len(dst)
	return closeChunk(f.Framing.AppendControl(openChunk(dst), c), at)
}

// sizeRoom is for a chunk's size, before it is known.
const sizeRoom = "00000000\r\n"

func openChunk(dst []byte) []byte { return append(dst, sizeRoom...) }

// closeChunk makes a chunk of what was appended after openChunk at a place;
// none of no data, as that would be the last.
func closeChunk(dst []byte, at int) []byte {
	data := dst[at+len(sizeRoom):]
	if len(data) == 0 {
		return dst[:at]
	}
	var buf [len(sizeRoom)]byte
	size := append(strconv.AppendUint(buf[:0], uint64(len(data)), 16), "\r\n"...)
	end := at + copy(dst[at:], size)
	end += copy(dst[end:], data)
	return append(dst[:end], "\r\n"...)
}

// appendChunk appends a chunk; none for no data, as that would be the last.
func appendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = strconv.AppendUint(dst, uint64(len(data)), 16)
	dst = append(dst, "\r\n"...)
	dst = append(dst, data...)
	return append(dst, "\r\n"...)
}

// lastChunk ends a body that is sent in chunks.
const lastChunk = "0\r\n\r\n"

// parkedKind is how a streaming transport is served where connections are
// parked.
func (s *Server) parkedKind(t *stream) *pump.Kind {
	k := t.kind()
	k.Framing = chunked{t.framing}
	tail := append(appendChunk(nil, t.tail), lastChunk...)
	k.Parked = pump.Parked{
		Tail: func(*pump.Conn, pump.Flush) []byte { return tail },
		Gone: func(*pump.Conn) { s.Gone() },
	}
	if t.prefix != nil {
		k.Parked.Prefix = func(announced string, m *engine.Message) []byte {
			return appendChunk(nil, t.prefix(announced, m))
		}
	}
	return k
}

// parkedHead returns the head of a stream's response, without its date.
func parkedHead(t *stream, h http.Header) []byte {
	t.setHeader(h)
	h.Set("Transfer-Encoding", "chunked")
	h.Set("Connection", "close")
	return appendHeader(appendStatus(make([]byte, 0, 512), http.StatusOK), h)
}

// parkStream serves a stream on a connection that was hijacked. It tells
// whether the stream goes on after it returns.
func (s *Server) parkStream(conn net.Conn, h http.Header, t *stream, padding int, o pump.ConnOptions) bool {
	head := appendChunk(appendDate(parkedHead(t, h)), t.head(padding))
	o.Kind = s.kinds[t.framing.Slot()+chunkedSlots]
	if to, ok := detach(conn); ok {
		to.Head = head
		s.Pump.Park(o, to)
		return true
	}
	// It is not a bare socket: it may have a limit on connections around it,
	// or be a test's.
	defer conn.Close()
	p := s.Pump.Join(o)
	defer p.Leave()
	ctx, gone := watchConn(conn)
	defer gone()
	body := s.connWriter(conn)
	defer body.end()
	if _, err := body.Write(head); err == nil {
		s.writeStream(ctx, body, p, t.prefixWriter(true), append(appendChunk(nil, t.tail), lastChunk...))
	}
	return false
}
