package halley_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley"
)

// A client that reads nothing is not held on for as long as it might begin to:
// its token is revoked.
func TestRevokedUnread(t *testing.T) {
	for name, o := range map[string]halley.Options{"parked": {}, "not parked": {NoParking: true}} {
		t.Run(name, func(t *testing.T) {
			o.WriteTimeout = 5 * time.Minute
			_, hub, mount := newPeople(t, o, true)
			host := strings.TrimSuffix(strings.TrimPrefix(mount, "http://"), "/comet/")
			c, err := net.Dial("tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(c, "GET /comet/subscribe?channel=ann/x&transport=xhr-streaming HTTP/1.1\r\nHost: %s\r\n%s\r\n\r\n", host, bearer("ann")); err != nil {
				t.Fatal(err)
			}
			held(t, hub, 1)
			message := halley.Message{Channel: "ann/x", ContentType: "text/plain", Data: make([]byte, 60<<10)}
			for end := time.Now().Add(10 * time.Second); hub.Stats().Slow == 0; {
				if time.Now().After(end) {
					t.Fatal("the client is not slow")
				}
				if _, err := hub.Publish(t.Context(), message); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := hub.Revoke(halley.Revocation{User: "ann"}); n != 1 || err != nil {
				t.Fatalf("revoke: %d, %v", n, err)
			}
			held(t, hub, 0)
		})
	}
}

// Of those that come at once no more get in than one after the other.
func TestBurstOfConnections(t *testing.T) {
	const limit = 5
	for name, o := range map[string]halley.Options{"parked": {}, "not parked": {NoParking: true}} {
		t.Run(name, func(t *testing.T) {
			o.MaxConnectionsPerUser = limit
			_, hub, mount := newPeople(t, o, true)
			const total = 60
			var wg sync.WaitGroup
			var mu sync.Mutex
			in := 0
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for range total {
				wg.Go(func() {
					r, _ := http.NewRequestWithContext(ctx, "GET", mount+"subscribe?channel=ann/x&transport=xhr-streaming", nil)
					r.Header.Set("Authorization", "Bearer ann")
					resp, err := http.DefaultTransport.RoundTrip(r)
					if err != nil {
						t.Error(err)
						return
					}
					t.Cleanup(func() { _ = resp.Body.Close() })
					mu.Lock()
					defer mu.Unlock()
					switch resp.StatusCode {
					case 200:
						in++
					case 429:
					default:
						t.Errorf("status %d", resp.StatusCode)
					}
				})
			}
			wg.Wait()
			if in != limit {
				t.Errorf("%d got in, want %d", in, limit)
			}
			cancel()
			held(t, hub, 0)
			if a := ask(t, "GET", mount+"subscribe?channel=ann/x&timeout=0", "", bearer("ann")); a.status != 200 {
				t.Errorf("afterwards: %+v", a)
			}
		})
	}
}

// A client that holds as many connections as it may polls on with them.
func TestPollAtLimit(t *testing.T) {
	for name, o := range map[string]halley.Options{"parked": {}, "not parked": {NoParking: true}} {
		for _, front := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", front ", front), func(t *testing.T) {
				o.MaxConnectionsPerUser = 1
				_, hub, mount := newPeople(t, o, front)
				cursor := ""
				for i := range 200 {
					answered := make(chan answer, 1)
					go func() {
						answered <- ask(t, "GET", mount+"subscribe?channel=ann/x&timeout=60&cursor="+cursor, "", bearer("ann"))
					}()
					held(t, hub, 1)
					if _, err := hub.Publish(t.Context(), halley.Message{Channel: "ann/x", ContentType: "text/plain", Data: []byte("x")}); err != nil {
						t.Fatal(err)
					}
					a := <-answered
					var page struct{ Cursor string }
					if err := json.Unmarshal([]byte(a.body), &page); a.status != 200 || err != nil {
						t.Fatalf("poll %d: %+v", i, a)
					}
					cursor = page.Cursor
				}
			})
		}
	}
}

// Once an address has shown too many bad tokens, no more of them are looked at.
func TestFailedTokens(t *testing.T) {
	p := &people{}
	hub := newHub(t, halley.Options{Authorizer: p})
	ask := func(addr, token string) int {
		r := httptest.NewRequest("GET", "/comet/history?channel=news", nil)
		r.RemoteAddr = addr
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, r)
		if w.Code == 429 && (w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "rate-limited")) {
			t.Errorf("refused by %v %s", w.Header(), w.Body)
		}
		return w.Code
	}
	refused := 0
	for range 3000 {
		switch status := ask("192.0.2.1:1000", "bad"); status {
		case 401:
		case 429:
			refused++
		default:
			t.Fatalf("status %d", status)
		}
	}
	if asked := p.asked.Load(); refused == 0 || asked+int64(refused) != 3000 {
		t.Errorf("%d were looked at and %d refused, of 3000", asked, refused)
	}
	for _, c := range []struct {
		addr, token string
		want        int
	}{{"192.0.2.2:1", "bad", 401}, {"192.0.2.1:1", "", 200}, {"127.0.0.1:1", "bad", 401}} {
		if got := ask(c.addr, c.token); got != c.want {
			t.Errorf("from %s with %q: %d, want %d", c.addr, c.token, got, c.want)
		}
	}
}

