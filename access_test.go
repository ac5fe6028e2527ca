package halley_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/halley-comet/halley"
)

// people is an Authorizer whose tokens are the users' names: those of
// everybody, who may use the channels below their own name, and read news.
type people struct {
	expires atomic.Pointer[time.Time] // of the tokens that are given from now on
	asked   atomic.Int64
}

func (p *people) Authorize(_ context.Context, c halley.Credentials) (*halley.Grant, error) {
	p.asked.Add(1)
	switch {
	case c.Token == "":
		return &halley.Grant{Subscribe: []string{"news"}}, nil
	case c.Token == "down":
		return nil, halley.ErrUnavailable
	case strings.HasPrefix(c.Token, "bad"):
		return nil, fmt.Errorf("%w: %s", halley.ErrUnauthorized, "nobody's token")
	}
	user, id, _ := strings.Cut(c.Token, "#")
	g := &halley.Grant{
		User: user, ID: id, Admin: user == "root", Issued: time.Now().Add(-time.Minute),
		Subscribe: []string{user + "/**", "news"}, Publish: []string{user + "/**"},
	}
	if e := p.expires.Load(); e != nil {
		g.Expires = *e
	}
	if user == "root" {
		g.Subscribe, g.Publish = []string{"**"}, []string{"**"}
	}
	return g, nil
}

// newPeople serves a hub for people on a real socket, in front of which it is
// or not.
func newPeople(t *testing.T, o halley.Options, front bool) (*people, *halley.Hub, string) {
	t.Helper()
	p := &people{}
	if o.Authorizer == nil {
		o.Authorizer = p
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 200 * time.Millisecond
	}
	hub := newHub(t, o)
	return p, hub, serveHub(t, hub, front)
}

// serveHub serves a hub on a real socket, and returns its mount.
func serveHub(t *testing.T, hub *halley.Hub, front bool) string {
	t.Helper()
	server := &http.Server{Handler: hub}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mount := "http://" + l.Addr().String() + "/comet/"
	if front {
		l = hub.Front(server, l)
	}
	go func() { _ = server.Serve(l) }() // until it is closed
	t.Cleanup(func() { _ = server.Close() })
	return mount
}

// answer is what a request was answered with.
type answer struct {
	status int
	header http.Header
	body   string
	code   string
}

