package halley

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/transport"
	"github.com/halley-comet/halley/internal/wire"
)

// A front end is a protocol that clients speak. The native one is the hub's
// own. Others are handlers that stand beside it: they read their own requests,
// and use what is here to find out who makes them (Identify), to store
// (Client.Publish), and to hold requests until there is something to say
// (NewPolls). Package bayeux is one.

// A Problem is an error as clients are told it (RFC 9457).
type Problem = wire.Problem

// Guard checks what every request to a front end must keep: the Host that it
// names, and the Origin of the page that makes it. It sets the headers that
// every response has, those of CORS among them, and answers OPTIONS. Methods
// are those that there are, as Allow has them ("GET, POST"). It reports false
// if the request has been answered.
func (h *Hub) Guard(w http.ResponseWriter, r *http.Request, methods string) bool {
	header := w.Header()
	p := h.begin(header, r)
	allowCredentials(header)
	switch {
	case p != nil:
	case r.Method == http.MethodOptions:
		header.Set("Allow", methods+", OPTIONS")
		h.setPreflight(header, r, methods)
		w.WriteHeader(http.StatusNoContent)
		return false
	case !allows(methods, r.Method):
		p = wire.NewProblem(wire.MethodNotAllowed, fmt.Sprintf("%.20q is not allowed here", r.Method))
		p.Allow = methods + ", OPTIONS"
	default:
		p = h.checkOrigin(r)
	}
	if p != nil {
		h.refuse(w, p)
		return false
	}
	return true
}

// allowCredentials has pages of the origins that may read an answer ask for it
// with credentials. Clients of other protocols may always do so, and browsers
// then give the answer to the page only if it says so. A token in a cookie is
// taken from pages of listed origins alone, whatever this says.
func allowCredentials(header http.Header) {
	if header.Get("Access-Control-Allow-Origin") != "" {
		header.Set("Access-Control-Allow-Credentials", "true")
	}
}

// A Client is who makes a request to a front end.
type Client struct {
	hub    *Hub
	caller *caller
}

// Identify finds out who makes a request: by a token, where the front end has
// one from elsewhere, or else by the request as the native protocol does it:
// its Authorization header, the parameters ticket and token of its URL, or a
// cookie. Without an Authorizer everybody is alike. The error is a *Problem.
func (h *Hub) Identify(r *http.Request, token string) (*Client, error) {
	var form url.Values
	if token != "" {
		form = url.Values{"token": {token}}
		if r.Header["Authorization"] != nil {
			r = r.Clone(r.Context())
			r.Header.Del("Authorization")
		}
	} else {
		var p *wire.Problem
		if form, p = query(r); p != nil {
			return nil, p
		}
	}
	v, p := h.authorize(r, form)
	if p != nil {
		return nil, p
	}
	return &Client{h, v}, nil
}

// Grant returns what the client may do.
func (c *Client) Grant() *Grant { return c.caller.grant }

// Check returns a *Problem if what the client has shown is good no more: it was
// revoked, or has expired.
func (c *Client) Check() error {
	if p := c.hub.current(c.caller.grant); p != nil {
		return p
	}
	return nil
}

// Owner tells clients apart by whom limits are for: the user, or the address of
// one that is nobody. It is empty for those on this machine, who have no limits.
func (c *Client) Owner() string {
	switch o := c.caller.owner(); {
	case o.user != "":
		return "user " + o.user
	case o.addr.IsValid():
		return o.addr.String()
	}
	return ""
}

// LimitedAddress returns what limits of a request's address go by: the network,
// for IPv6. It is empty for this machine, which has none.
func (h *Hub) LimitedAddress(r *http.Request) string {
	if a := h.limitedAddress(r); a.IsValid() {
		return a.String()
	}
	return ""
}

// ReadBody reads a request's body as the hub does: within a time, and no more
// than so many bytes. The error is a *Problem.
func (h *Hub) ReadBody(w http.ResponseWriter, r *http.Request, max int) ([]byte, error) {
	body, p := h.readBody(w, r, int64(max))
	if p != nil {
		return nil, p
	}
	return body, nil
}

// HasCredentials tells whether a request shows a token, in whatever place the
// native protocol looks for one.
func (h *Hub) HasCredentials(r *http.Request) bool {
	if len(r.Header["Authorization"]) > 0 {
		return true
	}
	if form, err := url.ParseQuery(r.URL.RawQuery); err == nil && (form.Has("ticket") || form.Has("token")) {
		return true
	}
	_, err := r.Cookie(h.opts.TokenCookie)
	return err == nil
}

