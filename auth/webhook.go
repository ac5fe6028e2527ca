package auth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/singleflight"

	"github.com/halley-comet/halley"
)

const (
	// maxQuestion and maxAnswer bound what is sent and what is read, in bytes.
	maxQuestion = 64 << 10
	maxAnswer   = 64 << 10
	// maxReason is how much of a refusal's text a client is told, in bytes.
	maxReason = 256
)

// WebhookOptions say how an application is asked.
type WebhookOptions struct {
	// URL is that of the application, http or https. Redirects are not
	// followed.
	URL string
	// Secret tells the application that it is asked by its own server: it is
	// sent as "Authorization: Bearer SECRET". Default none.
	Secret string
	// Headers are the names of headers of the client's request that the
	// application is told, such as "Cookie"; at most 16. Default none.
	Headers []string
	// Timeout is that of a question; default 3 s.
	Timeout time.Duration
	// MaxInFlight is how many questions are asked at once at most; default 64.
	// Beyond, clients get ErrUnavailable at once: no flood of theirs becomes
	// one of the application.
	MaxInFlight int
	// GrantTTL is how long a grant is remembered at most, if it does not expire
	// earlier, and so how late it is noticed that the application would now say
	// otherwise; default 5 minutes, negative to ask each time.
	GrantTTL time.Duration
	// RefusalTTL is the same for a refusal; default 5 s, negative to ask each
	// time.
	RefusalTTL time.Duration
	// Remember is how many grants are remembered, and how many refusals;
	// default 10,000, negative for none.
	Remember int
	// Anonymous is what a client may do that has no token and none of Headers;
	// nil: the application is asked about it like about others.
	Anonymous *halley.Grant
	// Client asks, if http.DefaultTransport is not what is wanted. Its
	// CheckRedirect is not used.
	Client *http.Client
}

// A Webhook is a halley.Authorizer that asks an application. It sends, by POST,
//
//	{"token": "…", "origin": "https://app.example.com", "address": "203.0.113.7",
//	 "headers": {"Cookie": "…"}}
//
// where what a client has not shown is left out. Address is the
// client's, as far as that is known. The application answers with
//
//   - 200 and a JSON object of at most 64 KiB: Rights, and beside them user and
//     id, which are the grant's User and ID, and expires, in Unix seconds, or
//     ttl, in seconds from now. A grant with neither does not expire;
//   - 401 or 403 to refuse: ErrUnauthorized. The client is told its text, of
//     256 bytes at most, if its content type is text/plain.
//
// Whatever else comes or does not, bad rights among it, is ErrUnavailable: the
// application is down, and so it is for redirects. What is remembered then goes
// on for as long as it would have, and so do connections that are held; for
// other requests clients are told to come back.
//
// The same question is asked once at a time, however many clients wait for its
// answer, and not again while the answer is remembered. The grant is issued at
// the time of the question.
type Webhook struct {
	options  WebhookOptions
	client   *http.Client
	grants   cache
	refusals cache
	flight   singleflight.Group
	slots    chan struct{} // one for each question that is being asked

	ctx   context.Context // ends questions
	stop  context.CancelFunc
	close sync.Once
}

var _ halley.Authorizer = (*Webhook)(nil)

// NewWebhook returns an authorizer, which its user closes. The error names the
// option at fault.
func NewWebhook(o WebhookOptions) (*Webhook, error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("auth: WebhookOptions%w", err)
	}
	w := &Webhook{
		options:  o,
		client:   clientOf(o.Client, o.MaxInFlight),
		grants:   newCache(o.Remember),
		refusals: newCache(o.Remember),
		slots:    make(chan struct{}, o.MaxInFlight),
	}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w, nil
}