func ask(t *testing.T, method, target, body string, headers ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Code string }
	_ = json.Unmarshal(b, &p) // others have none
	return answer{resp.StatusCode, resp.Header, string(b), p.Code}
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// Who may do what, by each way to ask (protocol 23).
func TestAuthorize(t *testing.T) {
	_, _, mount := newPeople(t, halley.Options{Origins: []string{"https://app.example"}}, true)
	const form = "Content-Type: application/x-www-form-urlencoded"
	ticket := func(token string) string {
		t.Helper()
		a := ask(t, "POST", mount+"ticket", "", bearer(token))
		var got struct {
			Ticket  string
			Expires int
		}
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 || len(got.Ticket) < 20 || got.Expires != 10 {
			t.Fatalf("a ticket: %+v, %v", a, err)
		}
		return got.Ticket
	}
	used := ticket("ann")
	if a := ask(t, "GET", mount+"history?channel=ann/x&ticket="+used, ""); a.status != 200 {
		t.Errorf("a ticket: %+v", a)
	}
	poll := "subscribe?timeout=0&channel="
	for _, c := range []struct {
		method, target, body string
		headers              []string
		status               int
		code                 string
	}{
		// Reading.
		{"GET", poll + "news", "", nil, 200, ""},
		{"GET", poll + "ann/x", "", nil, 403, "forbidden-channel"},
		{"GET", poll + "ann/x", "", []string{bearer("ann")}, 200, ""},
		{"GET", poll + "ann/**", "", []string{bearer("ann")}, 200, ""},
		{"GET", poll + "ann/a/b/*", "", []string{"Authorization: bEARER  ann "}, 200, ""},
		{"GET", poll + "ann", "", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"GET", poll + "Ann/x", "", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"GET", poll + "**", "", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"GET", poll + "*", "", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"GET", poll + "bob/x", "", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"GET", poll + "ann/x&channel=bob/x", "", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"GET", poll + "ann%2F..%2Fbob", "", []string{bearer("ann")}, 400, "invalid-channel"},
		{"GET", poll + "ann%252Fx", "", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"GET", poll + "%D0%B0nn/x", "", []string{bearer("ann")}, 400, "invalid-channel"}, // a Cyrillic а
		{"GET", poll + "**", "", []string{bearer("root")}, 200, ""},
		{"POST", "subscribe", "timeout=0&channel=ann/x&token=ann", []string{form}, 200, ""},
		{"GET", "history?channel=ann/x", "", nil, 403, "forbidden-channel"},
		{"GET", "history?channel=ann/x", "", []string{bearer("ann")}, 200, ""},
		{"GET", "history?channel=ann/x&channel=bob/**", "", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"GET", "info", "", nil, 200, ""},
		// Bad credentials.
		{"GET", poll + "news", "", []string{bearer("bad")}, 401, "unauthorized"},
		{"GET", poll + "news", "", []string{"Authorization: Basic YW5uOmFubg=="}, 401, "unauthorized"},
		{"GET", poll + "news", "", []string{"Authorization: Bearer"}, 401, "unauthorized"},
		{"GET", poll + "news", "", []string{bearer("ann"), bearer("bob")}, 401, "unauthorized"},
		{"GET", poll + "news", "", []string{bearer(strings.Repeat("x", 8193))}, 401, "unauthorized"},
		{"GET", poll + "news", "", []string{bearer("down")}, 503, "authorizer-unavailable"},
		{"POST", "publish?channel=ann/x", "1", []string{bearer("bad")}, 401, "unauthorized"},
		// Publishing.
		{"POST", "publish?channel=ann/x", "1", nil, 403, "forbidden-channel"},
		{"POST", "publish?channel=ann/x", "1", []string{bearer("ann")}, 200, ""},
		{"POST", "publish?channel=news", "1", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"POST", "publish?channel=ann/x&channel=bob/x", "1", []string{bearer("ann")}, 403, "forbidden-channel"},
		{"POST", "publish", "{\"channel\":\"ann/1\",\"data\":1}\n{\"channel\":\"bob/1\",\"data\":1}\n", []string{bearer("ann"), "Content-Type: application/x-ndjson"}, 403, "forbidden-channel"},
		{"POST", "publish?channel=ann/x", "channel=bob/x&data=1", []string{bearer("ann"), form}, 403, "forbidden-channel"},
		{"POST", "publish?channel=bob/x", "1", []string{bearer("root")}, 200, ""},
		// Tokens in URLs, tickets, cookies.
		{"GET", poll + "ann/x&token=ann", "", nil, 400, "token-in-url"},
		{"POST", "publish?channel=ann/x&token=ann", "1", nil, 400, "token-in-url"},
		{"GET", poll + "ann/x&ticket=" + used, "", nil, 401, "invalid-ticket"},
		{"GET", poll + "ann/x&ticket=x", "", nil, 401, "invalid-ticket"},
		{"GET", poll + "ann/x&ticket=" + ticket("ann"), "", nil, 200, ""},
		{"GET", poll + "bob/x&ticket=" + ticket("ann"), "", nil, 403, "forbidden-channel"},
		{"POST", "publish?channel=ann/x&ticket=" + ticket("ann"), "1", nil, 200, ""},
		{"GET", poll + "ann/x", "", []string{"Cookie: comet-token=ann"}, 200, ""},
		{"GET", poll + "ann/x", "", []string{"Cookie: comet-token=ann", "Origin: https://app.example"}, 200, ""},
		{"GET", poll + "ann/x", "", []string{"Cookie: comet-token=ann", "Origin: https://evil.example"}, 403, "forbidden-origin"},
		{"GET", poll + "ann/x", "", []string{"Cookie: comet-token=ann", "Origin: http://localhost:1"}, 403, "forbidden-origin"},
		{"GET", poll + "ann/x", "", []string{"Cookie: comet-token=ann", "Sec-Fetch-Site: cross-site", "Referer: http://localhost:1/"}, 403, "forbidden-origin"},
		{"GET", poll + "ann/x&transport=jsonp&callback=f", "", []string{"Cookie: comet-token=ann"}, 200, ""}, // an error within
		{"GET", "history?channel=ann/x", "", []string{"Cookie: comet-token=ann", "Origin: https://evil.example"}, 403, "forbidden-origin"},
		{"POST", "publish?channel=ann/x", "1", []string{"Cookie: comet-token=ann"}, 403, "forbidden-origin"},
		{"POST", "publish?channel=ann/x", "1", []string{"Cookie: comet-token=ann", "Sec-Fetch-Site: same-origin"}, 200, ""},
		{"POST", "publish?channel=ann/x", "1", []string{"Cookie: comet-token=ann", "Origin: https://app.example"}, 200, ""},
		{"POST", "publish?channel=ann/x", "1", []string{"Cookie: comet-token=ann", "Origin: https://evil.example"}, 403, "forbidden-origin"},
		{"POST", "publish?channel=ann/x", "1", []string{"Cookie: comet-token=ann", "Origin: null"}, 403, "forbidden-origin"},
		{"POST", "ticket", "", nil, 401, "unauthorized"},
		{"POST", "ticket", "", []string{bearer("bad")}, 401, "unauthorized"},
		{"POST", "ticket", "", []string{"Cookie: comet-token=ann", "Origin: https://app.example"}, 401, "unauthorized"},
		{"POST", "ticket?ticket=" + ticket("ann"), "", nil, 401, "unauthorized"},
		// What is for administrators.
		{"POST", "revoke?user=bob", "", nil, 403, "forbidden"},
		{"POST", "revoke?user=bob", "", []string{bearer("ann")}, 403, "forbidden"},
		{"POST", "revoke?user=nobody", "", []string{bearer("root")}, 200, ""},
		{"POST", "revoke", "", []string{bearer("root")}, 400, "invalid-parameter"},
		{"POST", "revoke?user=bob", "", []string{"Cookie: comet-token=root", "Origin: https://app.example"}, 403, "forbidden"},
	} {
		a := ask(t, c.method, mount+c.target, c.body, c.headers...)
		if a.status != c.status || a.code != c.code {
			t.Errorf("%s %s %q %q: got %d %s, want %d %s: %.200s", c.method, c.target, c.body, c.headers, a.status, a.code, c.status, c.code, a.body)
		}
		if a.status == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: WWW-Authenticate is %q", c.target, a.header.Get("WWW-Authenticate"))
		}
		if a.status == 503 && a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.target)
		}
		if strings.Contains(c.target, "jsonp") && !strings.Contains(a.body, "invalid-transport") {
			t.Errorf("%s: %s", c.target, a.body)
		}
	}
}

