package bayeux

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/halley-comet/halley"
)

// A Session is a client between its handshake and its end.
type Session struct {
	handler *Handler
	id      string
	client  *halley.Client // who made the handshake
	// bound tells that the handshake's request had the token, and not the
	// message: then others have to have one too.
	bound   bool
	ack     bool // the client acknowledges (the extension ack)
	replay  bool // the client wants positions (the extension replay)
	browser string

	mu     sync.Mutex
	ended  bool              // guarded by mu, as all that follows
	left   bool              // it was ended by its client
	subs   []subscription    // in no order
	cursor halley.Cursor     // the client has had the messages of subs up to here
	mark   *mark             // where it stood before the last reply, until that has arrived
	last   *connect          // that was answered last
	same   int               // connects in a row that had the same id
	noIDs  bool              // the client's ids do not tell its connects apart
	batch  int64             // of the last reply with messages
	queue  []json.RawMessage // replies of services, until they have arrived
	sent   int               // of queue, with the last reply
	held   *connect          // what waits for messages, nil if nothing does
	// asked counts the connects that asked to be answered at once, since one did
	// not.
	asked  int
	pause  time.Duration // that the client was told to leave before its next connect
	timer  *time.Timer   // of its end, while nothing is held
	active time.Time     // when the client last did something but connect
}

// A subscription is one of a session's.
type subscription struct {
	name string // without the slash in front
	// from is where it starts if it has a start of its own: later than the
	// session's cursor, or earlier. The zero Cursor is the oldest message.
	from halley.Cursor
	own  bool
	// altered is how many changes of the connect that is held it came with.
	altered int
}

// A mark is where a session stood.
type mark struct {
	cursor halley.Cursor
	from   map[string]halley.Cursor
	by     *connect // that was answered
	lost   bool     // the reply is known not to have arrived
}

var (
	// ErrEnded is returned for sessions that have ended.
	ErrEnded = errors.New("bayeux: the session has ended")
	// ErrFull is returned if too much waits for a session already.
	ErrFull = errors.New("bayeux: too many replies wait for the session")
)

// ID returns the client ID. Who knows it can be taken for the client.
func (s *Session) ID() string { return s.id }

// Grant returns what the client may do.
func (s *Session) Grant() *halley.Grant { return s.client.Grant() }

// Deliver sends data to the session's client alone, on a channel such as
// "/service/echo". It is not in the log. Errors wrap ErrEnded, ErrFull, or say
// that data cannot be JSON.
func (s *Session) Deliver(channel string, data any) error {
	return s.deliver(channel, nil, data)
}

func (s *Session) deliver(channel string, id json.RawMessage, data any) error {
	b, err := serviceMessage(channel, id, data)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return ErrEnded
	case len(s.queue) >= s.handler.options.MaxQueue:
		return ErrFull
	}
	s.queue = append(s.queue, b)
	if s.held != nil {
		s.held.poll.Finish()
	}
	return nil
}

func serviceMessage(channel string, id json.RawMessage, data any) (json.RawMessage, error) {
	text, err := json.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("bayeux: %w", err)
	}
	b := appendString([]byte(`{"channel":`), channel)
	if id != nil {
		b = appendASCII(append(b, `,"id":`...), id)
	}
	return append(appendASCII(append(b, `,"data":`...), text), '}'), nil
}

// End ends the session, as if its client had disconnected.
func (s *Session) End() { s.handler.end(s) }

// newID returns a client ID: 130 random bits.
func newID() string { return rand.Text() }

// find returns a subscription's place, or -1.
func (s *Session) find(name string) int {
	return slices.IndexFunc(s.subs, func(sub subscription) bool { return sub.name == name })
}

// subscribe adds channels, each with its start. One that the session has goes
// on, unless it is to start again. mu is held.
func (s *Session) subscribe(names []string, from []halley.Cursor, again []bool) {
	add := map[string]halley.Cursor{}
	for i, name := range names {
		at := s.find(name)
		if at >= 0 && !again[i] {
			continue
		}
		if at < 0 {
			at = len(s.subs)
			s.subs = append(s.subs, subscription{name: name})
		}
		s.subs[at].from, s.subs[at].own = from[i], true
		add[name] = from[i]
	}
	s.alter(add, nil)
}

// unsubscribe removes channels; those that are not there are ignored. mu is
// held.
func (s *Session) unsubscribe(names []string) {
	s.subs = slices.DeleteFunc(s.subs, func(sub subscription) bool { return slices.Contains(names, sub.name) })
	s.alter(nil, names)
}

// alter has what is held go on with other channels.
func (s *Session) alter(add map[string]halley.Cursor, remove []string) {
	c := s.held
	if c == nil {
		return
	}
	c.altered++
	for name := range add {
		s.subs[s.find(name)].altered = c.altered
	}
	c.poll.Alter(add, remove)
}