// Token returns the token that the client has shown, in whatever place; "" for
// none. It is for who has to show it to another node of a cluster.
func (c *Client) Token() string { return c.caller.token }

// HasToken tells whether the client has shown a token, be it in a cookie.
func (c *Client) HasToken() bool { return c.caller.token != "" }

// CheckSubscribe returns a *Problem if the client may not read one of some
// names and patterns, and else nil.
func (c *Client) CheckSubscribe(channels ...string) error {
	if p := c.hub.current(c.caller.grant); p != nil {
		return p
	}
	if p := c.caller.grant.maySubscribe(channels); p != nil {
		return p
	}
	return nil
}

// CheckPublish returns a *Problem if the client may not publish messages now,
// and else nil: it asks for the rights to their channels, for what the
// messages are, and for how much the client has published. The messages count
// as published then.
func (c *Client) CheckPublish(messages ...Message) error {
	if p := c.hub.current(c.caller.grant); p != nil {
		return p
	}
	for i := range messages {
		if p := c.hub.checkPublish(&messages[i]); p != nil {
			return p
		}
	}
	if p := c.hub.mayAppend(c.caller, messages); p != nil {
		return p
	}
	return nil
}

// Polls are requests that are held until there is something to answer, all of
// one front end.
type Polls struct {
	hub  *Hub
	kind *transport.FrontKind
}

// NewPolls returns a front end's polls, whose messages are written by a
// function: what it appends is shared by all polls that get the message.
func (h *Hub) NewPolls(appendMessage func(dst []byte, m *Message) []byte) *Polls {
	return &Polls{h, h.transports.NewFrontKind(&frontFraming{appendMessage, int(h.framings.Add(1)) - 1 + pump.Slots})}
}

// A frontFraming is one of a front end.
type frontFraming struct {
	appendMessage func(dst []byte, m *engine.Message) []byte
	slot          int
}

func (f *frontFraming) Slot() int { return f.slot }

func (f *frontFraming) AppendMessage(dst []byte, m *engine.Message) []byte {
	return f.appendMessage(dst, m)
}

func (*frontFraming) AppendControl(dst []byte, _ *wire.Control) []byte { return dst }

// A Poll is one request that is held. Its exported fields are set before Serve
// is called.
type Poll struct {
	// Channels are names and patterns, each once. There may be none.
	Channels []string
	// From are the starts of Channels, at the same places. The zero Cursor is
	// before the oldest message.
	From []Cursor
	// Timeout is when it is answered if there is nothing to say; 0 is at once.
	Timeout time.Duration
	// ContentType is the answer's.
	ContentType string
	// Answer returns the answer's body. It is called once, maybe before Serve
	// returns, and must not block: it may be called by who brings messages to
	// others.
	Answer func(PollAnswer) []byte
	// Gone is called if the client went before the answer, or if it is known to
	// have gone before it had all of it; by a goroutine of its own.
	Gone func()

	mu       sync.Mutex
	conn     *pump.Conn
	finished bool
	altered  atomic.Int32
}

// A PollAnswer is what a poll is answered with.
type PollAnswer struct {
	// Messages are as the function of NewPolls has written them. They are not
	// to be changed.
	Messages [][]byte
	// Of are the messages themselves, at the same places. They are shared, and
	// not to be changed either.
	Of []*Message
	// Position is where the poll stands after them.
	Position Cursor
	// Gap is set if messages may be missing before those that are here.
	Gap bool
	// Altered is how many calls of Alter hold for the answer.
	Altered int
	// Err is a *Problem if the poll ends for another reason: the client's token
	// has run out, say. Position is not set then.
	Err error
}

// OpenPoll looks at the body of a request by POST that Front has read, and
// returns the poll that answers it, of whose polls it is and whose client; or a
// nil Poll if the request is for the program's handler. Connection is what
// http.Request has for RemoteAddr; it is empty if that is a proxy's. It is called by who
// brings messages to others: it must not block. The poll may not be served, if
// the client has to come back later; then the handler gets the request too.
type OpenPoll func(body []byte, connection string) (*Polls, *Client, *Poll)

// ReadPolls has Front, which is to be called after it, read requests by POST to
// a path and those below it, where there is no Authorizer.
func (h *Hub) ReadPolls(path string, open OpenPoll) {
	if h.frontEnds == nil {
		h.frontEnds = map[string]OpenPoll{}
	}
	h.frontEnds[strings.TrimSuffix(path, "/")] = open
}

