package transport

import (
	"net/http"
	"strconv"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// envelopes frames the messages of a poll's body.
type envelopes struct{}

func (envelopes) Slot() int { return envelopeSlot }

func (envelopes) AppendMessage(dst []byte, m *engine.Message) []byte {
	return wire.AppendEnvelope(dst, m)
}

func (envelopes) AppendControl(dst []byte, c *wire.Control) []byte {
	return wire.AppendControl(dst, c)
}

// servePoll holds a request until there is something to answer, or its time
// is over. It returns true if the request is held without the caller.
func (s *Server) servePoll(w http.ResponseWriter, r *http.Request, q *Request, o pump.ConnOptions) (parked bool) {
	o.Kind, o.Timeout = pollKinds[q.Transport], q.Timeout
	if q.Timeout > 0 && s.mayPark(w, r) { // what is answered at once is not worth it
		if conn, input, back, err := hijack(w); err == nil {
			return s.parkPoll(conn, input, back, w.Header(), r, q, o)
		}
	}
	rc := http.NewResponseController(w)
	// The embedder's time-outs are for requests that are answered at once, and
	// HTTP/2 resets a stream when the one for writing passes.
	_ = rc.SetReadDeadline(time.Time{}) // where it is not supported, there is none
	_ = rc.SetWriteDeadline(time.Time{})
	conn := s.Pump.Join(o)
	defer conn.Leave()
	f, err := conn.Next(r.Context())
	// It holds until the server has written the answer, which may be after
	// this returns.
	_ = rc.SetWriteDeadline(time.Now().Add(s.WriteTimeout))
	if err != nil {
		if r.Context().Err() == nil {
			s.Refuse(w, r, q, wire.NewProblem(wire.Draining, "come back in a moment"))
		}
		return false
	}
	body, p := pollBody(q, f)
	if p != nil {
		s.Refuse(w, r, q, p)
		return false
	}
	w.Header().Set("Content-Type", pollType(q))
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_ = s.WriteBody(w, body) // the client has it or is gone
	return false
}

// pollKinds are what polls of a transport have in common that a goroutine
// answers.
var pollKinds = map[string]*pump.Kind{
	LongPolling: {Framing: envelopes{}, Class: Class(LongPolling), Poll: true},
	JSONP:       {Framing: envelopes{}, Class: Class(JSONP), Poll: true},
}

// pollBody returns what a poll is answered with, or why it cannot be.
func pollBody(q *Request, f pump.Flush) ([]byte, *wire.Problem) {
	page := wire.Page{Cursor: f.Position}
	for _, it := range f.Items {
		switch {
		case it.Message != nil:
			page.Envelopes = append(page.Envelopes, it.Bytes)
		case it.Control.Kind == wire.Gap:
			page.Gap = true
		case it.Control.Kind == wire.Error:
			return nil, it.Control.Problem
		case it.Control.Kind == wire.Reconnect:
			// The log is closed: nothing was read, not even where it stands.
			p := wire.NewProblem(wire.EngineUnavailable, "come back in a moment")
			p.RetryAfter = it.Control.Delay
			return nil, p
		}
	}
	if q.Transport == JSONP {
		return jsonpBody(q, page.Append(nil)), nil
	}
	return page.Append([]byte(pad("", q.Padding, " "))), nil
}

// pollType returns the content type of a poll's answer.
func pollType(q *Request) string {
	if q.Transport == JSONP {
		return jsonpType
	}
	return "application/json; charset=utf-8"
}