// streams are the transports that are held open, by what they are asked with.
var streams = []string{"sse", "sse&format=envelope", "xhr-streaming", "multipart&format=envelope", "iframe&callback=f", "long-polling&timeout=60", "jsonp&callback=f&timeout=60"}

// listen opens a stream and returns its lines, and a function that closes it.
func listen(t *testing.T, target string, headers ...string) (<-chan string, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(cancel)
	return lines, cancel
}

// dial opens a WebSocket, and returns what comes and what sends a frame.
func dial(t *testing.T, target string, headers ...string) (<-chan string, func(frame string)) {
	t.Helper()
	h := http.Header{}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	c, early, _, err := ws.Dialer{Header: ws.HandshakeHeaderHTTP(h)}.Dial(t.Context(), strings.Replace(target, "http", "ws", 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the server may have closed it
	from := io.Reader(c)
	if early != nil {
		from = io.MultiReader(early, c)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for {
			b, err := wsutil.ReadServerText(struct {
				io.Reader
				io.Writer
			}{from, c})
			if err != nil {
				return
			}
			lines <- string(b)
		}
	}()
	return lines, func(frame string) {
		t.Helper()
		if err := wsutil.WriteClientText(c, []byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
}

// until reads lines until one has the text; or to the end, with "".
func until(t *testing.T, what string, lines <-chan string, text string) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		select {
		case line, ok := <-lines:
			switch {
			case !ok && text == "":
				return
			case !ok:
				t.Fatalf("%s: ended without %q", what, text)
			case text != "" && strings.Contains(line, text):
				return
			}
		case <-late:
			t.Fatalf("%s: no %q", what, text)
		}
	}
}

// held waits until a hub has so many connections.
func held(t *testing.T, hub *halley.Hub, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); hub.Connections() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections, want %d", hub.Connections(), n)
		}
	}
}