// starts sets what a poll begins with. mu is held.
func (s *Session) starts(p *halley.Poll) {
	p.Channels, p.From = make([]string, len(s.subs)), make([]halley.Cursor, len(s.subs))
	for i := range s.subs {
		sub := &s.subs[i]
		sub.altered = 0
		p.Channels[i], p.From[i] = sub.name, s.cursor
		if sub.own {
			p.From[i] = sub.from
		}
	}
}

// took notes that a reply is made of what a poll has brought. It returns the
// number of what the queue adds. mu is held.
func (s *Session) took(c *connect, a *halley.PollAnswer) (queued int) {
	if len(a.Messages)+len(s.queue) > 0 {
		s.mark = &mark{cursor: s.cursor, by: c}
		for _, sub := range s.subs {
			if sub.own {
				if s.mark.from == nil {
					s.mark.from = map[string]halley.Cursor{}
				}
				s.mark.from[sub.name] = sub.from
			}
		}
		s.batch++
	}
	s.cursor = a.Position
	for i := range s.subs {
		sub := &s.subs[i]
		if sub.altered <= a.Altered && !(sub.from.Epoch == a.Position.Epoch && sub.from.Seq > a.Position.Seq) {
			sub.own = false
		}
	}
	if s.handler.options.IdleDeliveries && len(a.Messages) > 0 {
		s.active = time.Now()
	}
	s.sent = len(s.queue)
	return s.sent
}

// arrived notes that the client has had the last reply. mu is held.
func (s *Session) arrived() {
	s.mark = nil
	s.queue = slices.Delete(s.queue, 0, s.sent)
	if s.sent = 0; len(s.queue) == 0 {
		s.queue = nil
	}
}

// rewind has the last reply made again. mu is held.
func (s *Session) rewind() {
	m := s.mark
	if m == nil {
		return
	}
	s.mark, s.sent = nil, 0
	s.cursor = m.cursor
	for i := range s.subs {
		if from, ok := m.from[s.subs[i].name]; ok {
			s.subs[i].from, s.subs[i].own = from, true
		}
	}
}

// settle finds out whether the last reply has arrived, by the connect that
// follows it. mu is held.
//
// A client with the extension ack says so. Others do by what they send: Faye
// repeats a connect that failed, with its id. CometD asks to be answered at once
// after one, by a connect that comes alone (Faye asks for that where a connect
// has company). Who asks for it each time only polls, though, or fails each
// time: then another connection tells, as often as a client may fail.
func (s *Session) settle(c *connect) {
	m := c.m
	repeated := s.repeats(c)
	if m.timeout != 0 {
		s.asked = 0
	}
	if s.mark == nil {
		s.arrived()
		return
	}
	by := s.mark.by
	again := s.mark.lost || repeated
	if !again && m.timeout == 0 && c.alone && !c.follows(by) {
		again = by.m.timeout != 0 || s.asked < manyRepeats
		s.asked++
	}
	again = again && !c.confirms
	if n, ok := m.number("ack"); ok && s.ack {
		again = n != s.batch
	}
	if again {
		s.rewind()
	} else {
		s.arrived()
	}
}

// repeats tells whether a connect is the last one again. There are clients that
// give all the same id.
func (s *Session) repeats(c *connect) bool {
	if s.last == nil || c.m.id == nil || string(c.m.id) != string(s.last.m.id) {
		s.same = 0
		return false
	}
	if s.same++; s.same == manyRepeats || c.follows(s.last) {
		s.noIDs = true // nobody repeats so often, or over the connection that the reply came by
	}
	return !s.noIDs
}

// manyRepeats is how often a reply is made again, at most, for a client that may
// have failed to get it each time.
const manyRepeats = 10

// follows tells whether a connect came by the connection that the reply to
// another went to, which has arrived then. What a proxy has passed on may have
// come by any.
func (c *connect) follows(other *connect) bool { return c.remote != "" && c.remote == other.remote }

// wait has the session end if no connect comes. mu is held.
func (s *Session) wait() {
	if s.ended || s.held != nil {
		return
	}
	d := s.pause + s.handler.options.MaxInterval
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.expire)
		return
	}
	s.timer.Reset(d)
}

// expire ends the session, unless a connect has come meanwhile.
func (s *Session) expire() {
	s.mu.Lock()
	idle := s.held == nil
	s.mu.Unlock()
	if idle {
		s.handler.end(s)
	}
}

// ackExt returns the ext of a connect's reply.
func (s *Session) ackExt() string {
	if !s.ack {
		return ""
	}
	return `"ack":` + strconv.FormatInt(s.batch, 10)
}
