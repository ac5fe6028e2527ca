package halley

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/halley-comet/halley/internal/wire"
)

// RevocationTime is how long a revocation is remembered, and MaxRevocations how
// many are. A token that lasts longer, and whose user or ID was revoked, is good
// again after that.
const (
	RevocationTime = 30 * 24 * time.Hour
	MaxRevocations = 100_000
)

// ErrTooMany is returned by Revoke when no more can be remembered.
var ErrTooMany = errors.New("too many revocations")

// A Revocation takes tokens back.
type Revocation struct {
	// User takes back all tokens of a user that were issued until now; ID one
	// token. One of them is set.
	User, ID string
	// Time is when it was made; zero is now, for Revoke.
	Time time.Time
}

// check reports what is wrong with it.
func (r *Revocation) check() error {
	if (r.User == "") == (r.ID == "") {
		return fmt.Errorf("%w: one of User and ID is to be set", ErrInvalid)
	}
	return nil
}

// revocations are those that are remembered.
type revocations struct {
	table  Table      // all nodes' revocations; nil for a lone one
	adding sync.Mutex // held while one is made, kept, and takes effect: it comes before mu
	mu     sync.RWMutex
	users  map[string]time.Time // guarded by mu
	ids    map[string]time.Time // guarded by mu
}

// add remembers a revocation, once keep, if it is not nil, has returned nil.
// adding is held.
func (rs *revocations) add(r Revocation, keep func(Revocation) error) error {
	if !rs.makeRoom() {
		return ErrTooMany
	}
	if keep != nil {
		if err := keep(r); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	m, name := rs.ids, r.ID
	if r.User != "" {
		m, name = rs.users, r.User
	}
	if r.Time.After(m[name]) {
		m[name] = r.Time
	}
	return nil
}

// knows tells whether a revocation says nothing new.
func (rs *revocations) knows(r Revocation) bool {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	m, name := rs.ids, r.ID
	if r.User != "" {
		m, name = rs.users, r.User
	}
	at, ok := m[name]
	return ok && !r.Time.After(at)
}

// makeRoom forgets what is old if there is no room for one more, and tells
// whether there is.
func (rs *revocations) makeRoom() bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.users == nil {
		rs.users, rs.ids = map[string]time.Time{}, map[string]time.Time{}
	}
	if len(rs.users)+len(rs.ids) >= MaxRevocations {
		for _, m := range []map[string]time.Time{rs.users, rs.ids} {
			for name, at := range m {
				if time.Since(at) > RevocationTime {
					delete(m, name)
				}
			}
		}
	}
	return len(rs.users)+len(rs.ids) < MaxRevocations
}

// includes tells whether a grant was revoked.
func (rs *revocations) includes(g *Grant) bool {
	rs.mu.RLock()
	defer rs.mu.RUnlock()
	if at, ok := rs.ids[g.ID]; ok && g.ID != "" && time.Since(at) < RevocationTime {
		return true
	}
	at, ok := rs.users[g.User]
	// Tokens tell the time in whole seconds (RFC 7519, 2).
	return ok && g.User != "" && time.Since(at) < RevocationTime && !g.Issued.After(at)
}

// matches tells whether a revocation is of a grant.
func (r *Revocation) matches(g *Grant) bool {
	if r.ID != "" {
		return g.ID == r.ID
	}
	return g.User == r.User && !g.Issued.After(r.Time)
}

// Revoke takes tokens back: connections that are held by them are told and end
// within a second, and no request is served with them any more. It returns the
// number of connections. The hub remembers it for RevocationTime, while it
// lives: Options.KeepRevocation is for longer. Errors wrap ErrInvalid,
// ErrTooMany, or ErrUnavailable and that of KeepRevocation; nothing was taken
// back then.
//
// On an engine of several nodes all of them know it within a second or so, and
// those that begin later from the beginning. The number is of this node's
// connections. An error that wraps ErrUnavailable is then one of the cluster: it
// may still take effect, and should be tried again.
func (h *Hub) Revoke(r Revocation) (connections int, err error) {
	if err := r.check(); err != nil {
		return 0, fmt.Errorf("halley: revoke: %w", err)
	}
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	rs := &h.revoked
	rs.adding.Lock()
	defer rs.adding.Unlock()
	keep := h.opts.KeepRevocation
	if rs.table != nil {
		keep = h.keepLearned
		if !rs.makeRoom() {
			return 0, fmt.Errorf("halley: revoke: %w", ErrTooMany)
		}
		if err := h.shareRevocation(r); err != nil {
			return 0, fmt.Errorf("halley: revoke: %w", unavailable(err))
		}
	}
	if err := rs.add(r, keep); err != nil {
		return 0, fmt.Errorf("halley: revoke: %w", err)
	}
	return h.takeBack(&r), nil
}