// setDefaults fills in the defaults and checks the options. The error is
// the end of the option's name, and what is wrong.
func (o *WebhookOptions) setDefaults() error {
	if err := checkURL(o.URL); err != nil {
		return fmt.Errorf(".URL: %w", err)
	}
	if strings.ContainsFunc(o.Secret, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return errors.New(".Secret: only ASCII without spaces can be sent in a header")
	}
	if len(o.Headers) > 16 {
		return fmt.Errorf(".Headers: %d names, at most 16", len(o.Headers))
	}
	headers := make([]string, len(o.Headers))
	for i, name := range o.Headers {
		if name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fmt.Errorf(".Headers[%d]: %q is not a header's name", i, name)
		}
		headers[i] = http.CanonicalHeaderKey(name)
	}
	o.Headers = headers
	if err := checkGrant(o.Anonymous); err != nil {
		return fmt.Errorf(".Anonymous: %w", err)
	}
	o.Remember = cmp.Or(o.Remember, 10_000)
	o.GrantTTL = cmp.Or(o.GrantTTL, 5*time.Minute)
	o.RefusalTTL = cmp.Or(o.RefusalTTL, 5*time.Second)
	o.MaxInFlight = cmp.Or(o.MaxInFlight, 64)
	if o.MaxInFlight < 1 || o.MaxInFlight > 10_000 {
		return fmt.Errorf(".MaxInFlight is %d, not between 1 and 10000", o.MaxInFlight)
	}
	return duration("Timeout", &o.Timeout, 3*time.Second, time.Millisecond, time.Minute)
}

// Close ends questions that are being asked, and waits for their end.
func (w *Webhook) Close() error {
	w.close.Do(func() {
		w.stop()
		for range cap(w.slots) {
			w.slots <- struct{}{}
		}
		w.client.CloseIdleConnections()
	})
	return nil
}

// Authorize returns what the application says, or has said. It waits for it up
// to Timeout, or until ctx ends.
func (w *Webhook) Authorize(ctx context.Context, c halley.Credentials) (*halley.Grant, error) {
	q := w.question(c)
	if q.Token == "" && len(q.Headers) == 0 && w.options.Anonymous != nil {
		return w.options.Anonymous, nil
	}
	if len(q.Token) > MaxToken {
		return nil, fmt.Errorf("%w: a token of %d bytes, at most %d", halley.ErrUnauthorized, len(q.Token), MaxToken)
	}
	if !utf8.ValidString(q.Token) {
		return nil, fmt.Errorf("%w: the token is not UTF-8", halley.ErrUnauthorized)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err) // strings are always JSON
	}
	if len(body) > maxQuestion {
		return nil, fmt.Errorf("%w: token and headers of %d bytes, at most %d", halley.ErrUnauthorized, len(body), maxQuestion)
	}
	d := sha256.Sum256(body)
	if e, ok := w.remembered(d); ok {
		return e.grant, e.err
	}
	// Who waits for the answer may be gone before it comes, but others are not.
	ch := w.flight.DoChan(string(d[:]), func() (any, error) { return w.find(d, body) })
	select {
	case r := <-ch:
		if r.Err != nil {
			return nil, fmt.Errorf("auth: %w: %w", halley.ErrUnavailable, r.Err)
		}
		e := r.Val.(entry)
		return e.grant, e.err
	case <-ctx.Done():
		return nil, fmt.Errorf("auth: %w: %w", halley.ErrUnavailable, ctx.Err())
	}
}

