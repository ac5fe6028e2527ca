package transport

import (
	"net/http"
	"strconv"
	"time"

	"github.com/halley-comet/halley/internal/pump"
)

// A FrontKind is what the polls of another protocol have in common.
type FrontKind struct{ plain, parked *pump.Kind }

// NewFrontKind returns the kind of polls whose messages are framed so.
func (s *Server) NewFrontKind(f pump.Framing) *FrontKind {
	return &FrontKind{
		plain:  &pump.Kind{Framing: f, Class: Class(LongPolling), Poll: true},
		parked: s.heldKind(f, LongPolling),
	}
}

// A FrontPoll is a poll of another protocol.
type FrontPoll struct {
	// Answer returns the body of the response. It must not block.
	Answer func(f pump.Flush) []byte
	// Gone is called if the client went, before the answer or with it.
	Gone func()
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
	s.WriteBody(w, body)
	return false
}
