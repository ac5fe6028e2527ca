package halley_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/halley-comet/halley"
)

// from makes a request that came in on a local address.
func from(local, method, target string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	if local != "" {
		addr, err := net.ResolveTCPAddr("tcp", local)
		if err != nil {
			panic(err) // the test's own
		}
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(addr)))
	}
	return r
}

// The names under which requests are served (protocol 19.1): a page whose own
// name has come to point at a loopback address is not let in.
func TestHost(t *testing.T) {
	const loopback, loopback6, public = "127.0.0.1:8080", "[::1]:8080", "192.0.2.1:8080"
	for _, c := range []struct {
		hosts       []string
		local, host string
		want        bool
	}{
		{nil, loopback, "localhost", true},
		{nil, loopback, "LocalHost:8080", true},
		{nil, loopback, "localhost.", true},
		{nil, loopback, "a.b.localhost:99", true},
		{nil, loopback, "127.0.0.1:8080", true},
		{nil, loopback, "127.9.9.9", true},
		{nil, loopback, "[::1]:8080", true},
		{nil, loopback, "[::1]", true},
		{nil, loopback, "[::ffff:127.0.0.1]:80", true},
		{nil, loopback6, "localhost:8080", true},
		{nil, loopback, "evil.example", false},
		{nil, loopback, "evil.example:8080", false},
		{nil, loopback6, "evil.example:8080", false},
		{nil, "[::ffff:127.0.0.1]:80", "evil.example", false},
		{nil, loopback, "localhost.evil.example", false},
		{nil, loopback, "notlocalhost", false},
		{nil, loopback, "192.0.2.1", false},
		{nil, loopback, "127.0.0.1.evil.example", false},
		{nil, loopback, "0.0.0.0", false},
		{nil, public, "push.example", true},
		{nil, public, "192.0.2.1:8080", true},
		{nil, "", "push.example", true}, // an embedder's own server

		{[]string{"push.example", "Other.example:8443"}, loopback, "push.example", true},
		{[]string{"push.example", "Other.example:8443"}, public, "PUSH.example", true},
		{[]string{"push.example", "Other.example:8443"}, public, "other.example:8443", true},
		{[]string{"push.example", "Other.example:8443"}, public, "localhost:1", true},
		{[]string{"push.example", "Other.example:8443"}, public, "push.example:8080", false},
		{[]string{"push.example", "Other.example:8443"}, public, "other.example", false},
		{[]string{"push.example", "Other.example:8443"}, public, "a.push.example", false},
		{[]string{"push.example", "Other.example:8443"}, public, "evil.example", false},
	} {
		hub := newHub(t, halley.Options{Hosts: c.hosts})
		for _, path := range []string{"GET /comet/info", "GET /comet/subscribe?channel=a&timeout=0", "OPTIONS /comet/publish", "GET /comet/nothing"} {
			method, target, _ := strings.Cut(path, " ")
			w := httptest.NewRecorder()
			hub.ServeHTTP(w, from(c.local, method, target, "Host: "+c.host, "Origin: http://"+c.host))
			if got := w.Code != 403; got != c.want {
				t.Errorf("hosts %q, on %s, Host %s: %s is %d %s", c.hosts, c.local, c.host, path, w.Code, w.Body)
			}
			if w.Code != 403 {
				continue
			}
			if p := problemOf(t, w); p.Code != "forbidden-host" {
				t.Errorf("got %+v", p)
			}
			if w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("Host %s: headers %v", c.host, w.Header())
			}
		}
	}
	// Only HTTP/1.0 may leave Host out.
	for proto, want := range map[string]int{"HTTP/1.0": 200, "HTTP/1.1": 403} {
		r := from(loopback, "GET", "/comet/info", "Host: ")
		r.Proto, r.ProtoMinor = proto, int(proto[7]-'0')
		w := httptest.NewRecorder()
		newHub(t, halley.Options{}).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s without Host: %d, want %d", proto, w.Code, want)
		}
	}
}

