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

// ticketTime is how long a ticket is good for, and maxTickets how many there
// are at a time.
const (
	ticketTime = 10 * time.Second
	maxTickets = 100_000
)

// tickets stand for tokens where only a URL can be given: each once, and for
// seconds, so that one that is found in a log is worth nothing.
type tickets struct {
	mu    sync.Mutex
	all   map[[sha256.Size]byte]ticket
	order []issued // oldest first
}

type ticket struct {
	token   string
	expires time.Time
}

type issued struct {
	key     [sha256.Size]byte
	expires time.Time
}

// issue returns a ticket for a token. It reports false if there are too many.
func (t *tickets) issue(token string, now time.Time) (string, bool) {
	text := rand.Text()
	key := sha256.Sum256([]byte(text))
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.order) > 0 && !now.Before(t.order[0].expires) {
		delete(t.all, t.order[0].key)
		t.order = t.order[1:]
	}
	if len(t.order) >= maxTickets {
		return "", false
	}
	if t.all == nil {
		t.all = make(map[[sha256.Size]byte]ticket)
	}
	t.all[key] = ticket{token, now.Add(ticketTime)}
	t.order = append(t.order, issued{key, now.Add(ticketTime)})
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
	text, ok := h.tickets.issue(v.token, time.Now())
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
	c := http.Cookie{
		Name: h.opts.TokenCookie, Value: v.token, Path: strings.TrimSuffix(r.URL.Path, "/subscribe"), HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil,
	}
	if e := v.grant.Expires; !e.IsZero() {
		c.MaxAge = max(1, int(time.Until(e)/time.Second))
	}
	header.Add("Set-Cookie", c.String())
}
