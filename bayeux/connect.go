package bayeux

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/halley-comet/halley"
)

// A connect is a request that is held for a session: a /meta/connect, with what
// else it asked for ("Connect").
type connect struct {
	session *Session
	poll    *halley.Poll
	m       *message
	replies [][]byte // to the request's other messages
	wrap    func([]byte) []byte
	remote  string // the connection it came by; empty if that is a proxy's
	begun   time.Time
	advice  string        // for this reply alone
	pause   time.Duration // that it tells the client
	altered int           // calls of poll.Alter
	stream  bool          // it has no reply of its own
	number  int           // its stream's; 0 if that is to begin
	after   string        // what the client of a stream says that it had at last
	at      string        // what a stream's client has with the answer
	alone   bool          // it was the request's only message

	// confirms is set if it came by the connection of the last reply, after it.
	confirms bool

	// written is closed once the reply is on its way, where others follow it on
	// the same connection; nil where none do.
	written chan struct{}

	replaces bool     // it has come in the place of another
	replaced *connect // guarded by session.mu: what has come in its place
	answered bool     // guarded by session.mu
	browser  string
}

// hold serves a connect, whose request is of a client. It returns once it is
// answered or goes on without the caller.
func (s *Session) hold(w http.ResponseWriter, r *http.Request, client *halley.Client, c *connect, timeout time.Duration) error {
	if err := s.begin(r, c, timeout, w.Header().Get("Content-Type")); err != nil {
		return err
	}
	return s.serve(w, r, client, c)
}

// begin makes a connect the one that the session holds.
func (s *Session) begin(r *http.Request, c *connect, timeout time.Duration, contentType string) error {
	if !halley.Proxied(r) {
		c.remote = r.RemoteAddr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		s.handler.browserLeft(c)
		if s.moved {
			return errTaken
		}
		return errEnded
	}
	if c.number != 0 && c.number != s.streaming { // it is late: the client has left the stream
		s.handler.browserLeft(c)
		return errReplaced
	}
	s.take(c, timeout, contentType)
	return nil
}

// serve answers a connect that has begun.
func (s *Session) serve(w http.ResponseWriter, r *http.Request, client *halley.Client, c *connect) error {
	err := s.handler.pollsFor(s).Serve(w, r, client, c.poll)
	for range 10 {
		// The connect that this one replaces may have been all that there may be.
		p, ok := errors.AsType[*halley.Problem](err)
		if !ok || p.Code != limitCode || !c.replaces {
			break
		}
		time.Sleep(5 * time.Millisecond)
		err = s.handler.pollsFor(s).Serve(w, r, client, c.poll)
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		c.release()
		if p, ok := errors.AsType[*halley.Problem](err); ok {
			s.pause = p.RetryAfter
		}
		s.wait()
	}
	return err
}

// take makes a connect the session's, with the poll that answers it. mu is held.
func (s *Session) take(c *connect, timeout time.Duration, contentType string) {
	c.session, c.begun, c.m = s, time.Now(), c.m.kept()
	c.poll = &halley.Poll{Timeout: timeout, ContentType: contentType, Answer: c.answer, Gone: c.gone}
	if old := s.held; old != nil {
		old.replaced, c.replaces = c, true
		old.poll.Finish()
	}
	first := c.stream && c.number == 0
	if first {
		s.streams++
		c.number = s.streams
	}
	s.streaming = c.number
	switch {
	case s.stale && !c.stream:
		s.goOn(c)
		s.stream = ""
	case s.stale:
		s.goOn(c)
		s.stream = s.eventID()
	case !c.stream:
		s.settle(c)
		s.stream = "" // its client has more by now, and may have no id to say so
	case first:
		s.resume(c.after)
	default:
		s.arrived()
	}
	if len(s.queue) > s.sent {
		c.poll.Timeout = 0
	}
	s.starts(c.poll)
	s.held, s.pause = c, c.pause
	if s.timer != nil {
		s.timer.Stop()
	}
}

// limitCode is that of a problem of too many connections.
const limitCode = "connection-limit"

var (
	errEnded    = errors.New("the session has ended")
	errReplaced = errors.New("another stream or connect has come")
)

// release notes that the connect is held no more. The session's mu is held.
func (c *connect) release() {
	if c.session.held == c {
		c.session.held = nil
	}
	c.session.handler.browserLeft(c)
}

// gone is called if the client has gone: before the answer, or with it.
func (c *connect) gone() {
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	c.release()
	if c.answered && s.mark != nil && s.mark.by == c {
		s.mark.lost = true
	}
	s.wait()
}

