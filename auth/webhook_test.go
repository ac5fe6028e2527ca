package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/auth"
)

func newWebhook(t *testing.T, b *backend, change func(*auth.WebhookOptions)) *auth.Webhook {
	t.Helper()
	o := auth.WebhookOptions{URL: "http://backend/allow", Client: b.client}
	if change != nil {
		change(&o)
	}
	w, err := auth.NewWebhook(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() }) // it has no error
	return w
}

// says answers with a text.
func says(status int, contentType, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text) // a client that is gone
	}
}

func grants(text string) http.HandlerFunc { return says(200, "application/json", text) }

func TestWebhookQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got *http.Request
		var body string
		b := newBackend(t)
		b.answer(func(w http.ResponseWriter, r *http.Request) {
			got, body = r, string(must(io.ReadAll(r.Body)))
			grants(`{}`)(w, r)
		})
		w := newWebhook(t, b, func(o *auth.WebhookOptions) { o.Secret, o.Headers = "hush", []string{"cookie", "X-Tenant", "Accept"} })
		r := must(http.NewRequest("POST", "http://halley/comet/publish", strings.NewReader("a message")))
		r.RemoteAddr = "192.0.2.1:1234" // a proxy's
		r.Header = http.Header{
			"Origin": {"https://app.example.com"}, "Cookie": {"a=1; b=\"<2>\""}, "X-Tenant": {"x", "y"},
			"Authorization": {"Bearer t"}, "X-Other": {"z"},
		}
		if _, err := w.Authorize(t.Context(), halley.Credentials{Token: `t"` + "\n", Address: netip.MustParseAddr("2001:db8::1"), Request: r}); err != nil {
			t.Fatal(err)
		}
		var question any
		if err := json.Unmarshal([]byte(body), &question); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{
			"token": "t\"\n", "origin": "https://app.example.com", "address": "2001:db8::1",
			"headers": map[string]any{"Cookie": `a=1; b="<2>"`, "X-Tenant": "x, y"},
		}
		if !reflect.DeepEqual(question, want) {
			t.Errorf("the application was asked %s, want %v", body, want)
		}
		if got.Method != "POST" || got.URL.Path != "/allow" || got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Authorization") != "Bearer hush" {
			t.Errorf("it was asked by %s %s %v", got.Method, got.URL, got.Header)
		}

		if _, err := w.Authorize(t.Context(), halley.Credentials{}); err != nil || body != `{}` {
			t.Errorf("without anything it was asked %s, and the error is %v", body, err)
		}
	})
}

func TestWebhookGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		for what, tt := range map[string]struct {
			answer string
			want   halley.Grant
		}{
			"nothing": {`{}`, halley.Grant{}},
			"all": {
				fmt.Sprintf(`{"user":"ann","id":"s1","expires":%d,"subscribe":["a/**"],"publish":["b"],"admin":true,"limits":{"connections":1,"publishRate":2.5,"publishBurst":3}}`, now.Unix()+60),
				halley.Grant{
					User: "ann", ID: "s1", Expires: now.Add(time.Minute), Subscribe: []string{"a/**"}, Publish: []string{"b"}, Admin: true,
					Limits: halley.Limits{Connections: 1, PublishRate: 2.5, PublishBurst: 3},
				},
			},
			"ttl":   {`{"ttl":1.5}`, halley.Grant{Expires: now.Add(1500 * time.Millisecond)}},
			"nulls": {`{"user":null,"id":null,"expires":null,"ttl":null,"subscribe":null,"limits":null}`, halley.Grant{}},
		} {
			b := newBackend(t)
			b.answer(grants(tt.answer))
			tt.want.Issued = now
			if got := wantGranted(t, what, newWebhook(t, b, nil), "t"); !reflect.DeepEqual(*got, tt.want) {
				t.Errorf("%s: got %+v, want %+v", what, *got, tt.want)
			}
		}
	})
}

func TestWebhookRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const none = "halley: unauthorized: the application has refused it"
		for what, tt := range map[string]struct {
			h    http.HandlerFunc
			want string
		}{
			"401":                {says(401, "text/plain; charset=utf-8", "the session is over\n"), "halley: unauthorized: the session is over"},
			"403":                {says(403, "text/plain", "ann is  banned"), "halley: unauthorized: ann is banned"},
			"HTML":               {says(401, "text/html", "<h1>401</h1>"), none},
			"JSON":               {says(401, "application/json", `{"user":"ann","subscribe":["**"]}`), none},
			"no text":            {says(401, "text/plain", " \n"), none},
			"a header in it":     {says(401, "text/plain", "no\r\nSet-Cookie: a=b\r\n\r\n\x00\x1b[1m\u0085\u2028x"), "halley: unauthorized: no Set-Cookie: a=b [1m x"},
			"not UTF-8":          {says(401, "text/plain", "n\xffo"), "halley: unauthorized: no"},
			"a long text":        {says(401, "text/plain", strings.Repeat("x", 60_000)), "halley: unauthorized: " + strings.Repeat("x", 256)},
			"a cut character":    {says(401, "text/plain", strings.Repeat("x", 255)+"ü"), "halley: unauthorized: " + strings.Repeat("x", 255)},
			"a grant that ended": {grants(`{"expires":1,"subscribe":["**"]}`), "halley: unauthorized: the grant has expired"},
		} {
			b := newBackend(t)
			b.answer(tt.h)
			if got := wantRefused(t, what, newWebhook(t, b, nil), "t"); got != tt.want {
				t.Errorf("%s: %q, want %q", what, got, tt.want)
			}
		}
	})
}

