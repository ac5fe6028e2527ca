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
// is over.
func (s *Server) servePoll(w http.ResponseWriter, r *http.Request, q *Request, o pump.ConnOptions) {
	rc := http.NewResponseController(w)
	// The embedder's time-outs are for requests that are answered at once, and
	// HTTP/2 resets a stream when the one for writing passes.
	_ = rc.SetReadDeadline(time.Time{}) // where it is not supported, there is none
	_ = rc.SetWriteDeadline(time.Time{})
	o.Framing, o.Poll = envelopes{}, true
	conn := s.Pump.Join(o)
	defer conn.Leave()
	if q.Timeout == 0 {
		conn.Expire()
	} else {
		timer := time.AfterFunc(q.Timeout, conn.Expire)
		defer timer.Stop()
	}
	f, err := conn.Next(r.Context())
	// It holds until the server has written the answer, which may be after
	// this returns.
	_ = rc.SetWriteDeadline(time.Now().Add(s.WriteTimeout))
	if err != nil {
		if r.Context().Err() == nil {
			s.Refuse(w, r, q, wire.NewProblem(wire.Draining, "come back in a moment"))
		}
		return
	}
	page := wire.Page{Cursor: f.Position}
	for _, it := range f.Items {
		switch {
		case it.Message != nil:
			page.Envelopes = append(page.Envelopes, it.Bytes)
		case it.Control.Kind == wire.Gap:
			page.Gap = true
		case it.Control.Kind == wire.Error:
			s.Refuse(w, r, q, it.Control.Problem)
			return
		case it.Control.Kind == wire.Reconnect:
			// The log is closed: nothing was read, not even where it stands.
			p := wire.NewProblem(wire.EngineUnavailable, "come back in a moment")
			p.RetryAfter = it.Control.Delay
			s.Refuse(w, r, q, p)
			return
		}
	}
	if q.Transport == JSONP {
		s.WriteBody(w, jsonpBody(w.Header(), q, page.Append(nil)))
		return
	}
	body := page.Append([]byte(pad("", q.Padding, " ")))
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	s.WriteBody(w, body)
}
