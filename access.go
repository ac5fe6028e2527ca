package halley

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/transport"
	"github.com/halley-comet/halley/internal/wire"
)

// maxToken is the length of a token at most, in bytes: it has to fit into a
// header and a cookie beside others.
const maxToken = 8 << 10

// authorizeTimeout is how long an Authorizer may take.
const authorizeTimeout = 10 * time.Second

// everything is what clients may do where there is no Authorizer.
var everything = &Grant{Subscribe: []string{"**"}, Publish: []string{"**"}}

// A source is how a request gives its token.
type source int

const (
	inHeader source = iota // or nowhere
	inTicket
	inForm
	inURL
	inCookie
)

// A caller is who makes a request, and what it may do.
type caller struct {
	grant  *Grant
	token  string
	source source
	addr   netip.Addr // the zero Addr for those without a bound for addresses
}

// authorize finds out who makes a request. The form is its parameters, those of
// its body included.
func (h *Hub) authorize(r *http.Request, form url.Values) (*caller, *wire.Problem) {
	v := &caller{grant: everything, addr: h.limitedAddress(r)}
	if h.opts.Authorizer == nil {
		return v, nil
	}
	if p := h.findToken(v, r, form); p != nil {
		return nil, p
	}
	asked := r
	if r.Header["Cookie"] != nil && v.source != inCookie && (h.checkCookie(r, form) != nil || form.Get("transport") == transport.JSONP && !h.opts.JSONPCookies) {
		// An Authorizer may go by cookies of its own, and they count no more
		// than ours.
		asked = r.Clone(r.Context())
		asked.Header.Del("Cookie")
	}
	if p := h.grant(asked, v); p != nil {
		return nil, p
	}
	if v.source == inURL && (v.grant.Expires.IsZero() || time.Until(v.grant.Expires) > h.opts.URLTokens) {
		return nil, wire.NewProblem(wire.TokenInURL, fmt.Sprintf("a URL is kept in logs and histories: a token in it may last %v at most; send it in the Authorization header, or get a ticket with it", h.opts.URLTokens))
	}
	return v, nil
}

// findToken sets the caller's token and source.
func (h *Hub) findToken(v *caller, r *http.Request, form url.Values) *wire.Problem {
	if values := r.Header.Values("Authorization"); len(values) > 0 {
		scheme, token, _ := strings.Cut(values[0], " ")
		token = strings.TrimSpace(token)
		if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
			return wire.NewProblem(wire.Unauthorized, "Authorization is not Bearer and a token")
		}
		v.token = token
	} else if ticket := form.Get("ticket"); ticket != "" {
		token, ok := h.tickets.take(ticket)
		v.token, v.source = token, inTicket
		if !ok {
			// An EventSource comes back with its old URL, and has the cookie.
			c, err := r.Cookie(h.opts.TokenCookie)
			if err != nil || c.Value == "" {
				return wire.NewProblem(wire.InvalidTicket, "the ticket was used, is too old, or never was one: get another by POST ticket")
			}
			v.token, v.source = c.Value, inCookie
		}
	} else if token := form.Get("token"); token != "" {
		v.token, v.source = token, inForm
		if query, err := url.ParseQuery(r.URL.RawQuery); err != nil || query.Has("token") {
			v.source = inURL
		}
	} else if c, err := r.Cookie(h.opts.TokenCookie); err == nil && c.Value != "" {
		v.token, v.source = c.Value, inCookie
	}
	if len(v.token) > maxToken {
		return wire.NewProblem(wire.Unauthorized, fmt.Sprintf("a token of %d bytes, at most %d", len(v.token), maxToken))
	}
	if v.source == inCookie {
		return h.checkCookie(r, form)
	}
	return nil
}

