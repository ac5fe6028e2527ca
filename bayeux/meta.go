package bayeux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// An exchange is a request's messages and the replies to them.
type exchange struct {
	handler *Handler
	w       http.ResponseWriter // nil where there is no header to set
	r       *http.Request
	browser string // by its cookie; empty if it has none
	socket  bool   // it is a message over a WebSocket
	alone   bool   // there is one message

	client  *halley.Client // of the request, once it is known
	problem error          // why it is not
	replies [][]byte
	altered []*Session // whose channels are others now
	replays int        // positions that were looked for
	moved   int        // times that a session was another node's meanwhile

	// connect is the one that the answer waits for, nil if there is none.
	connect       *connect
	connectClient *halley.Client
	timeout       time.Duration
}

// run replies to messages in their order. What is sent along with a handshake
// is ignored ("Handshake Request").
func (x *exchange) run(messages []message) {
	if i := slices.IndexFunc(messages, func(m message) bool { return m.channel == "/meta/handshake" }); i >= 0 {
		messages = messages[i : i+1]
	}
	x.alone = len(messages) == 1
	for i := range messages {
		x.message(&messages[i])
	}
	for _, s := range x.altered {
		s.flush()
	}
}

func (x *exchange) message(m *message) {
	switch {
	case m.fault != "":
		x.refuse(m, m.fault, "")
	case m.channel == "/meta/handshake":
		x.handshake(m)
	case m.channel == "/meta/connect":
		x.doConnect(m)
	case m.channel == "/meta/subscribe":
		x.subscribe(m)
	case m.channel == "/meta/unsubscribe":
		x.unsubscribe(m)
	case m.channel == "/meta/disconnect":
		x.disconnect(m)
	case isMeta(m.channel):
		x.refuse(m, fault(404, m.channel, "there is no such channel"), "")
	default:
		x.publish(m)
	}
}

// isMeta tells the channels of the protocol itself ("Meta Channels").
func isMeta(channel string) bool { return channel == "/meta" || strings.HasPrefix(channel, "/meta/") }

func isService(channel string) bool {
	return channel == "/service" || strings.HasPrefix(channel, "/service/")
}

// add appends a reply to a message, with what every reply has.
func (x *exchange) add(m *message, r *reply) {
	x.handler.stamp(r)
	x.replies = append(x.replies, r.end())
}

// refuse replies that a message was not done. Advice is empty for none.
func (x *exchange) refuse(m *message, text, advice string) {
	r := newReply(m, false).text("error", text)
	switch m.channel {
	case "/meta/subscribe", "/meta/unsubscribe":
		r.subscription(m)
	case "/meta/handshake":
		r.text("version", "1.0")
		r.raw("supportedConnectionTypes", typesJSON)
		if advice == "" {
			advice = `{"reconnect":"none"}`
		}
	}
	if advice != "" {
		r.raw("advice", []byte(advice))
	}
	x.add(m, r)
}

var typesJSON, _ = json.Marshal(connectionTypes) // strings always can

// subscription echoes the channels of a request, as it has them.
func (r *reply) subscription(m *message) {
	var b []byte
	if m.single {
		b, _ = json.Marshal(m.subscription[0]) // a string always can
	} else {
		b, _ = json.Marshal(append([]string{}, m.subscription...))
	}
	r.raw("subscription", b)
}

// identify finds out who makes the request, by a token that a message brings
// or as the native protocol does.
func (x *exchange) identify(token string) (*halley.Client, error) {
	if token != "" {
		return x.handler.hub.Identify(x.r, token)
	}
	if x.client == nil && x.problem == nil {
		x.client, x.problem = x.handler.hub.Identify(x.r, "")
	}
	return x.client, x.problem
}

