package bayeux

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// The names of the transports ("supportedConnectionTypes").
const (
	longPolling  = "long-polling"
	crossOrigin  = "cross-origin-long-polling" // Faye's
	callbackPoll = "callback-polling"
	webSocket    = "websocket"
	eventSource  = "eventsource" // Faye's
)

var connectionTypes = []string{longPolling, crossOrigin, callbackPoll, webSocket, eventSource}

// A Handler serves Bayeux at any path below where it is mounted.
type Handler struct {
	hub     *halley.Hub
	options Options
	plain   *halley.Polls // the sessions', without positions and with
	replay  *halley.Polls
	advice  string // to a connect

	replacedAdvice string // to one in whose place another has come

	mu        sync.Mutex
	sessions  map[string]*Session  // guarded by mu
	owners    map[string]int       // guarded by mu: sessions of each
	addresses map[string]int       // guarded by mu: WebSockets of each
	browsers  map[string]int       // guarded by mu: connects that are held
	sockets   map[*socket]struct{} // guarded by mu
	closed    bool                 // guarded by mu
	keys      map[string]*Session  // guarded by mu: by their records, where nodes share them
	shared    *sharing             // nil for a lone node
	services  map[string]func(*Call)
	running   sync.WaitGroup
}

var _ http.Handler = (*Handler)(nil)

// New returns a handler for a hub, which is to be closed after it. The error
// names the field of opts at fault.
func New(hub *halley.Hub, opts *Options) (*Handler, error) {
	if hub == nil {
		return nil, errors.New("bayeux: no hub")
	}
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Handler{
		hub: hub, options: o, sessions: map[string]*Session{}, keys: map[string]*Session{}, browsers: map[string]int{}, sockets: map[*socket]struct{}{}, owners: map[string]int{}, addresses: map[string]int{}, services: map[string]func(*Call){},
		plain:  hub.NewPolls(framing{timestamp: o.Timestamp}.append),
		replay: hub.NewPolls(framing{replay: true, timestamp: o.Timestamp}.append),
	}
	advice := func(interval time.Duration) string {
		return `{"reconnect":"retry","interval":` + strconv.FormatInt(interval.Milliseconds(), 10) +
			`,"timeout":` + strconv.FormatInt(o.Timeout.Milliseconds(), 10) +
			`,"maxInterval":` + strconv.FormatInt(o.MaxInterval.Milliseconds(), 10) + `}`
	}
	h.advice, h.replacedAdvice = advice(o.Interval), advice(max(o.Interval, time.Second))
	h.share()
	return h, nil
}

func (h *Handler) pollsFor(s *Session) *halley.Polls {
	if s.replay {
		return h.replay
	}
	return h.plain
}

// Sessions returns the number of sessions.
func (h *Handler) Sessions() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.sessions)
}

// Session returns a session by its client ID, nil if there is none.
func (h *Handler) Session(id string) *Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sessions[id]
}

// Close ends all sessions; or, where other nodes are on the log, leaves them to
// those.
func (h *Handler) Close() error {
	h.mu.Lock()
	closed := h.closed
	h.closed = true
	all := make([]*Session, 0, len(h.sessions))
	for _, s := range h.sessions {
		all = append(all, s)
	}
	for c := range h.sockets {
		_ = c.conn.Close()
	}
	h.mu.Unlock()
	if h.shared != nil && !closed {
		h.leave(all)
	}
	for _, s := range all {
		h.end(s)
	}
	h.running.Wait()
	return nil
}

func (h *Handler) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// end ends a session: what is held for it is answered.
func (h *Handler) end(s *Session) {
	h.forget(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	s.queue, s.subs, s.mark = nil, nil, nil
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.held != nil {
		s.held.poll.Finish()
	}
	if sh := h.shared; sh != nil {
		sh.mu.Lock()
		sh.ended = append(sh.ended, s)
		sh.mu.Unlock()
	}
}

// forget has a session be none of the handler's any more.
func (h *Handler) forget(s *Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[s.id] == s {
		delete(h.sessions, s.id)
		delete(h.keys, s.recorded.key)
		count(h.owners, s.owner, -1)
	}
}

// addSession reports false if there are as many as there may be.
func (h *Handler) addSession(s *Session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.sessions) >= h.options.MaxSessions || full(h.owners, s.owner, h.options.MaxSessionsPerUser) {
		return false
	}
	count(h.owners, s.owner, 1)
	h.sessions[s.id] = s
	if h.shared != nil {
		h.keys[s.recorded.key] = s
	}
	return true
}