// checkCookie refuses requests with a cookie that a page may have made which is
// not one of ours: a browser sends it whoever asks (CSRF, and the same by
// WebSocket).
func (h *Hub) checkCookie(r *http.Request, form url.Values) *wire.Problem {
	if to := form.Get("origin"); form.Get("transport") == transport.IFrame && to != "" && !h.origins.lists(to, r.Host) {
		return forbiddenOrigin(to) // whose page gets the messages, whatever the browser says of the request
	}
	origin := r.Header.Get("Origin")
	if origin != "" {
		if h.origins.lists(origin, r.Host) {
			return nil
		}
		return forbiddenOrigin(origin)
	}
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case r.Method == http.MethodPost && site != "same-origin":
		// Every browser that is still in use sends one of the two.
		return forbiddenOrigin("unknown")
	case site == "cross-site", site == "same-site":
		referer, err := url.Parse(r.Header.Get("Referer"))
		if err != nil || !h.origins.lists(referer.Scheme+"://"+referer.Host, r.Host) {
			return forbiddenOrigin("unknown")
		}
	}
	return nil
}

// grant asks the Authorizer for what a caller may do.
func (h *Hub) grant(r *http.Request, v *caller) *wire.Problem {
	ctx, cancel := context.WithTimeout(r.Context(), authorizeTimeout)
	defer cancel()
	g, err := h.opts.Authorizer.Authorize(ctx, Credentials{Token: v.token, Request: r})
	switch {
	case errors.Is(err, ErrUnauthorized):
		return wire.NewProblem(wire.Unauthorized, wire.Detail(err))
	case err != nil || g == nil:
		if !errors.Is(err, ErrUnavailable) {
			h.opts.Logger.Error("halley: the authorizer failed", "error", err)
		}
		p := wire.NewProblem(wire.AuthUnavailable, "nobody could say what this client may do")
		p.RetryAfter = comeBack(time.Second, 4*time.Second)
		return p
	case !g.Expires.IsZero() && !time.Now().Before(g.Expires):
		return tokenExpired()
	case h.revoked.includes(g):
		return tokenRevoked()
	}
	v.grant = g
	return nil
}

func tokenExpired() *wire.Problem {
	return wire.NewProblem(wire.TokenExpired, "come back with a new one")
}

func tokenRevoked() *wire.Problem {
	return wire.NewProblem(wire.TokenRevoked, "an administrator has taken it back")
}

// mayRead tells whether who makes a request may read channels.
func (h *Hub) mayRead(r *http.Request, form url.Values, channels []string) *wire.Problem {
	v, p := h.authorize(r, form)
	if p != nil {
		return p
	}
	return v.grant.maySubscribe(channels)
}

// maySubscribe tells whether a grant has all channels, or which it has not.
func (g *Grant) maySubscribe(channels []string) *wire.Problem {
	return covered(g.Subscribe, channels, "read")
}

// mayPublish is maySubscribe for publishing.
func (g *Grant) mayPublish(channels []string) *wire.Problem {
	return covered(g.Publish, channels, "write")
}

func covered(rights, channels []string, what string) *wire.Problem {
next:
	for _, c := range channels {
		for _, right := range rights {
			if engine.Covers(right, c) {
				continue next
			}
		}
		return wire.NewProblem(wire.ForbiddenChannel, fmt.Sprintf("this client may not %s %q", what, c))
	}
	return nil
}

// A client is what connections are held by that have one token and one
// address.
type client struct {
	key   leaseKey
	user  string
	lease pump.Lease

	grant *Grant      // guarded by clients.mu
	timer *time.Timer // guarded by clients.mu: of the grant's end, nil if it has none
	refs  int64       // guarded by clients.mu: its connections, and requests that may become some
}

type leaseKey struct {
	token [sha256.Size]byte // its hash; zero without an Authorizer
	addr  netip.Addr
	grant *Grant // one token may come to be worth less, or be several users'
}

// clients are those that hold connections.
type clients struct {
	mu        sync.Mutex
	all       map[*client]struct{}
	shared    map[leaseKey]*client // those that further connections join
	users     map[string]int64     // connections, of those that have a user
	addresses map[netip.Addr]int64
}

