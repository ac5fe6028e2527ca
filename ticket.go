package halley

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
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
	ticketLength  = 26 // of rand.Text
)

// tickets stand for tokens where only a URL can be given: each once, and for
// seconds, so that one that is found in a log is worth nothing.
type tickets struct {
	// table has those of all nodes, where there are several: each is good at any
	// of them. The bounds are each node's own.
	table Table

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

// errTickets means that there are too many.
var errTickets = errors.New("too many tickets wait to be used")

// issue returns a ticket for a token. Errors are errTickets or those of the
// table.
func (t *tickets) issue(ctx context.Context, token string, owner rateKey, now time.Time) (string, error) {
	text := rand.Text()
	if !t.add(text, token, owner, now) {
		return "", errTickets
	}
	if t.table != nil {
		key, secret := split(text)
		if _, err := t.table.Put(ctx, key, seal(secret, token)); err != nil {
			return "", err
		}
	}
	return text, nil
}

// add counts a ticket, and remembers it where there is no table. It reports
// false if there are too many.
func (t *tickets) add(text, token string, owner rateKey, now time.Time) bool {
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
		return false
	}
	if t.all == nil {
		t.all, t.owned = make(map[[sha256.Size]byte]ticket), make(map[rateKey]int32)
	}
	expires := now.Add(ticketTime)
	if t.table == nil {
		t.all[key] = ticket{token, expires}
	}
	t.order = append(t.order, issued{key, owner, expires})
	t.owned[owner]++
	return true
}

// take returns the token of a ticket, once. Tickets are looked up by their
// hashes, so that the time it takes tells nothing of others. Errors are
// ErrNotFound, for a ticket that is good no more, or those of the table.
func (t *tickets) take(ctx context.Context, text string) (token string, err error) {
	if t.table != nil {
		if len(text) != ticketLength {
			return "", ErrNotFound // it need not be looked for
		}
		key, secret := split(text)
		sealed, err := t.table.Take(ctx, key)
		if err != nil {
			return "", err
		}
		return unseal(secret, sealed)
	}
	key := sha256.Sum256([]byte(text))
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.all[key]
	delete(t.all, key)
	if !ok || !time.Now().Before(found.expires) {
		return "", ErrNotFound
	}
	return found.token, nil
}

// split returns what a ticket is found by in a table, and what its token is
// sealed with there: who reads the table learns no token, and no ticket.
func split(text string) (key string, secret []byte) {
	sum := sha512.Sum512([]byte(text))
	return string(sum[:32]), sum[32:]
}

func seal(secret []byte, token string) []byte {
	// The secret is for this token alone.
	return sealer(secret).Seal(nil, make([]byte, 12), []byte(token), nil) // #nosec G407 -- no nonce is needed
}

func unseal(secret, sealed []byte) (string, error) {
	token, err := sealer(secret).Open(nil, make([]byte, 12), sealed, nil)
	if err != nil {
		return "", ErrNotFound // nobody was given that one
	}
	return string(token), nil
}

func sealer(secret []byte) cipher.AEAD {
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic(err) // it has 32 bytes
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // the block is of AES
	}
	return gcm
}

// redeem sets the caller's token to that of a ticket. Who guesses has as many
// tries as with tokens: each is a question to other machines, where there are
// several nodes.
func (h *Hub) redeem(v *caller, r *http.Request, ticket string) *wire.Problem {
	v.token, v.source = ticket, inTicket
	if p := h.checkFailures(v); p != nil {
		return p
	}
	token, err := h.tickets.take(r.Context(), ticket)
	switch {
	case err == nil:
		v.token = token
		return nil
	case !errors.Is(err, ErrNotFound):
		return noTickets("whether the ticket is good cannot be found out now")
	}
	// An EventSource comes back with its old URL, and has the cookie.
	c, err := r.Cookie(h.opts.TokenCookie)
	if err != nil || c.Value == "" {
		h.failed(v)
		return wire.NewProblem(wire.InvalidTicket, "the ticket was used, is too old, or never was one: get another by POST ticket")
	}
	v.token, v.source = c.Value, inCookie
	return nil
}

// noTickets is the problem that the table of tickets is away.
func noTickets(detail string) *wire.Problem {
	p := wire.NewProblem(wire.EngineUnavailable, detail)
	p.RetryAfter = comeBack(time.Second, 2*time.Second)
	return p
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
	text, err := h.tickets.issue(r.Context(), v.token, v.owner(), time.Now())
	switch {
	case errors.Is(err, errTickets):
		p := wire.NewProblem(wire.RateLimited, err.Error())
		p.RetryAfter = comeBack(time.Second, ticketTime)
		h.refuse(w, p)
	case err != nil:
		h.refuse(w, noTickets("a ticket cannot be kept now: send the token in the Authorization header, or ask again"))
	default:
		h.writeTicket(w, text)
	}
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