// answer returns the response: the messages come before the connect's reply, as
// some clients look at nothing after it.
func (c *connect) answer(a halley.PollAnswer) []byte {
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	current := s.held == c
	c.answered = true
	c.release()
	// It may be kept for long.
	replies, wrap := c.replies, c.wrap
	c.replies, c.wrap, c.poll = nil, nil, nil
	b := []byte{'['}
	add := func(message []byte) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, message...)
	}
	for _, r := range replies {
		add(r)
	}
	var ext []string
	r := newReply(c.m, true)
	switch {
	case s.moved: // the next connect finds it
	case s.left:
		c.advice = `{"reconnect":"none"}`
	case s.ended:
		r = newReply(c.m, false).text("error", fault(402, s.id, "the session has ended"))
		c.advice = rehandshake
	case c.replaced != nil && c.replaced.stream && !c.stream: // it goes on there
	case c.replaced != nil || !current:
		// The other may be one that the client has given up, and that was late:
		// so it is not told to stay away. After a pause, as it may also be of a
		// copy of the client, which would send another at once as well.
		r = newReply(c.m, false).text("error", fault(408, s.id, "another connect of the session has come"))
		c.advice = s.handler.replacedAdvice
	case a.Err != nil:
		r = c.failed(a.Err)
	default:
		s.correct(c, &a)
		if s.overlaps(&a) {
			a.Messages, a.Of = s.unknown(&a)
		}
		for _, m := range s.took(c, &a) {
			add(m)
		}
		for _, m := range a.Messages {
			add(m)
		}
		if s.ack {
			ext = append(ext, `"ack":`+strconv.FormatInt(s.batch, 10))
		}
		if a.Gap {
			ext = append(ext, `"gap":true`)
		}
		s.wait()
	}
	switch {
	case !c.stream:
		add(s.handler.connectReply(c, r, ext))
	case a.Gap: // without advice, which is about requests
		add(r.raw("ext", []byte(`{"gap":true}`)).end())
	}
	c.at = s.eventID()
	b = append(b, ']')
	if wrap != nil {
		b = wrap(b)
	}
	return b
}

// unknown returns those of an answer's messages that the client has not had. mu
// is held.
func (s *Session) unknown(a *halley.PollAnswer) (messages [][]byte, of []*halley.Message) {
	for i, m := range a.Of {
		if !s.had(m) {
			messages, of = append(messages, a.Messages[i]), append(of, m)
		}
	}
	return messages, of
}

// failed returns the reply to a connect that ends for a reason of its own.
func (c *connect) failed(err error) *reply {
	s := c.session
	r := newReply(c.m, false).text("error", errorText(err, ""))
	if p, ok := errors.AsType[*halley.Problem](err); ok && p.Temporary() {
		c.advice = retryAdvice(p)
		s.pause = p.RetryAfter
		s.wait()
		return r
	}
	c.advice = newToken
	go s.handler.end(s) // which locks it
	return r
}

// retryAdvice tells a client to come back in a while.
func retryAdvice(p *halley.Problem) string {
	return `{"reconnect":"retry","interval":` + strconv.FormatInt(max(p.RetryAfter, time.Second).Milliseconds(), 10) + `}`
}

// connectReply ends a connect's reply, with what is added to ext.
func (h *Handler) connectReply(c *connect, r *reply, ext []string) []byte {
	if t := timesync(c.m, c.begun); t != "" {
		ext = append(ext, t)
	}
	if len(ext) > 0 {
		r.raw("ext", []byte("{"+strings.Join(ext, ",")+"}"))
	}
	advice := c.advice
	if advice == "" {
		advice = h.advice
	}
	r.raw("advice", []byte(advice))
	h.stamp(r)
	return r.end()
}

// timesync returns the answer of the extension timesync to a message that came
// at a time, as a member of ext; empty if the client's clock is known well.
func timesync(m *message, came time.Time) string {
	var t struct {
		TC *float64 `json:"tc"`
		L  float64  `json:"l"`
		O  float64  `json:"o"`
	}
	if m == nil || m.exts["timesync"] == nil || json.Unmarshal(m.exts["timesync"], &t) != nil || t.TC == nil {
		return ""
	}
	ts := came.UnixMilli()
	a := int64(*t.TC+t.O+t.L) - ts
	if t.L != 0 && t.O != 0 && a > -25 && a < 25 {
		return ""
	}
	b := []byte(`"timesync":{"tc":`)
	b = strconv.AppendInt(b, int64(*t.TC), 10)
	b = strconv.AppendInt(append(b, `,"ts":`...), ts, 10)
	b = strconv.AppendInt(append(b, `,"p":`...), time.Since(came).Milliseconds(), 10)
	b = strconv.AppendInt(append(b, `,"a":`...), a, 10)
	return string(append(b, '}'))
}

// stamp adds the time to a reply where that is wanted.
func (h *Handler) stamp(r *reply) {
	if h.options.Timestamp {
		r.text("timestamp", time.Now().UTC().Format(http.TimeFormat))
	}
}