// hold returns what connections of a caller are held by, until release is
// called: nil if they need not be. It refuses one more than there may be.
func (h *Hub) hold(v *caller, more int64) (*client, *wire.Problem) {
	if h.opts.Authorizer == nil && !v.addr.IsValid() {
		return nil, nil
	}
	key := leaseKey{addr: v.addr, grant: v.grant}
	if h.opts.Authorizer != nil {
		key.token = sha256.Sum256([]byte(v.token))
	}
	cs := &h.clients
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if h.revoked.includes(v.grant) { // since it was asked for: Revoke has looked for clients, or will find this one
		return nil, tokenRevoked()
	}
	if max := int64(h.opts.MaxConnectionsPerAddress); max > 0 && v.addr.IsValid() && cs.addresses[v.addr]+more > max {
		h.proxyHint.Do(func() {
			h.opts.Logger.Warn("halley: an address holds as many connections as it may: if it is a proxy, name it in TrustedProxies", "address", v.addr, "connections", max)
		})
		return nil, tooManyOf("address", max)
	}
	if max := userLimit(v.grant.Limits.Connections, h.opts.MaxConnectionsPerUser); max > 0 && v.grant.User != "" && cs.users[v.grant.User]+more > max {
		return nil, tooManyOf("user", max)
	}
	c := cs.shared[key]
	if c == nil {
		c = &client{key: key, user: v.grant.User, grant: v.grant}
		c.lease.Owner = c
		c.lease.Count = func(n int64) { cs.count(c, n) }
		if cs.all == nil {
			cs.all, cs.shared, cs.users, cs.addresses = map[*client]struct{}{}, map[leaseKey]*client{}, map[string]int64{}, map[netip.Addr]int64{}
		}
		cs.all[c], cs.shared[key] = struct{}{}, c
		cs.setTimer(c)
	}
	c.refs++
	return c, nil
}

// userLimit returns a user's own limit, or else the one for all.
func userLimit(own, all int) int64 {
	if own != 0 {
		return int64(own)
	}
	return int64(all)
}

func tooManyOf(what string, max int64) *wire.Problem {
	p := wire.NewProblem(wire.ConnectionLimit, fmt.Sprintf("this %s holds %d connections, which is all it may", what, max))
	p.RetryAfter = comeBack(2*time.Second, 8*time.Second)
	return p
}

// held returns the lease that connections of the client have, nil if there is
// no client.
func (c *client) held() *pump.Lease {
	if c == nil {
		return nil
	}
	return &c.lease
}

// release is called when a request is over for which hold was called. What it
// left behind holds the client on.
func (h *Hub) release(c *client) {
	if c == nil {
		return
	}
	h.clients.mu.Lock()
	defer h.clients.mu.Unlock()
	h.clients.unref(c)
}

// count is called when a client has one connection more or less.
func (cs *clients) count(c *client, n int64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if user := c.user; user != "" {
		if cs.users[user] += n; cs.users[user] == 0 {
			delete(cs.users, user)
		}
	}
	if addr := c.key.addr; addr.IsValid() {
		if cs.addresses[addr] += n; cs.addresses[addr] == 0 {
			delete(cs.addresses, addr)
		}
	}
	if n > 0 {
		c.refs++
	} else {
		cs.unref(c)
	}
}

func (cs *clients) unref(c *client) {
	if c.refs--; c.refs > 0 {
		return
	}
	cs.remove(c)
	if c.timer != nil {
		c.timer.Stop()
	}
}

func (cs *clients) remove(c *client) {
	delete(cs.all, c)
	if cs.shared[c.key] == c {
		delete(cs.shared, c.key)
	}
}

// setTimer has the client's connections end with its grant.
func (cs *clients) setTimer(c *client) {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if g := c.grant; !g.Expires.IsZero() {
		c.timer = time.AfterFunc(time.Until(g.Expires), func() { cs.expire(c, g) })
	}
}

// expire ends a client's connections, unless it has another grant by now.
func (cs *clients) expire(c *client, g *Grant) {
	cs.mu.Lock()
	current := c.grant == g
	cs.mu.Unlock()
	if current {
		cs.end(c, tokenExpired())
	}
}

// end ends a client's connections. Later ones are another client's.
func (cs *clients) end(c *client, p *wire.Problem) {
	cs.mu.Lock()
	cs.remove(c)
	cs.mu.Unlock()
	c.lease.End(&wire.Control{Kind: wire.Error, Problem: p})
}