// One user does not take all tickets there may be.
func TestTicketsPerUser(t *testing.T) {
	_, _, mount := newPeople(t, halley.Options{}, false)
	for i := range 1000 {
		if a := ask(t, "POST", mount+"ticket", "", bearer("ann")); a.status != 200 {
			t.Fatalf("ticket %d: %+v", i, a)
		}
	}
	if a := ask(t, "POST", mount+"ticket", "", bearer("ann")); a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Errorf("one more: %+v", a)
	}
	if a := ask(t, "POST", mount+"ticket", "", bearer("bob")); a.status != 200 {
		t.Errorf("another user: %+v", a)
	}
}

// The cookie is for TLS alone where the client came by it, be it to a proxy,
// and has the path that the client knows.
func TestCookieBehindProxy(t *testing.T) {
	hub := newHub(t, halley.Options{Path: "/comet", Authorizer: &people{}, TrustedProxies: []string{"192.0.2.1"}})
	mux := http.NewServeMux()
	mux.Handle("/app/", http.StripPrefix("/app", hub))
	for _, c := range []struct {
		addr, proto string
		secure      bool
	}{{"192.0.2.1:1", "https", true}, {"192.0.2.1:1", "http", false}, {"192.0.2.2:1", "https", false}} {
		r := httptest.NewRequest("POST", "/app/comet/ticket", nil)
		r.Header.Set("Authorization", "Bearer ann")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		var got struct{ Ticket string }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		r = httptest.NewRequest("GET", "/app/comet/subscribe?channel=ann/x&timeout=0&ticket="+got.Ticket, nil)
		r.RemoteAddr = c.addr
		r.Header.Set("User-Agent", "Browser")
		r.Header.Set("X-Forwarded-Proto", c.proto)
		w = httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		cookies := w.Result().Cookies()
		if len(cookies) != 1 || cookies[0].Secure != c.secure || cookies[0].Path != "/app/comet" {
			t.Errorf("from %s by %s: %d %v", c.addr, c.proto, w.Code, cookies)
		}
	}
}

// A browser forgets a cookie that is good no more: the page cannot, and may do
// what those without a token may.
func TestForgetCookie(t *testing.T) {
	_, hub, mount := newPeople(t, halley.Options{}, true)
	const cookie = "Cookie: comet-token=ann"
	if a := ask(t, "GET", mount+"subscribe?channel=ann/x&timeout=0", "", cookie); a.status != 200 || a.header.Get("Set-Cookie") != "" {
		t.Fatalf("%+v", a)
	}
	if _, err := hub.Revoke(halley.Revocation{User: "ann"}); err != nil {
		t.Fatal(err)
	}
	a := ask(t, "GET", mount+"subscribe?channel=ann/x&timeout=0", "", cookie)
	if c := a.header.Get("Set-Cookie"); a.code != "token-revoked" || !strings.HasPrefix(c, "comet-token=; Path=/comet; Max-Age=0;") {
		t.Errorf("%+v", a)
	}
	if a := ask(t, "GET", mount+"subscribe?channel=ann/x&timeout=0", "", bearer("ann"), cookie); a.header.Get("Set-Cookie") != "" {
		t.Errorf("by a header: %+v", a)
	}
}

// An Authorizer is told where the client is, and not where the proxy is.
func TestCredentialsAddress(t *testing.T) {
	var got []netip.Addr
	hub := newHub(t, halley.Options{
		TrustedProxies: []string{"192.0.2.1"},
		Authorizer: halley.AuthorizerFunc(func(_ context.Context, c halley.Credentials) (*halley.Grant, error) {
			got = append(got, c.Address)
			return &halley.Grant{Subscribe: []string{"**"}}, nil
		}),
	})
	for _, c := range []struct{ peer, forwarded, want string }{
		{"192.0.2.1:1", "198.51.100.7", "198.51.100.7"}, {"192.0.2.2:1", "198.51.100.7", "192.0.2.2"}, {"127.0.0.1:1", "", "127.0.0.1"},
	} {
		r := httptest.NewRequest("GET", "/comet/history?channel=a", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		hub.ServeHTTP(httptest.NewRecorder(), r)
		if last := got[len(got)-1]; last != netip.MustParseAddr(c.want) {
			t.Errorf("from %s for %s: %v, want %s", c.peer, c.forwarded, last, c.want)
		}
	}
}

// An address that comes and goes all the time leaves something to others.
func TestAdmitShare(t *testing.T) {
	hub := newHub(t, halley.Options{AdmitRate: 50})
	ask := func(addr string) int {
		r := httptest.NewRequest("GET", "/comet/subscribe?channel=a&timeout=0&cursor=earliest", nil)
		r.RemoteAddr = addr
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, r)
		if w.Code == 503 && (!strings.Contains(w.Body.String(), "overloaded") || w.Header().Get("Retry-After") == "") {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
		return w.Code
	}
	in := 0
	for range 1000 {
		if ask("192.0.2.1:1") == 200 {
			in++
		}
	}
	if in < 10 || in > 40 {
		t.Errorf("%d of 1000 got in", in)
	}
	for i := range 5 {
		if status := ask(fmt.Sprintf("192.0.2.%d:1", i+2)); status != 200 {
			t.Errorf("another: %d", status)
		}
	}
}