// What is neither a grant nor a refusal is an application that is down, and is
// not remembered.
func TestWebhookDown(t *testing.T) {
	const good = `{"subscribe":["**"]}`
	hang := func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() }
	for what, h := range map[string]http.HandlerFunc{
		"refused connections": nil,
		"a cut answer":        func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"no answer":           hang,
		"half an answer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "99")
			grants(good)(w, r)
		},
		"an endless answer": func(w http.ResponseWriter, r *http.Request) { grants(good+strings.Repeat(" ", 1<<16))(w, r) },
		"an answer in pieces": func(w http.ResponseWriter, r *http.Request) {
			grants(good)(w, r)
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		},
		"201":                  says(201, "application/json", good),
		"204":                  says(204, "", ""),
		"a redirect":           func(w http.ResponseWriter, r *http.Request) { redirect(w, r, []byte(good)) },
		"400":                  says(400, "text/plain", "no"),
		"404":                  says(404, "application/json", good),
		"429":                  says(429, "text/plain", "no"),
		"500":                  says(500, "application/json", good),
		"nothing":              grants(``),
		"HTML":                 grants(`<html>`),
		"null":                 grants(`null`),
		"a list":               grants(`[` + good + `]`),
		"two":                  grants(good + good),
		"a bad pattern":        grants(`{"subscribe":["a","a/../b"]}`),
		"a reserved channel":   grants(`{"publish":["meta/connect"]}`),
		"an unknown member":    grants(`{"subscibe":["a"]}`),
		"another letter":       grants(`{"Subscribe":["a"]}`),
		"a member twice":       grants(`{"subscribe":["a"],"subscribe":["**"]}`),
		"both expires and ttl": grants(`{"expires":9999999999,"ttl":5}`),
		"no ttl":               grants(`{"ttl":0}`),
		"a negative ttl":       grants(`{"ttl":-5}`),
		"a huge ttl":           grants(`{"ttl":1e18}`),
		"a ttl in words":       grants(`{"ttl":"5"}`),
		"negative expires":     grants(`{"expires":-1}`),
		"huge expires":         grants(`{"expires":1e300}`),
		"expires in words":     grants(`{"expires":"2030-01-01"}`),
		"a user with a zero":   grants(`{"user":"a\u0000b"}`),
		"a long user":          grants(`{"user":"` + strings.Repeat("a", 256) + `"}`),
		"a user in numbers":    grants(`{"user":7}`),
		"not UTF-8":            grants("{\"user\":\"\xff\"}"),
		"too large a limit":    grants(`{"limits":{"publishBurst":1e300}}`),
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBackend(t)
				b.answer(h)
				w := newWebhook(t, b, nil)
				begun := time.Now()
				wantUnavailable(t, what, w, "t")
				if d := time.Since(begun); d > 3*time.Second {
					t.Errorf("it took %v, want 3 s at most", d)
				}
				b.answer(grants(good))
				wantGranted(t, "a question after it", w, "t")
			})
		})
	}
}

