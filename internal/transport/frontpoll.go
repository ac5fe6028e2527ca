package transport

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/halley-comet/halley/internal/pump"
)

// A FrontKind is what the polls of another protocol have in common.
type FrontKind struct {
	server        *Server
	plain, parked *pump.Kind

	mu      sync.Mutex
	visited map[*pump.Kind]*pump.Kind // guarded by mu: by what connections become of afterwards
}

// NewFrontKind returns the kind of polls whose messages are framed so.
func (s *Server) NewFrontKind(f pump.Framing) *FrontKind {
	return &FrontKind{
		server: s,
		plain:  &pump.Kind{Framing: f, Class: Class(LongPolling), Poll: true},
		parked: s.heldKind(f, LongPolling),
	}
}

// visitors returns the kind of polls whose connections become visitors of
// another kind once they are answered.
func (k *FrontKind) visitors(next *pump.Kind) *pump.Kind {
	k.mu.Lock()
	defer k.mu.Unlock()
	if v := k.visited[next]; v != nil {
		return v
	}
	v := &pump.Kind{Framing: k.plain.Framing, Class: k.plain.Class, Poll: true, Next: next, Parked: pump.Parked{
		Alive: true,
		Reply: func(c *pump.Conn, f pump.Flush) []byte {
			k.server.Gone()
			p := c.Owner().(*visitorPoll)
			return AppendResponse(nil, p.header, p.poll.Answer(f))
		},
		Gone: func(c *pump.Conn) {
			if p, ok := c.Owner().(*visitorPoll); ok {
				p.poll.Gone()
				k.server.Gone()
			}
		},
	}}
	if k.visited == nil {
		k.visited = map[*pump.Kind]*pump.Kind{}
	}
	k.visited[next] = v
	return v
}

// A visitorPoll is the owner of a visitor that has become a poll.
type visitorPoll struct {
	poll   *FrontPoll
	header string
}

// JoinFront makes a poll of a visitor, whose response has a header's lines.
func (s *Server) JoinFront(c *pump.Conn, k *FrontKind, p *FrontPoll, header string, next *pump.Kind, o pump.ConnOptions) {
	o.Kind, o.Owner = k.visitors(next), &visitorPoll{p, header}
	c.Join(o, nil)
}

// A FrontPoll is a poll of another protocol.
type FrontPoll struct {
	// Answer returns the body of the response. It must not block.
	Answer func(f pump.Flush) []byte
	// Gone is called if the client went, before the answer or with it.
	Gone func()
	// Back has the connection go to who stands before the server, once it is
	// answered: the next request is read there.
	Back bool
}

// ServeFront holds a request as Serve does a poll. The response is of the
// headers that w has, with status 200. Joined is called with what the pump has
// of it, maybe after Answer.
func (s *Server) ServeFront(w http.ResponseWriter, r *http.Request, k *FrontKind, p *FrontPoll, o pump.ConnOptions, joined func(*pump.Conn)) (parked bool) {
	if s.mayPark(w, r) {
		if conn, input, back, err := hijack(w); err == nil {
			held := &heldPoll{server: s, conn: conn, input: input, back: back, front: p, last: r.Close}
			return s.park(held, w.Header(), r, o, k.plain, k.parked, joined)
		}
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // as in servePoll
	_ = rc.SetWriteDeadline(time.Time{})
	o.Kind = k.plain
	conn := s.Pump.Join(o)
	joined(conn)
	defer conn.Leave()
	f, err := conn.Next(r.Context())
	_ = rc.SetWriteDeadline(time.Now().Add(s.WriteTimeout))
	if r.Context().Err() != nil {
		p.Gone()
		return false
	}
	if err != nil {
		f = closedFlush()
	}
	body := p.Answer(f)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if s.WriteBody(w, body) != nil || r.Context().Err() != nil {
		p.Gone()
	}
	return false
}
