package demo_test

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/halley-comet/halley/cmd/halley/demo"
)

func get(t *testing.T, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	demo.Handler(http.NotFoundHandler(), nil).ServeHTTP(w, r)
	return w.Result()
}

func TestHandler(t *testing.T) {
	for _, test := range []struct {
		method, path string
		status       int
		contentType  string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/demo/demo.css", 200, "text/css; charset=utf-8"},
		{"GET", "/transports", 200, "text/html; charset=utf-8"},
		{"GET", "/demo/chat.js", 200, "text/javascript; charset=utf-8"},
		{"GET", "/demo/icon.svg", 200, "image/svg+xml"},
		{"POST", "/", 405, ""},
		{"OPTIONS", "/demo/chat.js", 405, ""},
		{"GET", "/demo/", 404, ""},
		{"GET", "/demo/index.html", 404, ""},
		{"GET", "/demo/transports.html", 404, ""},
		{"GET", "/demo/embed.go", 404, ""},
		{"GET", "/favicon.ico", 404, ""},
		{"POST", "/elsewhere", 404, ""},
	} {
		res := get(t, test.method, test.path)
		if res.StatusCode != test.status {
			t.Errorf("%s %s: status %d, want %d", test.method, test.path, res.StatusCode, test.status)
			continue
		}
		if got := res.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s %s: X-Content-Type-Options %q, want nosniff", test.method, test.path, got)
		}
		switch test.status {
		case 200:
			if got := res.Header.Get("Content-Type"); got != test.contentType {
				t.Errorf("%s %s: type %q, want %q", test.method, test.path, got, test.contentType)
			}
			if got := res.Header.Get("Cache-Control"); got != "no-cache" {
				t.Errorf("%s %s: Cache-Control %q, want no-cache", test.method, test.path, got)
			}
		case 405:
			if got := res.Header.Get("Allow"); got != "GET, HEAD" {
				t.Errorf("%s %s: Allow %q, want GET, HEAD", test.method, test.path, got)
			}
		}
	}
}

func TestNotModified(t *testing.T) {
	etag := get(t, "GET", "/").Header.Get("ETag")
	if res := get(t, "GET", "/", "If-None-Match", etag); etag == "" || res.StatusCode != 304 {
		t.Errorf("with ETag %q: status %d, want 304", etag, res.StatusCode)
	}
}

// What a client says in Host must not add words to the policy.
func TestPolicy(t *testing.T) {
	for host, want := range map[string]bool{
		"halley.example":               true,
		"127.0.0.1:8080":               true,
		"[::1]:8080":                   false,
		"a; script-src * 'unsafe-eval": false,
		"a, b":                         false,
		"*.example":                    false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		demo.Handler(http.NotFoundHandler(), nil).ServeHTTP(w, r)
		got := w.Result().Header.Get("Content-Security-Policy")
		if strings.Contains(got, "ws://"+host) != want {
			t.Errorf("Host %q: policy %q", host, got)
		}
		if !strings.HasPrefix(got, "default-src 'none'; ") || strings.Count(got, "script-src") != 1 {
			t.Errorf("Host %q: policy %q", host, got)
		}
	}
}

// The client uses whatever names the server tells it of.
func TestPolicyOfAliases(t *testing.T) {
	w := httptest.NewRecorder()
	handler := demo.Handler(http.NotFoundHandler(), []string{"a.example", "b.example:8443", "x; script-src *", "[::1]"})
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	const sources = "http://*.localhost:* http://a.example:* http://b.example:8443"
	directives := strings.Split(w.Result().Header.Get("Content-Security-Policy"), "; ")
	for _, want := range []string{
		"script-src 'self' " + sources,
		"frame-src 'self' " + sources,
		"connect-src 'self' " + sources + " ws://*.localhost:* ws://a.example:* ws://b.example:8443 ws://example.com wss://example.com",
	} {
		if !slices.Contains(directives, want) {
			t.Errorf("policy %q, want %q in it", directives, want)
		}
	}
}

// The page fetches nothing from elsewhere and holds nothing that its policy
// forbids, and every file that a file names is there.
func TestFiles(t *testing.T) {
	elsewhere := regexp.MustCompile(`(?i)(src|href|url|import|from|fetch)\W{0,3}["'(]\s*(https?:)?//`)
	inline := regexp.MustCompile(`(?i)<script>|<script [^>]*>[^<]|<style|\sstyle=|\son[a-z]+="|innerHTML|insertAdjacentHTML|document\.write`)
	named := regexp.MustCompile(`["'(](?:\./|/demo/)([a-z-]+\.(?:js|css|svg))["')]`)
	files, err := fs.Glob(os.DirFS("."), "*.*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, ".go") {
			continue
		}
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if found := elsewhere.Find(body); found != nil {
			t.Errorf("%s reaches elsewhere: %s", name, found)
		}
		if found := inline.Find(body); found != nil && name != "transports.js" {
			t.Errorf("%s holds what the policy forbids: %s", name, found)
		}
		for _, match := range named.FindAllSubmatch(body, -1) {
			if res := get(t, "GET", "/demo/"+string(match[1])); res.StatusCode != 200 {
				t.Errorf("%s names %s: status %d", name, match[1], res.StatusCode)
			}
		}
	}
}