// What is remembered goes on while the application is down, and no longer than
// it says.
func TestWebhookRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		w := newWebhook(t, b, nil)
		wants := func(what string, want int) {
			t.Helper()
			if n := b.asked(); n != want {
				t.Errorf("%s: %d questions, want %d", what, n, want)
			}
		}
		b.answer(grants(`{"user":"ann","ttl":60}`))
		wantGranted(t, "short", w, "short")
		b.answer(grants(`{"user":"bob","ttl":3600}`))
		wantGranted(t, "long", w, "long")
		b.answer(grants(`{"user":"eve"}`))
		wantGranted(t, "forever", w, "forever")
		b.answer(says(401, "text/plain", "no"))
		wantRefused(t, "refused", w, "refused")
		wants("at first", 4)

		b.answer(nil)
		for token, user := range map[string]string{"short": "ann", "long": "bob", "forever": "eve"} {
			if g := wantGranted(t, token, w, token); g.User != user {
				t.Errorf("%s: user %s, want %s", token, g.User, user)
			}
		}
		wantRefused(t, "refused", w, "refused")
		wantUnavailable(t, "new", w, "new")
		time.Sleep(5 * time.Second)
		wantUnavailable(t, "refused, after 5 s", w, "refused")
		time.Sleep(55*time.Second - time.Nanosecond)
		wantGranted(t, "short, before its end", w, "short")
		time.Sleep(time.Nanosecond)
		wantUnavailable(t, "short, at its end", w, "short")
		time.Sleep(4*time.Minute - time.Nanosecond)
		wantGranted(t, "long, before 5 minutes", w, "long")
		wantGranted(t, "forever, before 5 minutes", w, "forever")
		time.Sleep(time.Nanosecond)
		wantUnavailable(t, "long, after 5 minutes", w, "long")
		wantUnavailable(t, "forever, after 5 minutes", w, "forever")
		wants("while it was down", 0)

		b.answer(says(403, "text/plain", "banned"))
		wantRefused(t, "long, once it is back", w, "long")
		wants("once it is back", 1)
	})
}

func TestWebhookRemembersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, change := range map[string]func(*auth.WebhookOptions){
			"negative times": func(o *auth.WebhookOptions) { o.GrantTTL, o.RefusalTTL = -1, -1 },
			"no room":        func(o *auth.WebhookOptions) { o.Remember = -1 },
		} {
			b := newBackend(t)
			w := newWebhook(t, b, change)
			b.answer(grants(`{}`))
			wantGranted(t, what, w, "t")
			wantGranted(t, what, w, "t")
			b.answer(says(401, "", ""))
			wantRefused(t, what, w, "t")
			wantRefused(t, what, w, "t")
			if n := b.asked(); n != 4 {
				t.Errorf("%s: %d questions, want 4", what, n)
			}
		}
	})
}

// A flood of bad tokens does not push out good ones.
func TestWebhookFloodOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		w := newWebhook(t, b, func(o *auth.WebhookOptions) { o.Remember = 3 })
		b.answer(grants(`{}`))
		wantGranted(t, "good", w, "good")
		b.answer(says(401, "", ""))
		for i := range 100 {
			wantRefused(t, "bad", w, fmt.Sprint(i))
		}
		wantGranted(t, "good", w, "good")
		b.answer(grants(`{}`))
		for _, token := range []string{"a", "b", "c"} { // and the bound holds
			wantGranted(t, token, w, token)
		}
		b.answer(says(401, "", ""))
		wantRefused(t, "good, when there is no room", w, "good")
	})
}

// Whatever differs in what a client shows is another question.
func TestWebhookTellsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.answer(func(w http.ResponseWriter, r *http.Request) {
			sum := fmt.Sprintf("%x", must(io.ReadAll(r.Body)))
			grants(`{"id":"`+sum[:min(len(sum), 255)]+`"}`)(w, r)
		})
		w := newWebhook(t, b, func(o *auth.WebhookOptions) { o.Headers = []string{"Cookie", "X-A"} })
		here, there := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		request := func(header ...string) *http.Request {
			r := &http.Request{Header: http.Header{}}
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			return r
		}
		seen := map[string]int{}
		for i, c := range []halley.Credentials{
			{Address: here, Request: request()},
			{Address: there, Request: request()},
			{Address: here, Request: request(), Token: "t"},
			{Address: here, Request: request("Cookie", "t")},
			{Address: here, Request: request("X-A", "t")},
			{Address: here, Request: request("Origin", "t")},
			{Address: here, Request: request("Cookie", "t"), Token: "t"},
			{Address: here, Request: request("Cookie", `t","X-A":"t`)},
			{Address: here, Request: request("Cookie", "t", "X-A", "t")},
		} {
			g, err := w.Authorize(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if k, ok := seen[g.ID]; ok {
				t.Errorf("cases %d and %d are one question: %s", k, i, g.ID)
			}
			seen[g.ID] = i
		}
		// What is not told makes no difference.
		b.asked()
		if _, err := w.Authorize(t.Context(), halley.Credentials{Address: here, Request: request("X-B", "t"), Token: "t"}); err != nil || b.asked() > 0 {
			t.Errorf("another header: asked again, error %v", err)
		}
	})
}

func TestWebhookAnonymous(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.answer(grants(`{"user":"ann"}`))
		open := &halley.Grant{Subscribe: []string{"news"}}
		w := newWebhook(t, b, func(o *auth.WebhookOptions) { o.Anonymous, o.Headers = open, []string{"Cookie"} })
		if g := wantGranted(t, "nothing", w, ""); g != open || b.asked() > 0 {
			t.Errorf("a client without anything: %+v", g)
		}
		r := &http.Request{Header: http.Header{"Cookie": {"s=1"}}}
		if g, err := w.Authorize(t.Context(), halley.Credentials{Request: r}); err != nil || g.User != "ann" {
			t.Errorf("a client with a cookie: %+v, %v", g, err)
		}
		if g := wantGranted(t, "a token", w, "t"); g.User != "ann" {
			t.Errorf("a client with a token: %+v", g)
		}
	})
}