// full tells whether one has as many of something as one may; "" has no limit.
func full(counts map[string]int, who string, most int) bool {
	return who != "" && most > 0 && counts[who] >= most
}

func count(counts map[string]int, who string, n int) {
	if counts[who] += n; counts[who] == 0 || who == "" {
		delete(counts, who)
	}
}

// addSocket reports false if there are as many as there may be, or once the
// handler is closed.
func (h *Handler) addSocket(c *socket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.sockets) >= h.options.MaxSessions || full(h.addresses, c.address, h.options.MaxSocketsPerAddress) {
		return false
	}
	count(h.addresses, c.address, 1)
	h.running.Add(1)
	h.sockets[c] = struct{}{}
	return true
}

func (h *Handler) removeSocket(c *socket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sockets, c)
	count(h.addresses, c.address, -1)
	h.running.Done()
}

// browserHolds counts a connect in, and reports false if its browser holds as
// many as it may.
func (h *Handler) browserHolds(c *connect, browser string) bool {
	if browser == "" || h.options.MaxSessionsPerBrowser < 0 {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.browsers[browser] >= h.options.MaxSessionsPerBrowser {
		return false
	}
	h.browsers[browser]++
	c.browser = browser
	return true
}

// browserLeft counts it out.
func (h *Handler) browserLeft(c *connect) {
	if c.browser == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.browsers[c.browser]--; h.browsers[c.browser] == 0 {
		delete(h.browsers, c.browser)
	}
	c.browser = ""
}

// A Call is a message to a service channel.
type Call struct {
	// Session is whose message it is; nil for a client without a handshake.
	Session *Session
	// Client is who sends it.
	Client *halley.Client
	// Channel is such as "/service/echo".
	Channel string
	// Data is JSON, and so is Ext, an object or nil.
	Data, Ext []byte

	id      []byte
	replies [][]byte
}

// Reply delivers data to the client alone, on the channel of the call and with
// its id. Errors are those of Session.Deliver.
func (c *Call) Reply(data any) error {
	if c.Session != nil {
		return c.Session.deliver(c.Channel, c.id, data)
	}
	b, err := serviceMessage(c.Channel, c.id, data)
	if err == nil {
		c.replies = append(c.replies, b)
	}
	return err
}

// HandleService has a function called with every message to a service channel,
// such as "/service/echo", or to all below one, as "/service/**". It is called
// by who serves the request, and answers with Call.Reply. It is to be set
// before requests are served. It panics if the channel is no service channel.
func (h *Handler) HandleService(channel string, f func(*Call)) {
	if !strings.HasPrefix(channel, "/service/") || engine.CheckPattern("x"+channel) != nil {
		panic("bayeux: " + channel + " is no service channel")
	}
	h.services[channel] = f
}

// service returns who serves a channel, nil if nobody does.
func (h *Handler) service(channel string) func(*Call) {
	if f := h.services[channel]; f != nil {
		return f
	}
	best := ""
	for pattern := range h.services {
		if len(pattern) > len(best) && engine.Match("x"+pattern, "x"+channel) {
			best = pattern
		}
	}
	return h.services[best]
}

// errorText returns an error as replies have it: a Problem's status and words,
// or what is wrong with a message.
func errorText(err error, args string) string {
	if p, ok := errors.AsType[*halley.Problem](err); ok {
		return fault(p.Status, args, p.Error())
	}
	return fault(400, args, err.Error())
}

// common tells whether one of the connection types is served here.
func common(types []string) bool {
	return slices.ContainsFunc(types, func(t string) bool { return slices.Contains(connectionTypes, t) })
}