// A question is what the application is told.
type question struct {
	Token   string            `json:"token,omitempty"`
	Origin  string            `json:"origin,omitempty"`
	Address string            `json:"address,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
}

func (w *Webhook) question(c halley.Credentials) question {
	q := question{Token: c.Token}
	if c.Address.IsValid() {
		q.Address = c.Address.String()
	}
	r := c.Request
	if r == nil {
		return q
	}
	q.Origin = r.Header.Get("Origin")
	for _, name := range w.options.Headers {
		if values := r.Header[name]; len(values) > 0 {
			if q.Headers == nil {
				q.Headers = make(map[string]string)
			}
			q.Headers[name] = strings.Join(values, ", ")
		}
	}
	return q
}

func (w *Webhook) remembered(d digest) (entry, bool) {
	if e, ok := w.grants.get(d); ok {
		return e, true
	}
	return w.refusals.get(d)
}

// find asks, and remembers the answer.
func (w *Webhook) find(d digest, body []byte) (entry, error) {
	// It may have come since this was looked up.
	if e, ok := w.remembered(d); ok {
		return e, nil
	}
	if w.ctx.Err() != nil {
		return entry{}, errors.New("the authorizer is closed")
	}
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	default:
		return entry{}, fmt.Errorf("%d questions are being asked", cap(w.slots))
	}
	asked := time.Now()
	e, err := w.ask(body)
	if err != nil {
		return entry{}, fmt.Errorf("the application cannot say: %w", err)
	}
	if e.err != nil {
		e.until = time.Now().Add(w.options.RefusalTTL)
		w.refusals.put(d, e)
		return e, nil
	}
	e.grant.Issued = asked
	e.until = time.Now().Add(w.options.GrantTTL)
	if t := e.grant.Expires; !t.IsZero() && t.Before(e.until) {
		e.until = t
	}
	w.grants.put(d, e)
	return e, nil
}

// ask sends a question and reads the answer.
func (w *Webhook) ask(body []byte) (entry, error) {
	ctx, cancel := context.WithTimeout(w.ctx, w.options.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.options.URL, bytes.NewReader(body))
	if err != nil {
		return entry{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/plain")
	req.Header.Set("User-Agent", "halley")
	if w.options.Secret != "" {
		req.Header.Set("Authorization", "Bearer "+w.options.Secret)
	}
	res, err := w.client.Do(req)
	if err != nil {
		return entry{}, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return entry{}, err
	}
	if len(answer) > maxAnswer {
		return entry{}, fmt.Errorf("an answer of over %d bytes", maxAnswer)
	}
	return readAnswer(res.StatusCode, res.Header.Get("Content-Type"), answer)
}

// readAnswer returns the grant or refusal that an answer is, or an error for
// what is neither.
func readAnswer(status int, contentType string, body []byte) (entry, error) {
	switch status {
	case http.StatusOK:
		g, err := readGrant(body)
		if err != nil {
			return entry{}, fmt.Errorf("its grant: %w", err)
		}
		if !g.Expires.IsZero() && !time.Now().Before(g.Expires) {
			return entry{err: fmt.Errorf("%w: the grant has expired", halley.ErrUnauthorized)}, nil
		}
		return entry{grant: g}, nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return entry{err: fmt.Errorf("%w: %s", halley.ErrUnauthorized, reason(contentType, body))}, nil
	}
	return entry{}, fmt.Errorf("it answered with status %d", status)
}

// readGrant reads Rights with what only a grant has.
func readGrant(body []byte) (*halley.Grant, error) {
	m, err := members(body)
	if err != nil {
		return nil, err
	}
	var user, id string
	var ttl float64
	var expires time.Time
	_, hasExpires := m["expires"]
	_, hasTTL := m["ttl"]
	if err := cmp.Or(
		take(m, "user", "a string", &user),
		take(m, "id", "a string", &id),
		take(m, "ttl", "a number of seconds", &ttl),
		takeTime(m, "expires", &expires),
	); err != nil {
		return nil, err
	}
	if err := cmp.Or(checkName("user", user), checkName("id", id)); err != nil {
		return nil, err
	}
	const year = 365 * 24 * 3600
	switch {
	case hasExpires && hasTTL:
		return nil, errors.New("expires and ttl exclude each other")
	case hasTTL && (ttl <= 0 || ttl > 100*year):
		return nil, errors.New("ttl: want seconds, more than 0 and up to 100 years")
	case hasTTL:
		expires = time.Now().Add(time.Duration(ttl * float64(time.Second)))
	}
	var r Rights
	if err := cmp.Or(r.take(m), noneLeft(m)); err != nil {
		return nil, err
	}
	g := r.grant()
	g.User, g.ID, g.Expires = user, id, expires
	return g, nil
}

// reason returns the text of a refusal, as one short line.
func reason(contentType string, body []byte) string {
	const none = "the application has refused it"
	if t, _, err := mime.ParseMediaType(contentType); err != nil || t != "text/plain" {
		return none
	}
	text := strings.ToValidUTF8(string(body[:min(len(body), maxReason)]), "")
	words := strings.FieldsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f && c <= 0xa0 || c == '\u2028' || c == '\u2029' })
	return cmp.Or(strings.Join(words, " "), none)
}
