package conformance_test

import (
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/conformance"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
)

var serverURL = flag.String("url", "", "the mount of the server to be tested, e.g. http://127.0.0.1:8080/comet")

// TestURL tests a server that runs somewhere.
func TestURL(t *testing.T) {
	if *serverURL == "" {
		t.Skip("no server to test: go test ./conformance -url=http://127.0.0.1:8080/comet")
	}
	conformance.Test(t, *serverURL)
}

// TestHalley tests a server in this process, which is configured so that no
// case is skipped for its sake.
func TestHalley(t *testing.T) { testServer(t, newServer(t, nil)) }

// TestFront tests one whose hub reads requests from the sockets itself.
func TestFront(t *testing.T) { testServer(t, newFront(t)) }

func testServer(t *testing.T, url string) {
	if *serverURL != "" {
		t.Skip("another server is tested")
	}
	conformance.TestWith(t, url, conformance.Options{Quick: testing.Short(), RetainPrefix: retainPrefix, RetainCount: 5})
}

func TestRun(t *testing.T) {
	var done []string
	o := conformance.Options{Only: regexp.MustCompile("^(info|jsonp)/"), Done: func(r conformance.Result) { done = append(done, r.String()) }}
	report := conformance.Run(t.Context(), newServer(t, nil), o)
	var b strings.Builder
	report.WriteTo(&b)
	if report.Failed() > 0 || len(done) != len(report.Results) || len(done) < 6 || !strings.Contains(b.String(), "ok    jsonp/body") {
		t.Errorf("got %s\nwhile it ran: %q", &b, done)
	}

	for _, handler := range []http.Handler{http.NotFoundHandler(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })} {
		server := httptest.NewServer(handler)
		done = nil
		report = conformance.Run(t.Context(), server.URL+"/comet", o)
		server.Close()
		if len(report.Results) != 1 || len(done) != 1 || report.Failed() != 1 || !strings.Contains(report.Results[0].String(), "GET info") {
			t.Errorf("a server of something else: got %v", report.Results)
		}
	}
	if report = conformance.Run(t.Context(), "127.0.0.1:1/comet", o); report.Failed() != 1 {
		t.Errorf("a URL that is none: got %v", report.Results)
	}
}

const retainPrefix = "conformance-few"

// newServer starts a server, behind wrap if that is not nil, and returns its
// mount.
func newServer(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	return startServer(t, wrap, false)
}

// newFront is newServer with Hub.Front.
func newFront(t *testing.T) string {
	t.Helper()
	return startServer(t, nil, true)
}

func startServer(t *testing.T, wrap func(http.Handler) http.Handler, front bool) string {
	t.Helper()
	log, err := memory.New(memory.Options{Rules: []engine.RetentionRule{{Pattern: retainPrefix + "/*", Retention: engine.Retention{Count: 5}}}})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := halley.New(log, &halley.Options{Heartbeat: 250 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/comet/", hub)
	var handler http.Handler = mux
	if wrap != nil {
		handler = wrap(mux)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	if front {
		server.Listener = hub.Front(server.Config, server.Listener)
	}
	server.Start()
	t.Cleanup(func() {
		hub.Close()
		server.CloseClientConnections()
		server.Close()
		log.Close()
	})
	return server.URL + "/comet"
}
