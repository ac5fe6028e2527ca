package halley

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/halley-comet/halley/internal/wire"
)

// ticketTime is how long a ticket is good for, maxTickets how many there are at
// a time, and maxOwnTickets how many of them one user or address may have.
const (
	ticketTime    = 10 * time.Second
	maxTickets    = 100_000
	maxOwnTickets = 1000
)

// tickets stand for tokens where only a URL can be given: each once, and for
// seconds, so that one that is found in a log is worth nothing.
type tickets struct {
	mu    sync.Mutex
	all   map[[sha256.Size]byte]ticket
	order []issued          // oldest first, those that are used included
	owned map[rateKey]int32 // of those in order
}

type ticket struct {
	token   string
	expires time.Time
}

type issued struct {
	key     [sha256.Size]byte
	owner   rateKey
	expires time.Time
}

// issue returns a ticket for a token. It reports false if there are too many.
func (t *tickets) issue(token string, owner rateKey, now time.Time) (string, bool) {
	text := rand.Text()
	key := sha256.Sum256([]byte(text))
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.order) > 0 && !now.Before(t.order[0].expires) {
		old := &t.order[0]
		delete(t.all, old.key)
		if t.owned[old.owner]--; t.owned[old.owner] == 0 {
			delete(t.owned, old.owner)
		}
		t.order = t.order[1:]
	}
	if len(t.order) >= maxTickets || t.owned[owner] >= maxOwnTickets && owner != (rateKey{}) {
		return "", false
	}
	if t.all == nil {
		t.all, t.owned = make(map[[sha256.Size]byte]ticket), make(map[rateKey]int32)
	}
	expires := now.Add(ticketTime)
	t.all[key] = ticket{token, expires}
	t.order = append(t.order, issued{key, owner, expires})
	t.owned[owner]++
	return text, true
}

// take returns the token of a ticket, once. Tickets are looked up by their
// hashes, so that the time it takes tells nothing of others.
func (t *tickets) take(text string) (token string, ok bool) {
	key := sha256.Sum256([]byte(text))
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.all[key]
	delete(t.all, key)
	if !ok || !time.Now().Before(found.expires) {
		return "", false
	}
	return found.token, true
}

// serveTicket answers POST ticket.
func (h *Hub) serveTicket(w http.ResponseWriter, r *http.Request) {
	if h.opts.Authorizer == nil {
		// Clients are written for servers that have tokens.
		if p := h.checkOrigin(r); p != nil {
			h.refuse(w, p)
			return
		}
		h.writeTicket(w, rand.Text())
		return
	}
	v, _, p := h.administer(w, r)
	if p == nil && v.source != inHeader && v.source != inForm || p == nil && v.token == "" {
		p = wire.NewProblem(wire.Unauthorized, "a ticket is got with a token in the Authorization header")
	}
	if p != nil {
		h.refuse(w, p)
		return
	}
	text, ok := h.tickets.issue(v.token, v.owner(), time.Now())
	if !ok {
		p := wire.NewProblem(wire.RateLimited, "too many tickets wait to be used")
		p.RetryAfter = comeBack(time.Second, ticketTime)
		h.refuse(w, p)
		return
	}
	h.writeTicket(w, text)
}

func (h *Hub) writeTicket(w http.ResponseWriter, text string) {
	body := append([]byte(`{"ticket":"`), text...)
	body = append(body, `","expires":`...)
	body = strconv.AppendInt(body, int64(ticketTime/time.Second), 10)
	h.writeJSON(w, append(body, '}'))
}

// maxCookie is the size of a cookie that browsers keep, with its attributes.
const maxCookie = 3800

// setCookie keeps the token of a ticket for the requests that follow: a
// browser's EventSource comes back with the URL it began with, whose ticket is
// used. No page can read the cookie, and none of another site makes requests
// with it.
func (h *Hub) setCookie(header http.Header, r *http.Request, form url.Values, v *caller) {
	// Who follows a stranger's link, with a ticket of the stranger's, is not to
	// become the stranger.
	if r.Header.Get("Sec-Fetch-Dest") == "document" || h.checkCookie(r, form) != nil {
		return
	}
	if v.source != inTicket || len(v.token) > maxCookie || r.Header.Get("User-Agent") == "" {
		return
	}
	c := h.cookie(r)
	c.Value = v.token
	if e := v.grant.Expires; !e.IsZero() {
		c.MaxAge = max(1, int(time.Until(e)/time.Second))
	}
	header.Add("Set-Cookie", c.String())
}

// forgetCookie has a browser forget a cookie that was refused, which no page
// can: without it, the client may do what those without a token may.
func (h *Hub) forgetCookie(header http.Header, r *http.Request, v *caller, p *wire.Problem) {
	if v.source != inCookie {
		return
	}
	switch p.Code {
	case wire.Unauthorized, wire.TokenExpired, wire.TokenRevoked:
		c := h.cookie(r)
		c.MaxAge = -1
		header.Add("Set-Cookie", c.String())
	}
}

// cookie is what all cookies of a subscribe request are like. Its path is as
// the client has it, which a program may have cut the mount from.
func (h *Hub) cookie(r *http.Request) http.Cookie {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	if !strings.HasPrefix(path, "/") || strings.ContainsRune(path, ';') {
		path = r.URL.EscapedPath()
	}
	return http.Cookie{
		Name: h.opts.TokenCookie, Path: strings.TrimSuffix(path, "/subscribe"),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: h.secure(r),
	}
}