// Serve holds a request of a client, who must be allowed to read the poll's
// channels. It may return before the answer. The error is a *Problem for who
// is to come back later; then nothing was answered.
func (ps *Polls) Serve(w http.ResponseWriter, r *http.Request, c *Client, p *Poll) error {
	h := ps.hub
	p.mu.Lock()
	unlock := sync.OnceFunc(p.mu.Unlock)
	defer unlock()
	o, held, problem := ps.enter(c, p)
	if problem != nil {
		return problem
	}
	w.Header().Set("Content-Type", p.ContentType)
	front := &transport.FrontPoll{Answer: p.answer, Gone: p.gone, Back: h.frontEnds != nil && h.opts.Authorizer == nil}
	parked := false
	defer func() {
		unlock()
		h.release(held)
		if !parked {
			h.leave()
		}
	}()
	parked = h.transports.ServeFront(w, r, ps.kind, front, o, func(conn *pump.Conn) {
		p.conn = conn
		unlock()
	})
	return nil
}

// join is Serve for a visitor. It reports false for who is to come back later.
func (ps *Polls) join(conn *pump.Conn, c *Client, p *Poll, header string, next *pump.Kind) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, held, problem := ps.enter(c, p)
	if problem != nil {
		return false
	}
	p.conn = conn
	ps.hub.transports.JoinFront(conn, ps.kind, &transport.FrontPoll{Answer: p.answer, Gone: p.gone}, header, next, o)
	ps.hub.release(held)
	return true
}

// enter counts a poll in. Its mu is held.
func (ps *Polls) enter(c *Client, p *Poll) (o pump.ConnOptions, held *hold, problem *wire.Problem) {
	h := ps.hub
	o.Timeout = p.Timeout
	if p.finished {
		o.Timeout = 0
	}
	o.Channels, o.After, o.From = starts(p.Channels, p.From, h.engine.End())
	q := transport.Request{Transport: transport.LongPolling}
	if problem = h.enter(&q, o.After, c.caller.addr); problem != nil {
		return o, nil, problem
	}
	if held, problem = h.hold(c.caller, 1); problem != nil {
		h.leave()
		return o, nil, problem
	}
	o.Place = held.place()
	return o, held, nil
}

// starts returns what a connection is joined with that has a start for each
// channel.
func starts(channels []string, from []Cursor, end Cursor) (names []string, after Cursor, each []Cursor) {
	order := make([]int, len(channels))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if channels[a] < channels[b] {
			return -1
		}
		return 1
	})
	after, same := end, true
	for n, i := range order {
		names = append(names, channels[i])
		if n == 0 || pump.Earlier(from[i], after, end.Epoch) {
			after = from[i]
		}
		same = same && from[i] == from[order[0]]
	}
	if same {
		return names, after, nil
	}
	each = make([]Cursor, len(names))
	for n, i := range order {
		each[n] = from[i]
	}
	return names, after, each
}

// answer returns the body for what the pump has.
func (p *Poll) answer(f pump.Flush) []byte {
	a := PollAnswer{Position: f.Position, Altered: int(p.altered.Load())}
	for _, it := range f.Items {
		switch {
		case it.Message != nil:
			a.Messages, a.Of = append(a.Messages, it.Bytes), append(a.Of, it.Message)
		case it.Control.Kind == wire.Gap:
			a.Gap = true
		case it.Control.Kind == wire.Error:
			a.Err = it.Control.Problem
		case it.Control.Kind == wire.Reconnect:
			problem := wire.NewProblem(wire.EngineUnavailable, "come back in a moment")
			problem.RetryAfter = it.Control.Delay
			a.Err = problem
		}
	}
	return p.Answer(a)
}

// gone is called by who must not wait for what Gone may wait for: it may hold
// the poll's mu, or be a worker.
func (p *Poll) gone() { go p.Gone() }

// Finish has the poll answered with what there is.
func (p *Poll) Finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished = true
	if p.conn != nil {
		p.conn.Expire()
	}
}

// Alter adds channels, with where they start, and removes others. It does
// nothing to a poll that is answered already.
func (p *Poll) Alter(add map[string]Cursor, remove []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.Alter(add, remove, func() { p.altered.Add(1) })
		return
	}
	p.altered.Add(1)
	p.drop(remove)
	for name, from := range add {
		p.drop([]string{name})
		p.Channels, p.From = append(p.Channels, name), append(p.From, from)
	}
}

// drop removes channels before the poll is served.
func (p *Poll) drop(names []string) {
	for _, name := range names {
		if i := slices.Index(p.Channels, name); i >= 0 {
			p.Channels, p.From = slices.Delete(p.Channels, i, i+1), slices.Delete(p.From, i, i+1)
		}
	}
}