// unavailable returns an error of a table as one that wraps ErrUnavailable.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// takeBack ends the connections that a revocation is of, and returns their
// number.
func (h *Hub) takeBack(r *Revocation) (connections int) {
	for _, c := range h.clients.find(r) {
		connections += c.lease.Len()
		h.clients.end(c, tokenRevoked())
	}
	return connections
}

// find returns the clients that a revocation is of.
func (cs *clients) find(r *Revocation) []*client {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var found []*client
	for c := range cs.all {
		if r.matches(c.grant) {
			found = append(found, c)
		}
	}
	return found
}

// administer reads the form of a request that is about tokens, and finds out
// who makes it.
func (h *Hub) administer(w http.ResponseWriter, r *http.Request) (*caller, url.Values, *wire.Problem) {
	if p := h.checkOrigin(r); p != nil {
		return nil, nil, p
	}
	if h.opts.Authorizer == nil {
		return nil, nil, wire.NewProblem(wire.NotFound, "this server has no tokens: it is open to all")
	}
	form, p := h.subscribeForm(w, r)
	if p != nil {
		return nil, nil, p
	}
	v, p := h.authorize(r, form)
	return v, form, p
}

// serveRevoke answers POST revoke.
func (h *Hub) serveRevoke(w http.ResponseWriter, r *http.Request) {
	v, form, p := h.administer(w, r)
	if p == nil && (!v.grant.Admin || v.source == inCookie) {
		p = wire.NewProblem(wire.Forbidden, "only an administrator's token may revoke others")
	}
	if p != nil {
		h.refuse(w, p)
		return
	}
	n, err := h.Revoke(Revocation{User: form.Get("user"), ID: form.Get("jti")})
	switch {
	case errors.Is(err, ErrUnavailable):
		h.opts.Logger.Error("halley: a revocation was not taken", "error", err)
		p := wire.NewProblem(wire.EngineUnavailable, "it cannot be kept, so nothing was taken back: the server's own log has the reason")
		p.RetryAfter = comeBack(time.Second, 2*time.Second)
		h.refuse(w, p)
	case errors.Is(err, ErrInvalid):
		h.refuse(w, wire.NewProblem(wire.InvalidParameter, "one of user and jti is needed"))
	case err != nil:
		h.opts.Logger.Error("halley: a revocation was not taken", "error", err)
		h.refuse(w, wire.NewProblem(wire.Internal, "too many revocations are remembered already"))
	default:
		h.writeConnections(w, n)
	}
}

// serveRenew answers POST renew: connections that are held by the token in the
// parameter old go on under the one of the request. Those of other nodes follow
// as soon as they hear of it.
func (h *Hub) serveRenew(w http.ResponseWriter, r *http.Request) {
	v, form, p := h.administer(w, r)
	if p != nil {
		h.refuse(w, p)
		return
	}
	old := form.Get("old")
	if old == "" || v.token == "" {
		h.refuse(w, wire.NewProblem(wire.InvalidParameter, "the old token and the new one are needed"))
		return
	}
	before, after := sha256.Sum256([]byte(old)), sha256.Sum256([]byte(v.token))
	n, p := h.renew(before, after, v.grant)
	if p == nil && h.renewals != nil {
		if err := h.shareRenewal(before, after, v.grant); err != nil {
			p = wire.NewProblem(wire.EngineUnavailable, "other servers cannot be told now, which may hold connections too")
			p.RetryAfter = comeBack(time.Second, 2*time.Second)
		}
	}
	if p != nil {
		h.refuse(w, p)
		return
	}
	h.writeConnections(w, n)
}

// writeConnections tells how many connections a request was about.
func (h *Hub) writeConnections(w http.ResponseWriter, n int) {
	h.writeJSON(w, append(strconv.AppendInt([]byte(`{"connections":`), int64(n), 10), '}'))
}