// A connection ends when its token does, with a word, on each transport, parked
// or not; and so it does when the token is revoked.
func TestTokenEnds(t *testing.T) {
	for name, o := range map[string]halley.Options{"parked": {}, "not parked": {NoParking: true}} {
		t.Run(name, func(t *testing.T) {
			for _, how := range []string{"expired", "user", "jti"} {
				t.Run(how, func(t *testing.T) {
					p, hub, mount := newPeople(t, o, true)
					if how == "expired" {
						soon := time.Now().Add(500 * time.Millisecond)
						p.expires.Store(&soon)
					}
					all := map[string]<-chan string{}
					for _, s := range streams {
						all[s], _ = listen(t, mount+"subscribe?channel=ann/x&transport="+s, bearer("ann#7"))
					}
					all["websocket"], _ = dial(t, mount+"subscribe?channel=ann/x", bearer("ann#7"))
					held(t, hub, len(all))
					p.expires.Store(nil)
					other, stop := listen(t, mount+"subscribe?channel=bob/x&transport=sse", bearer("bob#8"))
					held(t, hub, len(all)+1)
					want, query := "token-revoked", "user=ann"
					switch how {
					case "expired":
						want = "token-expired"
					case "jti":
						query = "jti=7"
					}
					if how != "expired" {
						a := ask(t, "POST", mount+"revoke?"+query, "", bearer("root"))
						if a.body != fmt.Sprintf(`{"connections":%d}`, len(all)) {
							t.Errorf("revoke: %+v", a)
						}
						if a := ask(t, "GET", mount+"history?channel=ann/x", "", bearer("ann#7")); a.code != want {
							t.Errorf("a revoked token: %+v", a)
						}
						status := 200
						if how == "user" {
							status = 401
						}
						if a := ask(t, "GET", mount+"history?channel=ann/x", "", bearer("ann#9")); a.status != status {
							t.Errorf("another token of the user: %+v", a)
						}
					}
					for s, lines := range all {
						until(t, s, lines, want)
						until(t, s, lines, "")
					}
					ask(t, "POST", mount+"publish?channel=bob/x", "still", bearer("bob#8"), "Content-Type: text/plain")
					until(t, "another user's", other, "still")
					stop()
					held(t, hub, 0)
				})
			}
		})
	}
}

// A token that is renewed holds the streams on, by request and by frame.
func TestRenew(t *testing.T) {
	for name, o := range map[string]halley.Options{"parked": {}, "not parked": {NoParking: true}} {
		t.Run(name, func(t *testing.T) {
			p, hub, mount := newPeople(t, o, true)
			soon := time.Now().Add(time.Second)
			p.expires.Store(&soon)
			stream, _ := listen(t, mount+"subscribe?channel=ann/x&transport=sse", bearer("ann#1"))
			kept, send := dial(t, mount+"subscribe?channel=ann/x", bearer("ann#1"))
			lost, _ := dial(t, mount+"subscribe?channel=ann/x", bearer("ann#2"))
			held(t, hub, 3)
			p.expires.Store(nil)
			if a := ask(t, "POST", mount+"renew", "old=ann%231", bearer("bob"), "Content-Type: application/x-www-form-urlencoded"); a.code != "forbidden" {
				t.Errorf("another user's token: %+v", a)
			}
			for _, token := range []string{"bob", "bad", "ann#3"} {
				frame := fmt.Sprintf(`{"renew":%q,"ref":%q}`, token, token)
				send(frame)
				until(t, frame, kept, `"ref":"`+token+`"`)
			}
			if a := ask(t, "POST", mount+"renew", "old="+url.QueryEscape("ann#1"), bearer("ann#4"), "Content-Type: application/x-www-form-urlencoded"); a.body != `{"connections":1}` {
				t.Errorf("renew: %+v", a)
			}
			until(t, "not renewed", lost, "token-expired")
			ask(t, "POST", mount+"publish?channel=ann/x", "still", bearer("ann"), "Content-Type: text/plain")
			until(t, "renewed by request", stream, "still")
			until(t, "renewed by frame", kept, "still")
			// The WebSocket is held by the new token alone.
			if a := ask(t, "POST", mount+"revoke?jti=3", "", bearer("root")); a.body != `{"connections":1}` {
				t.Errorf("revoke: %+v", a)
			}
			until(t, "the new token", kept, "token-revoked")
		})
	}
}