// Which pages may read answers (protocol 19.2, 19.3).
func TestCORS(t *testing.T) {
	configured := halley.Options{Origins: []string{"https://App.example/", "http://app.example:8080"}, Hosts: []string{"push.example", "p2.example:8443"}}
	for _, c := range []struct {
		options halley.Options
		origin  string
		want    bool
	}{
		{configured, "https://push.example", true}, // its own
		{configured, "http://push.example", true},
		{configured, "https://p2.example:8443", true},
		{configured, "https://app.example", true},
		{configured, "https://APP.example", true},
		{configured, "http://app.example:8080", true},
		{configured, "http://localhost:3000", true},
		{configured, "http://a.localhost", true},
		{configured, "https://127.0.0.1", true},
		{configured, "http://[::1]:5173", true},
		{configured, "http://app.example", false},
		{configured, "https://app.example:8080", false},
		{configured, "https://push.example:1", false},
		{configured, "https://a.app.example", false},
		{configured, "https://app.example.evil.example", false},
		{configured, "https://evil.example", false},
		{configured, "https://localhost.evil.example", false},
		{configured, "null", false},
		{configured, "https://app.example/path", false},
		{configured, "https://x@app.example", false},
		{configured, "app.example", false},
		{halley.Options{Origins: []string{"*"}}, "https://evil.example", true},
		{halley.Options{Origins: []string{"*"}}, "null", false},
		{halley.Options{}, "https://evil.example", false},
		{halley.Options{}, "https://push.example", true},
	} {
		hub := newHub(t, c.options)
		for _, request := range []string{"GET /comet/info", "GET /comet/history?channel=a", "GET /comet/history", "GET /comet/nothing", "OPTIONS /comet/publish", "PUT /comet/publish"} {
			method, target, _ := strings.Cut(request, " ")
			w := call(hub, method, target, "", "Host: push.example", "Origin: "+c.origin, "Access-Control-Request-Private-Network: true")
			h := w.Header()
			if got := h.Get("Access-Control-Allow-Origin"); (got == c.origin) != c.want || got != "" && got != c.origin {
				t.Errorf("%s from %s with %q: Access-Control-Allow-Origin %q, want %v", request, c.origin, c.options.Origins, got, c.want)
			}
			if h.Get("Vary") != "Origin" || h.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s from %s: headers %v", request, c.origin, h)
			}
			if got := h.Get("Access-Control-Expose-Headers"); (got == "Retry-After") != c.want {
				t.Errorf("%s from %s: Access-Control-Expose-Headers %q", request, c.origin, got)
			}
			preflight := c.want && method == "OPTIONS"
			for name, want := range map[string]string{
				"Access-Control-Allow-Methods":         "POST",
				"Access-Control-Allow-Headers":         "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Cache-Control, Pragma, traceparent, tracestate",
				"Access-Control-Max-Age":               "7200",
				"Access-Control-Allow-Private-Network": "true",
			} {
				if got := h.Get(name); got != want && preflight || got != "" && !preflight {
					t.Errorf("%s from %s: %s is %q", request, c.origin, name, got)
				}
			}
		}
	}
}