// token returns the token that a handshake brings in ext: as its member token,
// or that of the member halley or authentication.
func token(m *message) (t string) {
	if json.Unmarshal(m.exts["token"], &t) == nil && t != "" {
		return t
	}
	for _, name := range []string{"halley", "authentication"} {
		var inner struct{ Token string }
		if json.Unmarshal(m.exts[name], &inner) == nil && inner.Token != "" {
			return inner.Token
		}
	}
	return ""
}

// What clients are told to do that have no session, or no token that is good. A
// client without one would handshake without end.
const (
	rehandshake = `{"reconnect":"handshake","interval":0}`
	newToken    = `{"reconnect":"handshake","interval":1000}`
)

// session returns the session of a message, and who makes the request: or the
// session's own client, if the request does not say. It replies if there is no
// such session, or it is another user's.
func (x *exchange) session(m *message) (*Session, *halley.Client) {
	if m.clientID == "" {
		x.refuse(m, fault(401, "", "there is no client ID"), rehandshake)
		return nil, nil
	}
	s := x.handler.Session(m.clientID)
	if s == nil {
		var refused *refusal
		if s, refused = x.elsewhere(m, isMeta(m.channel) || isService(m.channel)); refused != nil {
			x.refuse(m, refused.text, refused.advice)
			return nil, nil
		}
	}
	if s == nil {
		x.refuse(m, fault(402, m.clientID, "the client ID is not known"), rehandshake)
		return nil, nil
	}
	client := s.holder()
	if s.bound || x.handler.hub.HasCredentials(x.r) {
		var err error
		if client, err = x.identify(""); err != nil {
			x.refuse(m, errorText(err, m.clientID), adviceFor(err))
			return nil, nil
		}
		if client.Grant().User != s.user || s.bound && s.user == "" && !client.HasToken() {
			x.refuse(m, fault(403, m.clientID, "the client ID is another user's"), `{"reconnect":"none"}`)
			return nil, nil
		}
	}
	err := client.Check()
	if err == nil {
		err = s.adopt(client)
	}
	if err != nil {
		x.handler.end(s) // it would be held by what is good no more
		x.refuse(m, errorText(err, m.clientID), newToken)
		return nil, nil
	}
	return s, client
}

// adviceFor tells a client what to do about an error of its credentials.
func adviceFor(err error) string {
	if p, ok := errors.AsType[*halley.Problem](err); ok && p.Temporary() {
		return retryAdvice(p)
	}
	return newToken
}

