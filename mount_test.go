package halley_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/halley-comet/halley"
)

// A hub finds its endpoints wherever it is mounted, and nothing else.
func TestMount(t *testing.T) {
	mux := func(pattern string, strip string) func(*halley.Hub) http.Handler {
		return func(hub *halley.Hub) http.Handler {
			m := http.NewServeMux()
			if strip == "" {
				m.Handle(pattern, hub)
			} else {
				m.Handle(pattern, http.StripPrefix(strip, hub))
			}
			return m
		}
	}
	plain := func(hub *halley.Hub) http.Handler { return hub }
	nested := func(outer, strip, inner string) func(*halley.Hub) http.Handler {
		return func(hub *halley.Hub) http.Handler {
			in, out := http.NewServeMux(), http.NewServeMux()
			in.Handle(inner, hub)
			if strip == "" {
				out.Handle(outer, in)
			} else {
				out.Handle(outer, http.StripPrefix(strip, in))
			}
			return out
		}
	}
	for _, c := range []struct {
		name  string
		mount func(*halley.Hub) http.Handler
		path  string // of Options
		good  []string
		bad   []string
	}{
		{"plain", plain, "", []string{"/comet/info", "/info"}, []string{"/api/info", "/comet/comet/info", "/", "/comet/", "/comet/info/"}},
		{"plain with a path", plain, "/api/events", []string{"/api/events/info", "/info"}, []string{"/comet/info", "/api/info", "/api/events/comet/info"}},
		{"a path with a slash", plain, "/api/", []string{"/api/info"}, []string{"/comet/info"}},
		{"a path of /", plain, "/", []string{"/info"}, []string{"/comet/info"}},
		{"mux", mux("/comet/", ""), "", []string{"/comet/info"}, []string{"/comet/x/info", "/comet/info/"}},
		{"mux at another path", mux("/a/b/", ""), "", []string{"/a/b/info"}, []string{"/a/b/comet/info", "/a/b/c/info"}},
		{"mux at the root", mux("/", ""), "", []string{"/info"}, []string{"/comet/info"}},
		{"mux with a host", mux("push.example/events/", ""), "", []string{"http://push.example/events/info"}, []string{"http://push.example/events/x/info"}},
		{"mux with a method", mux("GET /comet/", ""), "", []string{"/comet/info"}, nil},
		{"mux with both", mux("GET push.example/comet/", ""), "", []string{"http://push.example/comet/info"}, nil},
		{"mux with a wildcard", mux("/{tenant}/comet/", ""), "", []string{"/one/comet/info", "/comet/comet/info"}, []string{"/one/comet/two/info"}},
		{"mux with a rest", mux("/comet/{rest...}", ""), "", []string{"/comet/info"}, []string{"/comet/x/info"}},
		{"mux with a last wildcard", mux("/api/{endpoint}", ""), "", []string{"/api/info"}, []string{"/api/nothing"}},
		{"mux with one endpoint", mux("GET /comet/info", ""), "", []string{"/comet/info"}, []string{"/comet/history"}},
		{"StripPrefix", mux("/comet/", "/comet"), "", []string{"/comet/info"}, []string{"/comet/comet/x", "/comet/x/info"}},
		{"StripPrefix at another path", mux("/a/b/", "/a/b"), "", []string{"/a/b/info"}, []string{"/a/b/c/info"}},
		{"StripPrefix of one endpoint", mux("/a/info", "/a"), "", []string{"/a/info"}, nil},
		{"nested", nested("/api/", "", "/api/comet/"), "", []string{"/api/comet/info"}, []string{"/api/info"}},
		{"nested and stripped", nested("/api/", "/api", "/comet/"), "", []string{"/api/comet/info"}, []string{"/api/info"}},
		{"a path wins over the pattern", mux("/", ""), "/x/y", []string{"/x/y/info"}, []string{"/comet/info"}},
	} {
		handler := c.mount(newHub(t, halley.Options{Path: c.path}))
		for _, target := range c.good {
			if w := call(handler, "GET", target, ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"protocol":1`) {
				t.Errorf("%s: %s: %d %s", c.name, target, w.Code, w.Body)
			}
		}
		for _, target := range c.bad {
			if w := call(handler, "GET", target, ""); w.Code != 404 {
				t.Errorf("%s: %s: %d %s, want 404", c.name, target, w.Code, w.Body)
			}
		}
	}
}