// current returns what a client may do now.
func (cs *clients) current(c *client) *Grant {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return c.grant
}

// holder returns who has the connections of a lease, or why it may do nothing
// any more: its client may not read that its connection ends.
func (h *Hub) holder(l *pump.Lease) (*caller, *wire.Problem) {
	if h.opts.Authorizer == nil && l == nil {
		return &caller{grant: everything}, nil
	}
	if l == nil {
		return nil, tokenExpired()
	}
	c := l.Owner.(*client)
	v := &caller{grant: h.clients.current(c), addr: c.key.addr}
	switch {
	case !v.grant.Expires.IsZero() && !time.Now().Before(v.grant.Expires):
		return nil, tokenExpired()
	case h.revoked.includes(v.grant):
		return nil, tokenRevoked()
	}
	return v, nil
}

// subscribeFrame tells why a WebSocket may not have more channels.
func (h *Hub) subscribeFrame(l *pump.Lease, channels []string) *wire.Problem {
	v, p := h.holder(l)
	if p != nil {
		return p
	}
	return v.grant.maySubscribe(channels)
}

// renewFrame has a WebSocket go on under another token of the same user.
func (h *Hub) renewFrame(conn *pump.Conn, l *pump.Lease, token string) (*pump.Lease, *wire.Problem) {
	if h.opts.Authorizer == nil || l == nil {
		return nil, wire.NewProblem(wire.InvalidFrame, "this server has no tokens: it is open to all")
	}
	if len(token) > maxToken {
		return nil, wire.NewProblem(wire.Unauthorized, fmt.Sprintf("a token of %d bytes, at most %d", len(token), maxToken))
	}
	before, p := h.holder(l)
	if p != nil {
		return nil, p
	}
	v := &caller{token: token, addr: before.addr}
	// The request that the WebSocket began with is long over.
	r := (&http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: h.mount() + "/subscribe"}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody,
	}).WithContext(h.pump.Closed())
	if p := h.grant(r, v); p != nil {
		return nil, p
	}
	if v.grant.User != before.grant.User {
		return nil, wire.NewProblem(wire.Forbidden, "the tokens are of two users")
	}
	if p := v.grant.maySubscribe(before.grant.Subscribe); p != nil {
		p.Detail += ", which the old token may: open a new connection"
		return nil, p
	}
	c, p := h.hold(v, 0)
	if p != nil {
		return nil, p
	}
	conn.SetLease(&c.lease)
	h.release(c)
	return &c.lease, nil
}

// checkTransport refuses what is not safe with the credentials that a request
// has.
func (h *Hub) checkTransport(v *caller, q *transport.Request) *wire.Problem {
	if q.Transport == transport.JSONP && v.source == inCookie && !h.opts.JSONPCookies {
		return wire.NewProblem(wire.InvalidTransport, "jsonp is not served to cookies here, as any page may load a script: use a ticket, or another transport")
	}
	return nil
}

// renew has the connections that are held by a token go on under another of
// the same user, and returns their number.
func (cs *clients) renew(old string, v *caller) (n int, p *wire.Problem) {
	if old == "" || v.token == "" {
		return 0, wire.NewProblem(wire.InvalidParameter, "the old token and the new one are needed")
	}
	before, after := sha256.Sum256([]byte(old)), sha256.Sum256([]byte(v.token))
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var found []*client
	for c := range cs.all {
		if c.key.token != before {
			continue
		}
		if c.user != v.grant.User {
			return 0, wire.NewProblem(wire.Forbidden, "the tokens are of two users")
		}
		if p := v.grant.maySubscribe(c.grant.Subscribe); p != nil {
			p.Detail += ", which the old token may: open new connections"
			return 0, p
		}
		found = append(found, c)
	}
	for _, c := range found {
		if cs.shared[c.key] == c {
			delete(cs.shared, c.key) // who comes with the old token gets what that gives
		}
		c.key.token, c.key.grant, c.grant = after, v.grant, v.grant
		cs.setTimer(c)
		n += c.lease.Len()
	}
	return n, nil
}