// handshake makes a session ("Handshake").
func (x *exchange) handshake(m *message) {
	h := x.handler
	switch {
	case m.version == "":
		x.refuse(m, fault(400, "version", "the field is missing"), "")
		return
	case !strings.HasPrefix(m.version, "1"):
		x.refuse(m, fault(300, m.version, "this server speaks version 1.0"), "")
		return
	case m.supported == nil:
		x.refuse(m, fault(400, "supportedConnectionTypes", "the field is missing"), "")
		return
	case !common(m.supported):
		x.refuse(m, fault(301, strings.Join(m.supported, ","), "no connection type is one of this server"), "")
		return
	}
	shown := token(m)
	client, err := x.identify(shown)
	if err == nil {
		err = client.Check()
	}
	if err != nil {
		advice := `{"reconnect":"none"}`
		if p, ok := errors.AsType[*halley.Problem](err); ok && p.Temporary() {
			advice = `{"reconnect":"handshake","interval":` + strconv.FormatInt(p.RetryAfter.Milliseconds(), 10) + `}`
		}
		x.refuse(m, errorText(err, ""), advice)
		return
	}
	s := &Session{
		handler: h, id: newID(), pause: h.options.Interval, client: client, owner: client.Owner(), user: client.Grant().User,
		bound:   shown == "" && (client.HasToken() || client.Grant().User != ""),
		retries: slices.Contains(m.supported, "in-process") || slices.Contains(m.supported, crossOrigin),
		ack:     m.truthy("ack"), replay: m.truthy("replay"), cursor: h.hub.End(), active: time.Now(),
	}
	s.browser = x.browser
	newBrowser := s.browser == "" && !x.socket
	if newBrowser {
		s.browser = newID()
	}
	if h.shared != nil {
		s.recorded.key, s.recorded.secret = splitID(s.id)
	}
	if !h.addSession(s) {
		x.refuse(m, fault(503, "", "there are as many sessions as there may be"), `{"reconnect":"handshake","interval":10000}`)
		return
	}
	if h.shared != nil {
		// The client's next request may come to another node.
		if err := h.write(x.r.Context(), s); err != nil {
			h.end(s)
			p := away()
			x.refuse(m, errorText(p, ""), `{"reconnect":"handshake","interval":`+strconv.FormatInt(p.RetryAfter.Milliseconds(), 10)+`}`)
			return
		}
	}
	if newBrowser {
		http.SetCookie(x.w, &http.Cookie{ // #nosec G124 -- no right hangs on it: it tells browsers apart
			Name: browserCookie, Value: s.browser, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: x.r.TLS != nil,
		})
	}
	s.mu.Lock()
	s.wait()
	s.mu.Unlock()
	r := newReply(m, true).text("clientId", s.id).text("version", "1.0").text("minimumVersion", "1.0")
	r.raw("supportedConnectionTypes", typesJSON).raw("authSuccessful", []byte("true"))
	var ext []string
	if s.ack {
		ext = append(ext, `"ack":true`)
	}
	if s.replay {
		ext = append(ext, `"replay":true`)
	}
	if t := timesync(m, time.Now()); t != "" {
		ext = append(ext, t)
	}
	if len(ext) > 0 {
		r.raw("ext", []byte("{"+strings.Join(ext, ",")+"}"))
	}
	x.add(m, r.raw("advice", []byte(h.advice)))
}

// isIdle tells whether a session's client has done nothing but connect for too
// long. The session's mu is held.
func (h *Handler) isIdle(s *Session) bool {
	return h.options.IdleTimeout > 0 && time.Since(s.active) > h.options.IdleTimeout
}

// doConnect has the answer wait for what there is to be delivered ("Connect").
func (x *exchange) doConnect(m *message) {
	s, client := x.session(m)
	if s == nil {
		return
	}
	h := x.handler
	switch {
	case m.connectionType == "":
		x.refuse(m, fault(400, "connectionType", "the field is missing"), h.advice)
		return
	case !slices.Contains(connectionTypes, m.connectionType):
		x.refuse(m, fault(301, m.connectionType, "the connection type is not one of this server"), h.advice)
		return
	case x.connect != nil:
		x.refuse(m, fault(400, "", "there is another connect in the request"), h.advice)
		return
	}
	s.mu.Lock()
	idle := h.isIdle(s)
	streams := s.streaming != 0
	if s.held != nil {
		h.browserLeft(s.held) // this one takes its place
	}
	s.mu.Unlock()
	if idle {
		h.end(s)
		x.refuse(m, fault(402, s.id, "the session was idle for too long"), `{"reconnect":"none"}`)
		return
	}
	if m.connectionType == eventSource {
		// What is delivered comes by the stream.
		r := newReply(m, true)
		s.mu.Lock()
		s.pause = h.options.Timeout
		s.wait()
		s.mu.Unlock()
		r.raw("advice", []byte(`{"reconnect":"retry","interval":`+strconv.FormatInt(h.options.Timeout.Milliseconds(), 10)+`,"timeout":0}`))
		x.add(m, r)
		return
	}
	c := &connect{m: m, session: s, pause: h.options.Interval, alone: x.alone}
	x.connect, x.connectClient, x.timeout = c, client, h.timeout(m)
	if !x.alone {
		x.timeout = 0 // the other replies are waited for
	}
	switch {
	case x.timeout == 0 && streams:
		// Faye sends such a one while its stream is opened: that goes on.
		x.connect = nil
		x.replies = append(x.replies, h.connectReply(c, newReply(m, true), nil))
	case x.timeout > 0 && !x.socket && x.r.ProtoMajor == 1 && !h.browserHolds(c, s.browser):
		x.timeout, c.pause = 0, h.options.MultiSessionInterval
		c.advice = `{"reconnect":"retry","interval":` + strconv.FormatInt(h.options.MultiSessionInterval.Milliseconds(), 10) +
			`,"timeout":` + strconv.FormatInt(h.options.Timeout.Milliseconds(), 10) + `,"multiple-clients":true}`
	}
}