// A WebSocket's frames are held to its token's rights.
func TestFramesAreAuthorized(t *testing.T) {
	_, _, mount := newPeople(t, halley.Options{}, true)
	lines, send := dial(t, mount+"subscribe", bearer("ann"))
	for _, f := range []struct{ frame, want string }{
		{`{"subscribe":["ann/y"],"ref":1}`, `"control":"ack","ref":1`},
		{`{"subscribe":["ann/z","bob/x"],"ref":2}`, `"ref":2,"status":403,"code":"forbidden-channel"`},
		{`{"subscribe":["**"],"ref":3}`, `"ref":3,"status":403,"code":"forbidden-channel"`},
		{`{"publish":{"channel":"bob/x","data":1},"ref":4}`, `"ref":4,"status":403,"code":"forbidden-channel"`},
		{`{"publish":{"channel":"ann/z","data":"not subscribed to"}}`, ``},
		{`{"publish":{"channel":"ann/y","data":5},"ref":5}`, `"control":"ack","ref":5`},
		{`{"renew":1,"ref":6}`, `"ref":6,"status":400,"code":"invalid-frame"`},
		{`{"renew":"bad","ref":7}`, `"ref":7,"status":401,"code":"unauthorized"`},
	} {
		send(f.frame)
		if f.want != "" {
			until(t, f.frame, lines, f.want)
		}
	}
	anyone, open := dial(t, mount+"subscribe?channel=news")
	open(`{"subscribe":["ann/x"],"ref":1}`)
	until(t, "without a token", anyone, "forbidden-channel")
}

// A ticket's first use sets a cookie that serves an EventSource which comes
// back with its old URL.
func TestTicketCookie(t *testing.T) {
	p, _, mount := newPeople(t, halley.Options{}, true)
	later := time.Now().Add(time.Hour)
	p.expires.Store(&later)
	var got struct{ Ticket string }
	if err := json.Unmarshal([]byte(ask(t, "POST", mount+"ticket", "", bearer("ann")).body), &got); err != nil {
		t.Fatal(err)
	}
	target := mount + "subscribe?channel=ann/x&transport=long-polling&timeout=0&ticket=" + got.Ticket
	a := ask(t, "GET", target, "", "User-Agent: Browser")
	c := a.header.Get("Set-Cookie")
	for _, part := range []string{"comet-token=ann;", "Path=/comet", "HttpOnly", "SameSite=Strict", "Max-Age=3"} {
		if !strings.Contains(c, part) {
			t.Errorf("Set-Cookie: %q has no %s", c, part)
		}
	}
	if strings.Contains(c, "Domain") {
		t.Errorf("Set-Cookie: %q", c)
	}
	// The used ticket stays in the URL.
	if a := ask(t, "GET", target, "", "User-Agent: Browser", "Cookie: comet-token=ann"); a.status != 200 {
		t.Errorf("coming back: %+v", a)
	}
	if a := ask(t, "GET", target, ""); a.code != "invalid-ticket" {
		t.Errorf("without the cookie: %+v", a)
	}
}

// Connections of a user are bounded; they come free again.
func TestConnectionsPerUser(t *testing.T) {
	_, hub, mount := newPeople(t, halley.Options{MaxConnectionsPerUser: 2}, true)
	_, stop := listen(t, mount+"subscribe?channel=ann/x&transport=sse", bearer("ann#1"))
	listen(t, mount+"subscribe?channel=ann/x&transport=long-polling&timeout=60", bearer("ann#2"))
	held(t, hub, 2)
	if a := ask(t, "GET", mount+"subscribe?channel=ann/x", "", bearer("ann#3")); a.code != "connection-limit" || a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("a third: %+v", a)
	}
	if a := ask(t, "GET", mount+"subscribe?channel=ann/x&transport=sse", "", bearer("ann#3")); a.status != 200 || !strings.Contains(a.body, "comet:reconnect") {
		t.Errorf("a third stream: %+v", a)
	}
	lines, _ := dial(t, mount+"subscribe?channel=ann/x", bearer("ann#3"))
	until(t, "a third WebSocket", lines, "reconnect")
	if a := ask(t, "GET", mount+"subscribe?channel=bob/x&timeout=0", "", bearer("bob")); a.status != 200 {
		t.Errorf("another user: %+v", a)
	}
	stop()
	held(t, hub, 1)
	if a := ask(t, "GET", mount+"subscribe?channel=ann/x&timeout=0", "", bearer("ann#3")); a.status != 200 {
		t.Errorf("once one has gone: %+v", a)
	}
}

