package transport

import (
	"net/http"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
)

// A Prepared is a subscribe request as far as it does not depend on where it
// starts and on its channels, ready to be served any number of times on sockets
// that the HTTP server does not have. It belongs to one of the pump's workers.
type Prepared struct {
	server *Server
	q      Request
	kind   *pump.Kind
	// header is what the response has for a head, without its date; body is
	// what a stream's begins with.
	header string
	body   []byte

	// response is what was sent last: a stream's head, or the answer to a poll,
	// which was last. Those that are alike mostly get the same.
	response []byte
	made     time.Time
	last     pump.Flush
}

// fresh is how long a response is good for others, as it tells the time.
const fresh = time.Second

// Prepare prepares a request whose response has the header h, next to what the
// transport adds. Polls are of the kind polls. It returns nil for what is to be
// refused, or is rare and large.
func (s *Server) Prepare(r *http.Request, q *Request, h http.Header, polls *pump.Kind) *Prepared {
	if q.Padding > maxKept {
		return nil // there may be many that are prepared, and hardly any in use
	}
	p := &Prepared{server: s, q: *q, kind: polls}
	switch q.Transport {
	case WebSocket:
		if checkUpgrade(r) != nil {
			return nil
		}
		p.kind = s.webSocketKind(q.Padding)
		p.header = string(upgradeHead(h))
		return p
	case LongPolling, JSONP:
		if polls.Class != Class(q.Transport) {
			kind := *polls
			kind.Class = Class(q.Transport)
			p.kind = &kind
		}
		h.Set("Content-Type", pollType(q))
		p.header = HeaderLines(h)
		return p
	}
	t := s.stream(q)
	p.kind = s.kinds[t.framing.Slot()+chunkedSlots]
	p.header = string(parkedHead(t, h))
	p.body = appendChunk(nil, t.head(q.Padding))
	return p
}

// StartAt returns where a request starts that has these values for cursor and
// Last-Event-ID, nil if it has none. It reports false for one that is to be
// refused.
func (p *Prepared) StartAt(cursor, lastEventID []byte) (Start, bool) {
	start, problem := parseStart(string(cursor), string(lastEventID))
	return start, problem == nil
}

// Join subscribes a visitor to channels, from a position. Key is a WebSocket's;
// place is where a lease holds the connection, if it is not nil.
func (p *Prepared) Join(c *pump.Conn, channels []string, after engine.Cursor, key []byte, place *pump.Place) {
	var head []byte
	o := pump.ConnOptions{Kind: p.kind, Channels: channels, After: after, Place: place}
	switch {
	case p.kind.Poll:
		o.Timeout, o.Owner = p.q.Timeout, p
	case p.q.Transport == WebSocket:
		head = appendAccept(append(make([]byte, 0, len(p.header)+64), p.header...), key)
	default:
		head = p.head()
	}
	c.Join(o, head)
}

// PreparedPolls returns the kind of polls whose connections become visitors of
// another kind once they are answered.
func (s *Server) PreparedPolls(next *pump.Kind) *pump.Kind {
	return &pump.Kind{Framing: envelopes{}, Class: Class(LongPolling), Poll: true, Next: next, Parked: pump.Parked{
		Reply: func(c *pump.Conn, f pump.Flush) []byte {
			s.Gone()
			return c.Owner().(*Prepared).reply(f)
		},
		Gone: func(*pump.Conn) { s.Gone() },
	}}
}

// head returns what a stream begins with.
func (p *Prepared) head() []byte {
	if now := time.Now(); p.response == nil || now.Sub(p.made) > fresh {
		head := make([]byte, 0, len(p.header)+len("Date: \r\n\r\n")+len(http.TimeFormat)+len(p.body))
		p.response, p.made = append(appendDate(append(head, p.header...)), p.body...), now
	}
	return p.response
}

// reply returns the whole response to a poll.
func (p *Prepared) reply(f pump.Flush) []byte {
	now := time.Now()
	if sameMessages(p.last, f) && now.Sub(p.made) <= fresh {
		return p.response
	}
	response := p.server.pollResponse(&p.q, p.header, f)
	if len(f.Items) > 0 && len(response) <= maxKept {
		p.last, p.made, p.response = f, now, response
	}
	return response
}

// maxKept is the size of a response at most that is kept for other polls, and
// of padding.
const maxKept = 16 << 10

// sameMessages tells whether two flushes of polls that are alike have the same
// answer, without which nothing is lost.
func sameMessages(a, b pump.Flush) bool {
	if len(a.Items) != len(b.Items) || len(a.Items) == 0 || a.Position != b.Position {
		return false
	}
	for i := range a.Items {
		if a.Items[i].Message == nil || a.Items[i].Message != b.Items[i].Message {
			return false
		}
	}
	return true
}
