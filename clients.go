package halley

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// A client is what connections are held by that have one token and one
// address.
type client struct {
	key   leaseKey
	user  string
	lease pump.Lease

	grant *Grant      // guarded by clients.mu
	timer *time.Timer // guarded by clients.mu: of the grant's end, nil if it has none
	refs  int64       // guarded by clients.mu: its connections, and requests that may become some

	before, next *client // guarded by clients.mu: of those that have its token
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
	shared    map[leaseKey]*client          // those that further connections join
	tokens    map[[sha256.Size]byte]*client // the first of a list
	users     map[string]int64              // connections, of those that have a user
	addresses map[netip.Addr]int64
}

// A hold is what one request holds connections by. Its place is counted
// already.
type hold struct {
	client *client
	pump.Place
	counted int64
}

// place returns the place of the request's connection, nil if it needs none.
func (l *hold) place() *pump.Place {
	if l == nil {
		return nil
	}
	return &l.Place
}

// hold returns what connections of a caller are held by, until release is
// called: nil if they need not be. It counts so many more, and refuses those
// that there may not be.
func (h *Hub) hold(v *caller, more int64) (*hold, *wire.Problem) {
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
	if p := h.current(v.grant); p != nil { // since it was asked for: Revoke has looked for clients, or will find this one
		return nil, p
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
		c.lease.Count = func(n int64) {
			cs.mu.Lock()
			defer cs.mu.Unlock()
			cs.count(c, n)
		}
		cs.add(c)
		cs.setTimer(c)
	}
	c.refs++
	cs.count(c, more)
	return &hold{client: c, Place: pump.Place{Lease: &c.lease}, counted: more}, nil
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

// release is called when a request is over for which hold was called. What it
// left behind holds the client on.
func (h *Hub) release(l *hold) {
	if l == nil {
		return
	}
	cs := &h.clients
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if !l.Taken() {
		cs.count(l.client, -l.counted)
	}
	cs.unref(l.client, 1)
}

// count notes that a client has more or fewer connections.
func (cs *clients) count(c *client, n int64) {
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
	cs.unref(c, -n)
}

func (cs *clients) unref(c *client, n int64) {
	if c.refs -= n; c.refs > 0 {
		return
	}
	cs.remove(c)
	if c.timer != nil {
		c.timer.Stop()
	}
}

func (cs *clients) add(c *client) {
	if cs.all == nil {
		cs.all, cs.shared, cs.tokens = map[*client]struct{}{}, map[leaseKey]*client{}, map[[sha256.Size]byte]*client{}
		cs.users, cs.addresses = map[string]int64{}, map[netip.Addr]int64{}
	}
	cs.all[c], cs.shared[c.key] = struct{}{}, c
	cs.link(c)
}

func (cs *clients) remove(c *client) {
	if _, there := cs.all[c]; !there {
		return
	}
	delete(cs.all, c)
	if cs.shared[c.key] == c {
		delete(cs.shared, c.key)
	}
	cs.unlink(c)
}

// link puts a client on the list of those that have its token: to renew one
// must not take looking at all.
func (cs *clients) link(c *client) {
	if c.next = cs.tokens[c.key.token]; c.next != nil {
		c.next.before = c
	}
	cs.tokens[c.key.token] = c
}

func (cs *clients) unlink(c *client) {
	if c.next != nil {
		c.next.before = c.before
	}
	switch {
	case c.before != nil:
		c.before.next = c.next
	case c.next != nil:
		cs.tokens[c.key.token] = c.next
	default:
		delete(cs.tokens, c.key.token)
	}
	c.before, c.next = nil, nil
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

// renew has the connections that are held here by a token go on under another
// of the same user, and returns their number. Tokens are given by their hashes.
func (h *Hub) renew(before, after [sha256.Size]byte, g *Grant) (n int, p *wire.Problem) {
	cs := &h.clients
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if p := h.current(g); p != nil { // as in hold
		return 0, p
	}
	var found []*client
	for c := cs.tokens[before]; c != nil; c = c.next {
		if c.user != g.User {
			return 0, wire.NewProblem(wire.Forbidden, "the tokens are of two users")
		}
		if p := g.maySubscribe(c.grant.Subscribe); p != nil {
			p.Detail += ", which the old token may: open new connections"
			return 0, p
		}
		found = append(found, c)
	}
	for _, c := range found {
		if cs.shared[c.key] == c {
			delete(cs.shared, c.key) // who comes with the old token gets what that gives
		}
		cs.unlink(c)
		c.key.token, c.key.grant, c.grant = after, g, g
		cs.link(c)
		cs.setTimer(c)
		n += c.lease.Len()
	}
	return n, nil
}
