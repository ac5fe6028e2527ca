package halley

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
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
	client netip.Addr // where it is, as far as that is known
	addr   netip.Addr // what limits go by; the zero Addr for those without
}

// authorize finds out who makes a request. The form is its parameters, those of
// its body included. The caller has its source also where there is a problem.
func (h *Hub) authorize(r *http.Request, form url.Values) (*caller, *wire.Problem) {
	v := &caller{grant: everything, client: h.clientAddress(r), addr: h.limitedAddress(r)}
	if h.opts.Authorizer == nil {
		return v, nil
	}
	if p := h.findToken(v, r, form); p != nil {
		return v, p
	}
	asked := r
	if r.Header["Cookie"] != nil && v.source != inCookie && (h.checkCookie(r, form) != nil || form.Get("transport") == transport.JSONP && !h.opts.JSONPCookies) {
		// An Authorizer may go by cookies of its own, and they count no more
		// than ours.
		asked = r.Clone(r.Context())
		asked.Header.Del("Cookie")
	}
	if p := h.grant(asked, v); p != nil {
		return v, p
	}
	if v.source == inURL && (v.grant.Expires.IsZero() || time.Until(v.grant.Expires) > h.opts.URLTokens) {
		return v, wire.NewProblem(wire.TokenInURL, fmt.Sprintf("a URL is kept in logs and histories: a token in it may last %v at most; send it in the Authorization header, or get a ticket with it", h.opts.URLTokens))
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
		if p := h.redeem(v, r, ticket); p != nil {
			return p
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

// grant asks the Authorizer for what a caller may do, unless its address has
// had too many refusals: what is not known already takes long to verify.
func (h *Hub) grant(r *http.Request, v *caller) *wire.Problem {
	if p := h.checkFailures(v); p != nil {
		return p
	}
	ctx, cancel := context.WithTimeout(r.Context(), authorizeTimeout)
	defer cancel()
	g, err := h.opts.Authorizer.Authorize(ctx, Credentials{Token: v.token, Address: v.client, Request: r})
	switch {
	case errors.Is(err, ErrUnauthorized):
		h.failed(v)
		return wire.NewProblem(wire.Unauthorized, wire.Detail(err))
	case err != nil || g == nil:
		if !errors.Is(err, ErrUnavailable) {
			h.opts.Logger.Error("halley: the authorizer failed", "error", err)
		}
		p := wire.NewProblem(wire.AuthUnavailable, "nobody could say what this client may do")
		p.RetryAfter = comeBack(time.Second, 4*time.Second)
		return p
	}
	if p := h.current(g); p != nil {
		return p
	}
	v.grant = g
	return nil
}

// current tells why a grant is good no more.
func (h *Hub) current(g *Grant) *wire.Problem {
	switch {
	case !g.Expires.IsZero() && !time.Now().Before(g.Expires):
		return tokenExpired()
	case h.revoked.includes(g):
		return tokenRevoked()
	}
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

// checkTransport refuses what is not safe with the credentials that a request
// has.
func (h *Hub) checkTransport(v *caller, q *transport.Request) *wire.Problem {
	if q.Transport == transport.JSONP && v.source == inCookie && !h.opts.JSONPCookies {
		return wire.NewProblem(wire.InvalidTransport, "jsonp is not served to cookies here, as any page may load a script: use a ticket, or another transport")
	}
	return nil
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
	v := &caller{grant: h.clients.current(c), client: c.key.addr, addr: c.key.addr}
	if p := h.current(v.grant); p != nil {
		return nil, p
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
	v := &caller{token: token, client: before.client, addr: before.addr}
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
	to, p := h.hold(v, 0)
	if p != nil {
		return nil, p
	}
	conn.SetLease(to.Lease)
	h.release(to)
	return to.Lease, nil
}
