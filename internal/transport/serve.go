package transport

import (
	"net/http"
	"strconv"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// Serve answers a subscribe request, and returns when the response is over, or
// true when it goes on without the caller. after is where it starts, the zero
// Cursor being the oldest message retained; place is where a lease holds the
// connection, if it is not nil.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, q *Request, after engine.Cursor, place *pump.Place) (parked bool) {
	o := pump.ConnOptions{Channels: q.Channels, After: after, Place: place}
	switch q.Transport {
	case LongPolling, JSONP:
		return s.servePoll(w, r, q, o)
	case WebSocket:
		return s.serveWebSocket(w, r, q, o)
	}
	return s.serveStream(w, r, s.stream(q), q.Padding, o)
}

// stream returns how a streaming transport is written.
func (s *Server) stream(q *Request) *stream {
	switch q.Transport {
	case IFrame:
		return newIFrame(q, s.framers)
	case Multipart:
		if q.Raw {
			return newMultipartRaw(s.Boundary, s.Active, s.MultipartLimit)
		}
		return newMultipart(s.Boundary)
	case SSE:
		return newSSE(q.Raw)
	}
	return newXHRStreaming()
}

// Refuse answers a request that is not served, in the way that its transport
// can show to the client.
func (s *Server) Refuse(w http.ResponseWriter, r *http.Request, q *Request, p *wire.Problem) {
	s.refused(p)
	reachable := q.Callback != "" || q.Origin != ""
	switch {
	case q.Transport == JSONP && reachable:
		body := jsonpBody(q, wire.AppendControl(nil, &wire.Control{Kind: wire.Error, Problem: p}))
		w.Header().Set("Content-Type", jsonpType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // the client is told or is gone
	case q.Transport == IFrame && reachable:
		newIFrame(q, s.framers).refuse(w, &wire.Control{Kind: wire.Error, Problem: p})
	case q.Transport == SSE && p.Temporary():
		newSSE(q.Raw).refuse(w, &wire.Control{Kind: wire.Reconnect, Delay: retryDelay(p)})
	case q.Transport == WebSocket && p.Temporary():
		s.refuseWebSocket(w, r, p)
	default:
		p.Write(w)
	}
}

func (s *Server) refused(p *wire.Problem) {
	if s.Options.Refused != nil {
		s.Options.Refused(p)
	}
}

func streamHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
}