// disconnect ends a session ("Disconnect").
func (x *exchange) disconnect(m *message) {
	s, _ := x.session(m)
	if s == nil {
		return
	}
	s.mu.Lock()
	s.left = true
	held := s.held
	s.mu.Unlock()
	x.handler.end(s)
	if x.handler.shared != nil {
		_ = x.handler.write(x.r.Context(), s) // what fails is written later
	}
	if held != nil && held.written != nil {
		// CometD closes its WebSocket when this reply is the last.
		select {
		case <-held.written:
		case <-time.After(time.Second):
		}
	}
	x.add(m, newReply(m, true).text("clientId", s.id))
}

// channels returns the names of a subscribe or unsubscribe request, without
// their slashes; those of service channels are left out, as nothing is
// delivered there that was subscribed to.
func channels(m *message, max int) (names []string, fail string) {
	if len(m.subscription) == 0 {
		return nil, fault(400, "subscription", "the field is missing")
	}
	if len(m.subscription) > max {
		return nil, fault(429, "", fmt.Sprintf("a session may have %d subscriptions", max))
	}
	seen := make(map[string]bool, len(m.subscription))
	for _, channel := range m.subscription {
		switch {
		case isMeta(channel):
			return nil, fault(403, channel, "the channel is the protocol's own")
		case !strings.HasPrefix(channel, "/"):
			return nil, fault(400, channel, "a channel begins with a slash")
		case isService(channel):
			if engine.CheckPattern("x"+channel) != nil {
				return nil, fault(400, channel, "the channel is not valid")
			}
			continue
		}
		if err := engine.CheckPattern(channel[1:]); err != nil {
			return nil, fault(400, channel, "the channel is not valid")
		}
		if !seen[channel] {
			seen[channel] = true
			names = append(names, channel[1:])
		}
	}
	return names, ""
}

// named returns what session returns, and the channels that a message names. It
// replies if there is something wrong with either.
func (x *exchange) named(m *message) (*Session, *halley.Client, []string) {
	s, client := x.session(m)
	if s == nil {
		return nil, nil, nil
	}
	names, fail := channels(m, x.handler.options.MaxSubscriptions)
	if fail != "" {
		x.refuse(m, fail, "")
		return nil, nil, nil
	}
	return s, client, names
}

