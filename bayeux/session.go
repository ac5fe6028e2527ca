package bayeux

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// A Session is a client between its handshake and its end.
type Session struct {
	handler *Handler
	id      string
	owner   string // whom limits are for, by the handshake
	user    string // of the handshake, "" for nobody in particular
	// bound tells that the handshake's request had the token, and not the
	// message: then others have to have one too.
	bound   bool
	ack     bool // the client acknowledges (the extension ack)
	replay  bool // the client wants positions (the extension replay)
	browser string

	// retries tells that the client repeats what it published if it sees no reply
	// (Faye).
	retries bool

	recorded recorded // what other nodes know of it

	mu     sync.Mutex
	client *halley.Client           // who made the handshake, or a later request with another token
	ended  bool                     // guarded by mu, as all that follows
	left   bool                     // it was ended by its client
	moved  bool                     // it has ended here alone: it is another node's
	stale  bool                     // it was taken over, and the client is further than is known
	mixed  bool                     // the last batch that the client is known to have had is of another epoch
	subs   []subscription           // by their names
	add    map[string]halley.Cursor // to what is held, with the end of the request
	drop   []string                 // from it
	cursor halley.Cursor            // the client has had the messages of subs up to here
	mark   *mark                    // where it stood before the last reply, until that has arrived
	batch  int64                    // of the last reply with messages
	queue  []json.RawMessage        // replies of services, until they have arrived
	sent   int                      // of queue, with the last reply
	stream string                   // what the client had when its stream began; empty if there was none
	// streaming is the number of the stream that brings what is delivered, of all
	// there were; 0 if none does.
	streaming, streams int
	held               *connect // what waits for messages, nil if nothing does
	// asked counts the connects that asked to be answered at once, since one did
	// not.
	waits  bool // a connect has come that was to be held
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
	// replay tells that messages after from are wanted that the client may have
	// had, and fresh that it has had none by this subscription.
	replay, fresh bool
	// since is the position of the first reply that had it all, once its start
	// is not its own any more.
	since halley.Cursor
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
func (s *Session) Grant() *halley.Grant { return s.holder().Grant() }

// holder returns who the client is.
func (s *Session) holder() *halley.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client
}

// adopt has a client go on with the session whose rights are not those that its
// channels were subscribed with. The error is a *halley.Problem if it may not
// read one of them.
func (s *Session) adopt(client *halley.Client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if client.Grant() == s.client.Grant() {
		return nil
	}
	names := make([]string, len(s.subs))
	for i := range s.subs {
		names[i] = s.subs[i].name
	}
	if err := client.CheckSubscribe(names...); err != nil {
		return err
	}
	s.client = client
	s.changed()
	return nil
}

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

// find returns a subscription's place, and whether it is there.
func (s *Session) find(name string) (at int, found bool) {
	return slices.BinarySearchFunc(s.subs, name, func(sub subscription, name string) int { return strings.Compare(sub.name, name) })
}

// subscribe adds channels, each with its start. One that the session has goes
// on, unless it is to start again. mu is held, and flush is to be called.
func (s *Session) subscribe(names []string, from []halley.Cursor, again []bool) {
	for i, name := range names {
		at, found := s.find(name)
		if found && !again[i] {
			continue
		}
		if !found {
			s.subs = slices.Insert(s.subs, at, subscription{name: name})
		}
		sub := &s.subs[at]
		sub.from, sub.own, sub.replay, sub.fresh = from[i], true, again[i], true
		if s.held != nil {
			sub.altered = s.held.altered + 1
			if s.add == nil {
				s.add = map[string]halley.Cursor{}
			}
			s.add[name] = from[i]
		}
	}
}

// unsubscribe removes channels; those that are not there are ignored. mu is
// held, and flush is to be called.
func (s *Session) unsubscribe(names []string) {
	gone := make(map[string]bool, len(names))
	for _, name := range names {
		gone[name] = true
		delete(s.add, name)
	}
	s.subs = slices.DeleteFunc(s.subs, func(sub subscription) bool { return gone[sub.name] })
	if s.held != nil {
		s.drop = append(s.drop, names...)
	}
}

// flush has what is held go on with the channels that there are now.
func (s *Session) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.held; c != nil && len(s.add)+len(s.drop) > 0 {
		c.altered++
		c.poll.Alter(s.add, s.drop)
	}
	s.add, s.drop = nil, nil
}