// Which pages may subscribe and publish (protocol 19.4): both have an effect,
// whether or not the page can read the answer.
func TestOrigin(t *testing.T) {
	hub := newHub(t, halley.Options{Origins: []string{"https://app.example"}})
	const (
		subscribe = "GET /comet/subscribe?channel=a&timeout=0"
		publish   = "POST /comet/publish?channel=a"
	)
	for _, c := range []struct {
		request string
		headers []string
		want    bool
	}{
		{subscribe, nil, true},
		{publish, nil, true},
		{subscribe, []string{"Origin: https://push.example"}, true},
		{subscribe, []string{"Origin: https://app.example", "Sec-Fetch-Site: cross-site"}, true},
		{publish, []string{"Origin: https://app.example", "Sec-Fetch-Site: cross-site"}, true},
		{subscribe, []string{"Origin: http://localhost:8000"}, true},
		{subscribe, []string{"Origin: https://evil.example"}, false},
		{publish, []string{"Origin: https://evil.example"}, false},
		{publish, []string{"Origin: null"}, false},
		{subscribe, []string{"Origin: null", "Sec-Fetch-Dest: document"}, false},
		{"POST /comet/subscribe?channel=a&timeout=0", []string{"Origin: https://evil.example"}, false},

		// Elements send no Origin.
		{subscribe, []string{"Sec-Fetch-Site: same-origin"}, true},
		{subscribe, []string{"Sec-Fetch-Site: none"}, true},
		{subscribe, []string{"Sec-Fetch-Site: cross-site"}, false},
		{subscribe, []string{"Sec-Fetch-Site: same-site"}, false},
		{subscribe, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: script", "Referer: https://evil.example/page"}, false},
		{subscribe, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image", "Referer: https://app.example/"}, true},
		{subscribe, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: iframe", "Referer: https://app.example/a?b#c"}, true},
		{subscribe, []string{"Sec-Fetch-Site: same-site", "Referer: http://localhost:3000/"}, true},
		{subscribe, []string{"Sec-Fetch-Site: cross-site", "Referer: app.example"}, false},
		{subscribe, []string{"Sec-Fetch-Site: cross-site", "Referer: :"}, false},
		{subscribe, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"}, true},
		{publish, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"}, false},
		{publish, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document", "Referer: https://app.example/"}, true},
		{publish, []string{"Sec-Fetch-Site: none"}, true},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		w := call(hub, method, target, "", append([]string{"Host: push.example"}, c.headers...)...)
		refused := w.Code == 403
		if refused == c.want {
			t.Errorf("%s %q: %d %s", c.request, c.headers, w.Code, w.Body)
		}
		if refused && problemOf(t, w).Code != "forbidden-origin" {
			t.Errorf("%s %q: %s", c.request, c.headers, w.Body)
		}
	}

	// An iframe's origin parameter is its parent's, if the browser says that
	// the two are of other sites. What is refused says so where the parent can
	// see it, or would.
	for _, c := range []struct {
		origin  string
		headers []string
		want    bool
	}{
		{"https://evil.example", nil, true},
		{"https://evil.example", []string{"Sec-Fetch-Site: same-origin"}, true},
		{"https://app.example", []string{"Sec-Fetch-Site: cross-site", "Referer: https://app.example/"}, true},
		{"https://app.example", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"}, true},
		{"https://evil.example", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"}, false},
		{"https://evil.example", []string{"Sec-Fetch-Site: cross-site", "Referer: https://app.example/"}, false},
		{"https://evil.example", []string{"Origin: https://evil.example"}, false},
	} {
		r := from("", "GET", "/comet/subscribe?channel=a&transport=iframe&origin="+c.origin, append(c.headers, "Host: push.example")...)
		ctx, cancel := context.WithCancel(r.Context())
		cancel() // a stream is not to be waited for
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, r.WithContext(ctx))
		if refused := strings.Contains(w.Body.String(), `"code":"forbidden-origin"`); w.Code != 200 || refused == c.want {
			t.Errorf("iframe for %s, %q: %d %s", c.origin, c.headers, w.Code, w.Body)
		}
	}
	for _, transport := range []string{"jsonp", "sse", "websocket", "multipart", "xhr-streaming", "long-polling"} {
		w := call(hub, "GET", "/comet/subscribe?channel=a&callback=f&transport="+transport, "", "Host: push.example", "Origin: https://evil.example")
		if transport == "jsonp" {
			if want := `/**/f({"control":"error","status":403,"code":"forbidden-origin",`; w.Code != 200 || !strings.HasPrefix(w.Body.String(), want) {
				t.Errorf("jsonp: %d %s", w.Code, w.Body)
			}
		} else if p := problemOf(t, w); w.Code != 403 || p.Code != "forbidden-origin" {
			t.Errorf("%s: %d %+v", transport, w.Code, p)
		}
	}
	if got := fmt.Sprint(stored(t, hub)); strings.Count(got, "a ") != 4 {
		t.Errorf("stored %s, want what the allowed four published", got)
	}
}