// subscribe adds channels to a session, or none of them ("Subscribe").
func (x *exchange) subscribe(m *message) {
	s, client, names := x.named(m)
	if s == nil {
		return
	}
	if err := client.CheckSubscribe(names...); err != nil {
		x.refuse(m, errorText(err, strings.Join(m.subscription, ",")), "")
		return
	}
	from, again, err := x.replay(m, s, names)
	if err != nil {
		x.refuse(m, errorText(err, strings.Join(m.subscription, ",")), "")
		return
	}
	s.mu.Lock()
	s.active = time.Now()
	// What a poll has brought until now does not lie after it.
	end := x.handler.hub.End()
	var added []string
	for i, name := range names {
		if !again[i] {
			from[i] = end
		}
		if _, found := s.find(name); !found {
			added = append(added, name)
		}
	}
	full := len(s.subs)+len(added) > x.handler.options.MaxSubscriptions
	ended, moved := s.ended, s.moved
	if !full && !ended {
		s.subscribe(names, from, again)
		x.alters(s)
	}
	s.mu.Unlock()
	if !full && !ended && x.handler.shared != nil && (len(added) > 0 || slices.Contains(again, true)) {
		// Who is told of it must have it at another node too.
		switch err := x.handler.write(x.r.Context(), s); {
		case x.handler.taken(s, err):
			moved = true
		case err != nil:
			s.mu.Lock()
			s.unsubscribe(added)
			s.mu.Unlock()
			x.refuse(m, errorText(away(), strings.Join(m.subscription, ",")), "")
			return
		}
	}
	switch {
	case moved && x.moved < maxMoved: // just now
		x.moved++
		x.subscribe(m)
	case moved:
		x.refuse(m, errorText(away(), strings.Join(m.subscription, ",")), "")
	case ended:
		x.refuse(m, fault(402, s.id, "the session has ended"), rehandshake)
	case full:
		x.refuse(m, fault(429, "", fmt.Sprintf("a session may have %d subscriptions", x.handler.options.MaxSubscriptions)), "")
	default:
		r := newReply(m, true).text("clientId", s.id)
		r.subscription(m)
		if t := timesync(m, time.Now()); t != "" {
			r.raw("ext", []byte("{"+t+"}"))
		}
		x.add(m, r)
	}
}

// maxMoved is how often a message follows its session, at most, while other
// nodes take that.
const maxMoved = 3

// alters has a session's channels be told to what is held once all messages are
// done.
func (x *exchange) alters(s *Session) {
	if !slices.Contains(x.altered, s) {
		x.altered = append(x.altered, s)
	}
}

// replay returns where channels start that the extension replay gives a
// position (Salesforce), and which do.
func (x *exchange) replay(m *message, s *Session, names []string) (from []halley.Cursor, given []bool, err error) {
	from, given = make([]halley.Cursor, len(names)), make([]bool, len(names))
	var positions map[string]json.RawMessage
	if !s.replay || json.Unmarshal(m.exts["replay"], &positions) != nil {
		return from, given, nil
	}
	end := x.handler.hub.End()
	for i, name := range names {
		text := positions["/"+name]
		if text == nil || string(text) == "-1" {
			continue
		}
		if x.replays++; x.replays > x.handler.options.MaxSubscriptions {
			return nil, nil, fmt.Errorf("%d replay positions in one request, at most %d", x.replays, x.handler.options.MaxSubscriptions)
		}
		if from[i], err = x.replayFrom(name, string(text), end); err != nil {
			return nil, nil, fmt.Errorf("/%s: %w", name, err)
		}
		given[i] = true
	}
	return from, given, nil
}

// replayFrom returns where a channel starts: -2 is the oldest message, and
// other numbers are positions that messages had. A position can also be a
// cursor of the native protocol, which knows of the log that it is of.
func (x *exchange) replayFrom(name, text string, end halley.Cursor) (from halley.Cursor, err error) {
	q := halley.Query{Channels: []string{name}, Limit: 1}
	var cursor string
	switch n, e := strconv.ParseInt(text, 10, 64); {
	case e == nil && n == -2:
		page, err := x.handler.hub.Read(x.r.Context(), q)
		if err != nil || len(page.Messages) == 0 {
			return end, err
		}
		from = page.Messages[0].ID
		from.Seq-- // a position of its own, or what is missing of other channels would not be told
		return from, nil
	case e == nil && n >= 0:
		from = halley.Cursor{Epoch: end.Epoch, Seq: uint64(n)}
	case json.Unmarshal([]byte(text), &cursor) == nil:
		if from, err = halley.ParseCursor(cursor); err != nil {
			return from, fmt.Errorf("the replay position %.60s is not valid", text)
		}
	default:
		return from, fmt.Errorf("the replay position %.60s is not valid: it is -1, -2 or a position", text)
	}
	if from.Epoch != end.Epoch || from.Seq > end.Seq {
		return from, fmt.Errorf("the replay position %.60s is not of this log: -2 has all there is, -1 what is new", text)
	}
	q.After = from
	page, err := x.handler.hub.Read(x.r.Context(), q)
	if err == nil && page.Gap {
		err = fmt.Errorf("the replay position %.60s is too old: later messages are gone; -2 has all there is, -1 what is new", text)
	}
	return from, err
}

