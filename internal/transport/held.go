package transport

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"strings"
	"time"
	"unique"

	"github.com/halley-comet/halley/internal/handback"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/socket"
	"github.com/halley-comet/halley/internal/wire"
)

// A heldPoll is a poll whose connection is parked. It is answered by the
// pump's worker, and the connection is then given back to the HTTP server for
// the client's next request.
type heldPoll struct {
	server *Server
	http   *http.Server
	conn   net.Conn
	fd     int
	tls    bool
	// back takes the connection after the answer, in place of http; or nil.
	back handback.Func
	// input is what the client sent after its request.
	input []byte
	// header is the answer's, as far as it is known yet. Most are the same.
	header unique.Handle[string]
	q      Request
	front  *FrontPoll // answers in the place of q, if it is not nil
	// last is set if the connection ends with the answer.
	last bool
}

// parkPoll holds a poll on a connection that was hijacked. It returns false
// once it has answered.
func (s *Server) parkPoll(conn net.Conn, input []byte, back handback.Func, h http.Header, r *http.Request, q *Request, o pump.ConnOptions) (parked bool) {
	p := &heldPoll{server: s, conn: conn, input: input, back: back, q: *q, last: r.Close}
	p.q.Channels = nil // the pump has them
	h.Set("Content-Type", pollType(q))
	return s.park(p, h, r, o, pollKinds[q.Transport], s.held[q.Transport], func(*pump.Conn) {})
}

// park holds a poll whose connection was hijacked, as one of two kinds: without
// the caller if that is possible. Joined is called with what the pump has of it.
func (s *Server) park(p *heldPoll, h http.Header, r *http.Request, o pump.ConnOptions, plain, parked *pump.Kind, joined func(*pump.Conn)) bool {
	conn := p.conn
	p.http, _ = r.Context().Value(http.ServerContextKey).(*http.Server)
	if p.last || p.http == nil {
		p.last = true
		h.Set("Connection", "close")
	}
	p.header = unique.Make(HeaderLines(h))
	fd, ok := 0, false
	if below := socket.TLSOf(conn); below != nil {
		fd, ok = below.Descriptor()
		p.tls = true
	} else {
		fd, ok = socket.Descriptor(conn)
	}
	if ok {
		p.fd = fd
		o.Kind, o.Owner = parked, p
		joined(s.Pump.Park(o, pump.Socket{FD: fd, Borrowed: true}))
		return true
	}
	o.Kind = plain
	c := s.Pump.Join(o)
	joined(c)
	ctx, stop := p.watch()
	f, err := c.Next(ctx)
	c.Leave()
	if !stop() {
		p.gone()
		return false
	}
	if err != nil {
		f = closedFlush()
	}
	p.write(p.answer(f))
	return false
}

// closedFlush is what a poll gets that the pump's end has met.
func closedFlush() pump.Flush {
	return pump.Flush{Items: []pump.Item{{Control: &wire.Control{Kind: wire.Error, Problem: wire.NewProblem(wire.Draining, "come back in a moment")}}}}
}

// heldKind is what polls have in common whose connections are parked.
func (s *Server) heldKind(framing pump.Framing, transport string) *pump.Kind {
	return &pump.Kind{Framing: framing, Class: Class(transport), Poll: true, Parked: pump.Parked{
		Answer: func(c *pump.Conn, f pump.Flush) {
			p := c.Owner().(*heldPoll)
			if p.front != nil && pump.HasGone(p.fd) {
				// It could still be written to, for nobody.
				p.gone()
				s.Gone()
				return
			}
			b := p.answer(f)
			n := 0
			if !p.tls { // which may have to wait
				n = pump.SendNow(p.fd, b)
			}
			s.Gone()
			switch {
			case n < 0:
				p.gone()
			case n < len(b):
				p.server.tasks.Go(func() { p.write(b[n:]) })
			default:
				p.next()
			}
		},
		Gone: func(c *pump.Conn) {
			c.Owner().(*heldPoll).gone() // or the pump is closed
			s.Gone()
		},
	}}
}

// gone is called when the client has gone.
func (p *heldPoll) gone() {
	_ = p.conn.Close()
	if p.front != nil {
		p.front.Gone()
	}
}

// answer returns the response.
func (p *heldPoll) answer(f pump.Flush) []byte {
	if p.front != nil {
		return AppendResponse(nil, p.header.Value(), p.front.Answer(f))
	}
	return p.server.pollResponse(&p.q, p.header.Value(), f)
}

// pollResponse returns the whole response to a poll, whose header is known.
func (s *Server) pollResponse(q *Request, header string, f pump.Flush) []byte {
	body, problem := pollBody(q, f)
	if problem != nil {
		lines := textproto.NewReader(bufio.NewReader(strings.NewReader(header + "\r\n")))
		h, _ := lines.ReadMIMEHeader() // it was written by us
		w := refusal{header: http.Header(h), status: http.StatusOK}
		s.Refuse(&w, nil, q, problem)
		return append(appendDate(appendHeader(appendStatus(nil, w.status), w.header)), w.body...)
	}
	return AppendResponse(make([]byte, 0, len(header)+160+len(body)), header, body)
}

// A refusal is a response that is kept.
type refusal struct {
	header http.Header
	status int
	body   []byte
}

func (w *refusal) Header() http.Header    { return w.header }
func (w *refusal) WriteHeader(status int) { w.status = status }
func (w *refusal) Write(b []byte) (int, error) {
	w.body = append(w.body, b...)
	return len(b), nil
}

// write writes the response, or what the socket did not take of it at once.
func (p *heldPoll) write(b []byte) {
	body := p.server.connWriter(p.conn)
	body.extend()
	_, err := body.Write(b)
	body.end()
	if err != nil {
		p.gone()
		return
	}
	p.next()
}

// next gives the connection back for the client's next request.
func (p *heldPoll) next() {
	_ = p.conn.SetDeadline(time.Time{})
	switch {
	case p.last, p.tls && len(p.input) > 0: // what was read cannot be put back under TLS
	case p.back != nil && (p.front == nil || p.front.Back):
		if p.back(p.conn, p.input) {
			return
		}
	case p.server.returned.Give(p.http, p.conn, p.input):
		return
	}
	_ = p.conn.Close()
}

// watch reads ahead, to notice when the client is gone: the context ends then.
// stop ends the reading, and tells whether the client is there.
func (p *heldPoll) watch() (ctx context.Context, stop func() bool) {
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		for len(p.input) == 0 { // or the client has sent its next request
			b := make([]byte, 1)
			n, err := p.conn.Read(b)
			p.input = append(p.input, b[:n]...)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			if err != nil {
				cancel()
				return
			}
		}
	}()
	return ctx, func() bool {
		_ = p.conn.SetReadDeadline(time.Unix(1, 0)) // long ago
		<-over
		here := ctx.Err() == nil
		cancel()
		return here
	}
}