// The same question is asked once, and those who are gone do not end it.
func TestWebhookAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.answer(func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Second); grants(`{}`)(w, r) })
		w := newWebhook(t, b, nil)
		gone, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := w.Authorize(gone, halley.Credentials{Token: "t"}); !errors.Is(err, halley.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who does not wait: %v", err)
		}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { wantGranted(t, "who waits", w, "t") })
		}
		wg.Wait()
		if n := b.asked(); n != 1 {
			t.Errorf("%d questions, want 1", n)
		}
	})
}

// A flood of clients is not one of the application.
func TestWebhookInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.answer(func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Second); grants(`{}`)(w, r) })
		w := newWebhook(t, b, func(o *auth.WebhookOptions) { o.MaxInFlight = 5 })
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() { wantGranted(t, "among the first", w, fmt.Sprint("first", i)) })
		}
		synctest.Wait()
		begun := time.Now()
		for i := range 100 {
			wantUnavailable(t, "beyond them", w, fmt.Sprint("more", i))
		}
		if time.Since(begun) > 0 {
			t.Errorf("those beyond waited %v", time.Since(begun))
		}
		wg.Go(func() { wantGranted(t, "who asks what is being asked", w, "first0") })
		wg.Wait()
		if n := b.asked(); n != 5 {
			t.Errorf("%d questions, want 5", n)
		}
		wantGranted(t, "after them", w, "more0")
	})
}

func TestWebhookBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		b.answer(grants(`{}`))
		w := newWebhook(t, b, func(o *auth.WebhookOptions) { o.Headers = []string{"Cookie"} })
		wantGranted(t, "the longest token", w, strings.Repeat("t", auth.MaxToken))
		wantRefused(t, "a longer one", w, strings.Repeat("t", auth.MaxToken+1))
		wantRefused(t, "a token that is not UTF-8", w, "\xff")
		r := &http.Request{Header: http.Header{"Cookie": {strings.Repeat("c", 1<<16)}}}
		if _, err := w.Authorize(t.Context(), halley.Credentials{Request: r}); !errors.Is(err, halley.ErrUnauthorized) {
			t.Errorf("a huge cookie: %v", err)
		}
		if n := b.asked(); n != 1 {
			t.Errorf("%d questions, want 1", n)
		}
	})
}

func TestWebhookClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		w := newWebhook(t, b, func(o *auth.WebhookOptions) { o.Timeout = time.Minute })
		b.answer(grants(`{}`))
		wantGranted(t, "known", w, "known")
		b.answer(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() })
		var wg sync.WaitGroup
		wg.Go(func() { wantUnavailable(t, "who waits", w, "t") })
		synctest.Wait()
		begun := time.Now()
		for range 2 {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		wantUnavailable(t, "after Close", w, "t")
		wantGranted(t, "known, after Close", w, "known")
		if d := time.Since(begun); d > 0 {
			t.Errorf("it took %v", d)
		}
		if n := b.asked(); n != 2 {
			t.Errorf("%d questions, want 2", n)
		}
	})
}

func TestWebhookOptions(t *testing.T) {
	for _, tt := range []struct {
		what string
		o    auth.WebhookOptions
		want string
	}{
		{"nothing", auth.WebhookOptions{}, `URL: "" is not`},
		{"no http", auth.WebhookOptions{URL: "unix:///a"}, `URL: "unix:///a" is not`},
		{"no host", auth.WebhookOptions{URL: "https:///a"}, "URL: "},
		{"secret", auth.WebhookOptions{URL: "http://a", Secret: "a\nb"}, "Secret: "},
		{"header", auth.WebhookOptions{URL: "http://a", Headers: []string{"Cookie", "a b"}}, `Headers[1]: "a b"`},
		{"headers", auth.WebhookOptions{URL: "http://a", Headers: make([]string, 17)}, "Headers: 17 names"},
		{"timeout", auth.WebhookOptions{URL: "http://a", Timeout: time.Hour}, "Timeout is 1h0m0s"},
		{"in flight", auth.WebhookOptions{URL: "http://a", MaxInFlight: -1}, "MaxInFlight is -1"},
		{"anonymous", auth.WebhookOptions{URL: "http://a", Anonymous: &halley.Grant{Publish: []string{"meta/a"}}}, "Anonymous: publish[0]"},
	} {
		_, err := auth.NewWebhook(tt.o)
		if err == nil || !strings.HasPrefix(err.Error(), "auth: WebhookOptions.") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.what, err, tt.want)
		}
	}
}