// unsubscribe removes channels ("Unsubscribe").
func (x *exchange) unsubscribe(m *message) {
	s, _, names := x.named(m)
	if s == nil {
		return
	}
	s.mu.Lock()
	s.active = time.Now()
	if !s.ended {
		s.unsubscribe(names)
		x.alters(s)
	}
	moved := s.moved
	s.mu.Unlock()
	if x.handler.shared != nil {
		err := x.handler.write(x.r.Context(), s) // what fails is written later
		if x.handler.taken(s, err) || moved {
			if x.moved++; x.moved <= maxMoved {
				x.unsubscribe(m)
				return
			}
		}
	}
	r := newReply(m, true).text("clientId", s.id)
	r.subscription(m)
	x.add(m, r)
}

// publish stores a message, or gives it to a service ("Publish"). It needs no
// handshake.
func (x *exchange) publish(m *message) {
	var s *Session
	var client *halley.Client
	if m.clientID != "" {
		if s, client = x.session(m); s == nil {
			return
		}
		s.mu.Lock()
		s.active = time.Now()
		s.mu.Unlock()
	} else {
		var err error
		if client, err = x.identify(token(m)); err == nil {
			err = client.Check()
		}
		if err != nil {
			x.refuse(m, errorText(err, ""), "")
			return
		}
	}
	switch {
	case !strings.HasPrefix(m.channel, "/") || engine.CheckChannel("x"+m.channel) != nil:
		x.refuse(m, fault(400, m.channel, "the channel is not valid"), "")
		return
	case m.data == nil:
		x.refuse(m, fault(400, "data", "the field is missing"), "")
		return
	case isService(m.channel):
		x.service(m, s, client)
		return
	}
	stored, err := x.handler.toLog(m)
	if err == nil {
		err = client.CheckPublish(stored)
	}
	if err != nil {
		x.refuse(m, errorText(err, m.channel), "")
		return
	}
	if err := x.store(m, s, stored); err != nil {
		x.refuse(m, errorText(err, m.channel), "")
		return
	}
	x.add(m, newReply(m, true))
}

// maxKey is the length of a key that a message is stored once under.
const maxKey = 256

// store appends a message to the log. Faye repeats a message whose reply it has
// not seen, with its id: so that is stored once.
func (x *exchange) store(m *message, s *Session, stored halley.Message) error {
	b := halley.Batch{Messages: []halley.Message{stored}}
	if s != nil && s.retries && m.id != nil {
		b.Key = "bayeux " + m.clientID + " " + string(m.id) + " " + stored.Headers[extHeader]
		if len(b.Key) > maxKey {
			b.Key = ""
		}
	}
	_, err := x.handler.hub.PublishBatch(x.r.Context(), b)
	if errors.Is(err, halley.ErrKeyReused) { // ids need not be unique
		_, err = x.handler.hub.Publish(x.r.Context(), stored)
	}
	switch {
	case errors.Is(err, halley.ErrUnavailable), errors.Is(err, halley.ErrClosed), errors.Is(err, context.Canceled):
		return &halley.Problem{Status: 503, Title: "the log is not available"}
	case err != nil:
		return err
	}
	return nil
}

// service has a handler called for a message that is in no log ("Service
// Channels").
func (x *exchange) service(m *message, s *Session, client *halley.Client) {
	c := &Call{Session: s, Client: client, Channel: m.channel, Data: m.data, Ext: m.ext, id: m.id}
	if f := x.handler.service(m.channel); f != nil {
		f(c)
	}
	x.add(m, newReply(m, true))
	x.replies = append(x.replies, c.replies...)
}