// starts sets what a poll begins with. mu is held.
func (s *Session) starts(p *halley.Poll) {
	s.add, s.drop = nil, nil
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

// took notes that a reply is made of what a poll has brought, and of what waits
// in the queue, which it returns. mu is held.
func (s *Session) took(c *connect, a *halley.PollAnswer) (queued []json.RawMessage) {
	queued = s.queue[s.sent:]
	if len(a.Messages)+len(queued) > 0 || a.Gap {
		s.setMark(c)
		if s.handler.shared == nil {
			s.batch++
		} else {
			s.batch = nextBatch(s.batch, a.Position)
			if !s.ack || a.Altered > 0 || slices.ContainsFunc(s.subs, func(sub subscription) bool { return sub.replay }) {
				s.changed()
			}
		}
	}
	// A replay may stand before where the others are.
	if a.Position.Epoch != s.cursor.Epoch {
		s.mixed = true
		s.changed()
	}
	before, back := s.cursor, a.Position.Epoch == s.cursor.Epoch && a.Position.Seq < s.cursor.Seq
	s.cursor = a.Position
	for i := range s.subs {
		sub := &s.subs[i]
		later := sub.own && sub.from.Epoch == a.Position.Epoch && sub.from.Seq > a.Position.Seq
		switch {
		case sub.altered > a.Altered || later: // it has still to come there
		case back && !sub.own:
			sub.from, sub.own = before, true
		default:
			if sub.own {
				sub.since = a.Position
			}
			sub.own, sub.replay, sub.fresh = false, false, false
		}
	}
	if s.handler.options.IdleDeliveries && len(a.Messages) > 0 {
		s.active = time.Now()
	}
	s.sent = len(s.queue)
	return queued
}

// correct makes an answer what it would be had the connect's poll known of all
// changes of its channels. What lies after the start of a subscription that it did
// not know is left to the next one, which has both in their order. mu is held.
func (s *Session) correct(c *connect, a *halley.PollAnswer) {
	late, end := a.Altered < c.altered, a.Position
	for i := range s.subs {
		sub := &s.subs[i]
		if sub.altered <= a.Altered {
			continue
		}
		late = true
		if !a.Gap && !sub.replay && sub.from.Epoch == end.Epoch && sub.from.Seq < end.Seq {
			end = sub.from
		}
	}
	if !late {
		return
	}
	var messages [][]byte
	var of []*halley.Message
	for i, m := range a.Of {
		if m.ID.Epoch == end.Epoch && m.ID.Seq > end.Seq {
			break
		}
		if slices.ContainsFunc(s.subs, func(sub subscription) bool {
			return sub.altered <= a.Altered && engine.Match(sub.name, m.Channel)
		}) {
			messages, of = append(messages, a.Messages[i]), append(of, m)
		}
	}
	a.Messages, a.Of, a.Position = messages, of, end
}

// had tells whether the client has had a message by a subscription that is
// further than the one that it came by now. mu is held, and took has not been
// called.
func (s *Session) had(m *halley.Message) bool {
	had := false
	for i := range s.subs {
		sub := &s.subs[i]
		at := s.cursor
		if sub.own {
			at = sub.from
		}
		before := at.Epoch != m.ID.Epoch || at.Seq < m.ID.Seq
		switch {
		case sub.fresh && !(sub.replay && before), !engine.Match(sub.name, m.Channel):
		case !before:
			had = true
		case sub.replay:
			return false // it is wanted again
		}
	}
	return had
}

// overlaps tells whether an answer may have what the client has had: by a
// subscription that is behind others, and may be gone by now. mu is held.
func (s *Session) overlaps(a *halley.PollAnswer) bool {
	if len(a.Of) == 0 {
		return false
	}
	first := a.Of[0].ID
	return first.Epoch == s.cursor.Epoch && first.Seq <= s.cursor.Seq ||
		slices.ContainsFunc(s.subs, func(sub subscription) bool { return sub.own && !sub.fresh })
}

// setMark notes where the session stands.
func (s *Session) setMark(c *connect) {
	s.mark = &mark{cursor: s.cursor, by: c}
	for _, sub := range s.subs {
		if sub.own {
			if s.mark.from == nil {
				s.mark.from = map[string]halley.Cursor{}
			}
			s.mark.from[sub.name] = sub.from
		}
	}
}

// arrived notes that the client has had the last reply. mu is held.
func (s *Session) arrived() {
	s.mark = nil
	if s.mixed {
		s.mixed = false
		s.changed()
	}
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

// eventID returns what tells how much of a stream has come: the position, and
// the batch for what is in no log. mu is held.
func (s *Session) eventID() string {
	return s.cursor.String() + "," + strconv.FormatInt(s.batch, 10)
}

func parseEventID(id string) (at halley.Cursor, batch int64, ok bool) {
	position, number, _ := strings.Cut(id, ",")
	at, err := halley.ParseCursor(position)
	batch, e := strconv.ParseInt(number, 10, 64)
	return at, batch, err == nil && e == nil
}

// resume has a stream go on after what its client had at last, by an eventID;
// empty if it had nothing. mu is held.
func (s *Session) resume(after string) {
	if after == "" {
		after = s.stream // the client had none of that one either
	}
	at, batch, ok := parseEventID(after)
	switch {
	case s.stream == "":
		if s.mark != nil && s.mark.lost {
			s.rewind()
		}
	case !ok || at.Epoch != s.cursor.Epoch || at.Seq > s.cursor.Seq: // nobody gave it that
	case batch == s.batch:
		s.arrived()
	default:
		s.mark, s.sent = nil, 0
		s.cursor = at
		for i := range s.subs {
			if sub := &s.subs[i]; sub.since.Seq > at.Seq {
				sub.own, sub.fresh = true, true
			}
		}
	}
	s.stream = s.eventID()
}

// settle finds out whether the last reply has arrived, by the connect that
// follows it. mu is held.
//
// A client with the extension ack says so. Others do by what they send: Faye
// repeats a connect that failed, with its id. CometD asks to be answered at once
// after one, by another connection. That is no proof for a client that has never
// let a connect be held: it only polls.
func (s *Session) settle(c *connect) {
	m := c.m
	if m.timeout != 0 {
		s.asked, s.waits = 0, true
	}
	if s.mark == nil {
		s.arrived()
		return
	}
	by := s.mark.by
	again := s.mark.lost
	switch {
	case again:
	case s.retries:
		again = m.id != nil && string(m.id) == string(by.m.id)
	case m.timeout == 0 && c.alone && !c.follows(by.remote):
		again = s.waits || s.asked < manyRepeats
		s.asked++
	}
	again = again && !c.confirms
	if n, ok := m.number("ack"); ok && s.ack {
		again = !sameBatch(n, s.batch)
	}
	if again {
		s.rewind()
	} else {
		s.arrived()
	}
}

// manyRepeats is how often a reply is made again, at most, for a client that may
// only poll.
const manyRepeats = 10

// follows tells whether a connect came by the connection that a reply went to, which has arrived then. What a proxy has passed on may have
// come by any.
func (c *connect) follows(remote string) bool { return c.remote != "" && c.remote == remote }

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