// So are those of an address, and what is published from it. An address of this
// machine has no bounds, so this is asked without a socket.
func TestLimitsPerAddress(t *testing.T) {
	hub := newHub(t, halley.Options{MaxConnectionsPerAddress: 2, PublishRate: 1, PublishBurst: 3})
	request := func(addr, method, target string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, strings.NewReader("1"))
		r.RemoteAddr = addr
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, r)
		return w
	}
	hold := func(addr string) {
		n := hub.Connections()
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		r := httptest.NewRequestWithContext(ctx, "GET", "/comet/subscribe?channel=a&timeout=60", nil)
		r.RemoteAddr = addr
		go hub.ServeHTTP(httptest.NewRecorder(), r)
		held(t, hub, n+1)
	}
	hold("192.0.2.1:1000")
	hold("192.0.2.1:1001")
	hold("[2001:db8::1]:1000")
	hold("[2001:db8::ffff:2]:1000")
	for addr, status := range map[string]int{
		"192.0.2.1:1002": 429, "[::ffff:192.0.2.1]:1003": 429, "192.0.2.2:1000": 200, "[2001:db8::3]:1": 429, "[2001:db8:0:1::3]:1": 200, "127.0.0.1:1": 200,
	} {
		if w := request(addr, "GET", "/comet/subscribe?channel=a&timeout=0"); w.Code != status {
			t.Errorf("from %s: %d %s, want %d", addr, w.Code, w.Body, status)
		}
	}
	for i, status := range []int{200, 200, 200, 429} {
		w := request("192.0.2.9:1", "POST", "/comet/publish?channel=a")
		if w.Code != status || status == 429 && (w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "rate-limited")) {
			t.Errorf("message %d: %d %s, want %d", i, w.Code, w.Body, status)
		}
	}
	for range 10 {
		if w := request("127.0.0.1:1", "POST", "/comet/publish?channel=a"); w.Code != 200 {
			t.Errorf("from this machine: %d %s", w.Code, w.Body)
		}
	}
	// A batch that is larger than the burst could never be published.
	r := httptest.NewRequest("POST", "/comet/publish", strings.NewReader(strings.Repeat("{\"channel\":\"a\",\"data\":1}\n", 4)))
	r.RemoteAddr = "192.0.2.10:1"
	r.Header.Set("Content-Type", "application/x-ndjson")
	w := httptest.NewRecorder()
	if hub.ServeHTTP(w, r); w.Code != 413 {
		t.Errorf("a batch: %d %s", w.Code, w.Body)
	}
}

// Users whom the Authorizer tells apart by something else than a token, such as
// a cookie of the application's, are not each other's.
func TestUsersWithoutTokens(t *testing.T) {
	_, hub, mount := newPeople(t, halley.Options{Authorizer: halley.AuthorizerFunc(func(_ context.Context, c halley.Credentials) (*halley.Grant, error) {
		user := c.Request.Header.Get("X-User")
		return &halley.Grant{User: user, Subscribe: []string{user + "/**"}, Publish: []string{user + "/**"}}, nil
	})}, true)
	dial(t, mount+"subscribe?channel=ann/x", "X-User: ann")
	held(t, hub, 1)
	lines, send := dial(t, mount+"subscribe?channel=bob/x", "X-User: bob")
	send(`{"publish":{"channel":"ann/x","data":1},"ref":1}`)
	until(t, "another's channel", lines, `"ref":1,"status":403`)
	send(`{"subscribe":["ann/x"],"ref":2}`)
	until(t, "another's channel", lines, `"ref":2,"status":403`)
	send(`{"publish":{"channel":"bob/x","data":1},"ref":3}`)
	until(t, "the own channel", lines, `"control":"ack","ref":3`)
	if n, err := hub.Revoke(halley.Revocation{User: "ann"}); n != 1 || err != nil {
		t.Errorf("revoke: %d, %v", n, err)
	}
}

// Connections can be renewed again and again, and the old token is worth what
// it was.
func TestRenewAgain(t *testing.T) {
	_, hub, mount := newPeople(t, halley.Options{}, true)
	const form = "Content-Type: application/x-www-form-urlencoded"
	lines, send := dial(t, mount+"subscribe?channel=ann/x", bearer("ann#1"))
	held(t, hub, 1)
	for _, step := range []struct{ old, token, want string }{
		{"ann#1", "ann#2", `{"connections":1}`}, {"ann#1", "ann#2", `{"connections":0}`}, {"ann#2", "ann#3", `{"connections":1}`},
	} {
		if a := ask(t, "POST", mount+"renew", "old="+url.QueryEscape(step.old), bearer(step.token), form); a.body != step.want {
			t.Errorf("%s to %s: %+v", step.old, step.token, a)
		}
	}
	if a := ask(t, "POST", mount+"renew", "old=", bearer("ann"), form); a.code != "invalid-parameter" {
		t.Errorf("without an old token: %+v", a)
	}
	if a := ask(t, "POST", mount+"revoke?jti=3", "", bearer("root")); a.body != `{"connections":1}` {
		t.Errorf("revoke: %+v", a)
	}
	send(`{"publish":{"channel":"ann/x","data":1},"ref":1}`)
	until(t, "the last token", lines, "token-revoked")
}

// What a page of a stranger's may have the browser ask for with a cookie.
func TestCookiesOfStrangers(t *testing.T) {
	_, _, mount := newPeople(t, halley.Options{Origins: []string{"https://app.example"}}, true)
	// Plain http tells nothing of the page that the frame is in.
	const frame = "transport=iframe&origin=http://evil.example"
	lines, _ := listen(t, mount+"subscribe?channel=ann/x&"+frame, "Cookie: comet-token=ann")
	until(t, frame, lines, "forbidden-origin")
	var got struct{ Ticket string }
	if err := json.Unmarshal([]byte(ask(t, "POST", mount+"ticket", "", bearer("mallory")).body), &got); err != nil {
		t.Fatal(err)
	}
	a := ask(t, "GET", mount+"subscribe?channel=mallory/x&timeout=0&ticket="+got.Ticket, "", "User-Agent: Browser", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document")
	if a.header.Get("Set-Cookie") != "" {
		t.Errorf("a link of a stranger's sets the cookie: %+v", a)
	}
}

// A server that is open to all takes what clients of others send.
func TestOpenToAll(t *testing.T) {
	hub := newHub(t, halley.Options{})
	w := call(hub, "POST", "/comet/ticket", "", bearer("x"))
	var got struct{ Ticket string }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Ticket == "" {
		t.Fatalf("a ticket: %d %s", w.Code, w.Body)
	}
	if w := call(hub, "GET", "/comet/subscribe?channel=a&timeout=0&ticket="+got.Ticket, "", bearer("x")); w.Code != 200 {
		t.Errorf("subscribe: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"renew", "revoke?user=x"} {
		if w := call(hub, "POST", "/comet/"+path, "", bearer("x")); w.Code != 404 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// Keys of users are apart.
func TestKeysOfUsers(t *testing.T) {
	_, _, mount := newPeople(t, halley.Options{}, false)
	first := ask(t, "POST", mount+"publish?channel=root/x", "1", bearer("root"), "Idempotency-Key: k")
	again := ask(t, "POST", mount+"publish?channel=root/x", "1", bearer("root"), "Idempotency-Key: k")
	other := ask(t, "POST", mount+"publish?channel=ann/x", "2", bearer("ann"), "Idempotency-Key: k")
	if first.body != again.body || other.status != 200 || other.body == first.body {
		t.Errorf("got %+v, %+v, %+v", first, again, other)
	}
}
