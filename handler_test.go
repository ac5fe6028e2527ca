package halley_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/transport/transporttest"
)

// What is wrong with a request, and what its client is told.
func TestProblems(t *testing.T) {
	hub := newHub(t, halley.Options{MaxMessage: 100, MaxBody: 1000, MaxChannels: 3})
	const form = "Content-Type: application/x-www-form-urlencoded"
	const ndjson = "Content-Type: application/x-ndjson"
	const text = "Content-Type: text/plain"
	const jsonType = "Content-Type: application/json"
	long := strings.Repeat("x", 256)
	for _, c := range []struct {
		request string // method and path
		body    string
		headers []string
		status  int
		code    string
	}{
		// Paths and methods.
		{"GET /comet/", "", nil, 404, "not-found"},
		{"GET /comet", "", nil, 404, "not-found"},
		{"GET /comet/subscribe/", "", nil, 404, "not-found"},
		{"GET /comet/Subscribe", "", nil, 404, "not-found"},
		{"GET /comet/x/subscribe", "", nil, 404, "not-found"},
		{"GET /comet/presence", "", nil, 404, "not-found"},
		{"OPTIONS /comet/nothing", "", nil, 404, "not-found"},
		{"HEAD /comet/subscribe?channel=a", "", nil, 405, "method-not-allowed"},
		{"PUT /comet/subscribe?channel=a", "", nil, 405, "method-not-allowed"},
		{"GET /comet/publish?channel=a", "", nil, 405, "method-not-allowed"},
		{"DELETE /comet/publish?channel=a", "", nil, 405, "method-not-allowed"},
		{"POST /comet/history?channel=a", "", nil, 405, "method-not-allowed"},
		{"POST /comet/info", "", nil, 405, "method-not-allowed"},

		// Queries.
		{"GET /comet/subscribe?channel=%zz", "", nil, 400, "invalid-parameter"},
		{"GET /comet/subscribe?channel=a;b", "", nil, 400, "invalid-parameter"},
		{"POST /comet/publish?channel=%", "x", nil, 400, "invalid-parameter"},
		{"GET /comet/history?channel=%", "", nil, 400, "invalid-parameter"},

		// Subscribe; more of it is in internal/transport.
		{"GET /comet/subscribe", "", nil, 400, "invalid-channel"},
		{"GET /comet/subscribe?channel=a&channel=b&channel=c&channel=d", "", nil, 400, "invalid-channel"},
		{"GET /comet/subscribe?channel=a&cursor=x", "", nil, 400, "invalid-cursor"},
		{"GET /comet/subscribe?channel=a&transport=flash", "", nil, 400, "invalid-transport"},
		{"GET /comet/subscribe?channel=a&transport=jsonp", "", nil, 400, "invalid-callback"},
		{"GET /comet/subscribe?channel=a&transport=iframe&origin=null", "", nil, 400, "invalid-origin"},
		{"GET /comet/subscribe?channel=a&timeout=-1", "", nil, 400, "invalid-parameter"},
		{"GET /comet/subscribe?channel=a&transport=sse&padding=x", "", nil, 400, "invalid-parameter"},
		{"POST /comet/subscribe", "channel=a", []string{text}, 415, "unsupported-body"},
		{"POST /comet/subscribe", "channel=a", []string{"Content-Type: nonsense/"}, 415, "unsupported-body"},
		{"POST /comet/subscribe", "channel=%", []string{form}, 400, "invalid-parameter"},
		{"POST /comet/subscribe", strings.Repeat("x", 1<<20+1), []string{form}, 413, "too-large"},
		{"GET /comet/subscribe?channel=a&transport=websocket", "", nil, 426, "upgrade-required"},
		{"GET /comet/subscribe?channel=a", "", []string{"Upgrade: websocket"}, 426, "upgrade-required"},
		{"GET /comet/subscribe?channel=a", "", []string{"Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 8"}, 426, "upgrade-required"},
		{"POST /comet/subscribe?channel=a", "", []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, 426, "upgrade-required"},
		{"GET /comet/subscribe?channel=a", "", []string{"Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"}, 400, "invalid-parameter"},
		{"GET /comet/subscribe?channel=a", "", []string{"Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, 426, "upgrade-required"}, // the recorder cannot be hijacked

		// Publish.
		{"POST /comet/publish", "x", []string{text}, 400, "invalid-channel"},
		{"POST /comet/publish?channel=", "x", []string{text}, 400, "invalid-channel"},
		{"POST /comet/publish?channel=a/**", "x", []string{text}, 400, "invalid-channel"},
		{"POST /comet/publish?channel=a&channel=service/b", "x", []string{text}, 400, "invalid-channel"},
		{"POST /comet/publish?channel=" + long, "x", []string{text}, 400, "invalid-channel"},
		{"POST /comet/publish?" + strings.Repeat("&channel=a", 2000) + "&channel=" + strings.Join(numbers(1000), "&channel="), "x", []string{text}, 400, "invalid-channel"},
		{"POST /comet/publish?channel=a&type=" + long[:65], "x", []string{text}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a&type=open", "x", []string{text}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a&type=comet:gap", "x", []string{text}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a&type=a%0Ab", "x", []string{text}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a&type=%E2%80%A8", "x", []string{text}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a&type=%FF", "x", []string{text}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "x", []string{"Content-Type: text"}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "x", []string{"Content-Type: text/plain; charset"}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "x", []string{"Content-Type: text/" + long}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "x", []string{text, "Content-Encoding: gzip"}, 415, "unsupported-body"},
		{"POST /comet/publish?channel=a", "\xff", []string{text}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "{", []string{jsonType}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "", []string{jsonType}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "1 2", []string{jsonType}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "\"\xff\"", []string{"Content-Type: application/x+json"}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", long[:101], []string{text}, 413, "too-large"},
		{"POST /comet/publish?channel=a", strings.Repeat("x", 1001), []string{text}, 413, "too-large"},
		{"POST /comet/publish", "channel=a", []string{form}, 400, "invalid-message"},
		{"POST /comet/publish?data=x", "channel=a", []string{form}, 400, "invalid-message"},
		{"POST /comet/publish", "channel=a&data=%", []string{form}, 400, "invalid-message"},
		{"POST /comet/publish", "channel=a&data=%FF", []string{form}, 400, "invalid-message"},
		{"POST /comet/publish", "data=x", []string{form}, 400, "invalid-channel"},
		{"POST /comet/publish?channel=a", "", []string{ndjson}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "\n \r\n\t", []string{ndjson}, 400, "invalid-message"},
		{"POST /comet/publish?channel=a", "x", []string{text, "Idempotency-Key: " + long}, 400, "invalid-key"},
		{"POST /comet/publish?channel=a", "x", []string{text, "Idempotency-Key: "}, 400, "invalid-key"},
		{"POST /comet/publish?channel=a", "x", []string{text, "Idempotency-Key: \xff"}, 400, "invalid-key"},

		// History.
		{"GET /comet/history", "", nil, 400, "invalid-channel"},
		{"GET /comet/history?channel=a*", "", nil, 400, "invalid-channel"},
		{"GET /comet/history?channel=a&channel=b&channel=c&channel=d", "", nil, 400, "invalid-channel"},
		{"GET /comet/history?channel=a&cursor=x", "", nil, 400, "invalid-cursor"},
		{"GET /comet/history?channel=a&until=x", "", nil, 400, "invalid-cursor"},
		{"GET /comet/history?channel=a&before=e-", "", nil, 400, "invalid-cursor"},
		{"GET /comet/history?channel=a&limit=0", "", nil, 400, "invalid-parameter"},
		{"GET /comet/history?channel=a&limit=-1", "", nil, 400, "invalid-parameter"},
		{"GET /comet/history?channel=a&limit=ten", "", nil, 400, "invalid-parameter"},
		{"GET /comet/history?channel=a&limit=2147483648", "", nil, 400, "invalid-parameter"},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		w := call(hub, method, target, c.body, c.headers...)
		p := problemOf(t, w)
		if w.Code != c.status || p.Code != c.code {
			t.Errorf("%.120s %.60q %q: got %d %s (%s), want %d %s", c.request, c.body, c.headers, w.Code, p.Code, p.Detail, c.status, c.code)
		}
		if strings.Contains(p.Detail, "engine:") || strings.Contains(p.Detail, "halley:") {
			t.Errorf("%.120s: %q has a package's name in it", c.request, p.Detail)
		}
		if len(p.Detail) > 700 {
			t.Errorf("%.120s: a detail of %d bytes", c.request, len(p.Detail))
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Origin"} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%.120s: %s is %q, want %q", c.request, name, got, want)
			}
		}
		if allow := w.Header().Get("Allow"); (allow != "") != (c.status == 405) {
			t.Errorf("%.120s: Allow is %q", c.request, allow)
		}
		if c.status == 426 && (w.Header().Get("Upgrade") != "websocket" || w.Header().Get("Sec-WebSocket-Version") != "13") {
			t.Errorf("%.120s: headers %v", c.request, w.Header())
		}
	}
	if got := stored(t, hub); len(got) > 0 {
		t.Errorf("stored %q", got)
	}
}

func numbers(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

// Each code of the closed list is in the tests of this package, so that there
// is none that nothing leads to.
func TestEveryCode(t *testing.T) {
	list, err := os.ReadFile("internal/wire/problem.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), "_test.go") {
			b, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(b)
		}
	}
	codes := regexp.MustCompile(`Code = "([a-z-]+)"`).FindAllSubmatch(list, -1)
	if len(codes) < 20 {
		t.Fatalf("%d codes", len(codes))
	}
	for _, c := range codes {
		if !regexp.MustCompile(`[" ]` + string(c[1]) + `"`).MatchString(tests.String()) {
			t.Errorf("code %s is in no test", c[1])
		}
	}
}

// A failing engine fails as one.
type failing struct {
	engine.Engine
	err error
}

func (f *failing) Append(context.Context, engine.Batch) (engine.Receipt, error) {
	return engine.Receipt{}, f.err
}

func (f *failing) Read(context.Context, engine.Query) (engine.Page, error) {
	return engine.Page{}, f.err
}

// What clients are told of an engine's errors.
func TestEngineErrors(t *testing.T) {
	log := &failing{Engine: newLog(t)}
	hub := newHubOn(t, log, halley.Options{})
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{engine.ErrUnavailable, 503, "engine-unavailable"},
		{fmt.Errorf("disk: %w: no space", engine.ErrUnavailable), 503, "engine-unavailable"},
		{engine.ErrClosed, 503, "engine-unavailable"},
		{engine.ErrTooLarge, 413, "too-large"},
		{engine.ErrKeyReused, 422, "key-reused"},
		{fmt.Errorf("%w: what is wrong", engine.ErrInvalid), 400, "invalid-message"},
		{errors.New("secret: /var/lib/halley"), 500, "internal"},
	} {
		log.err = c.err
		for _, target := range []string{"POST /comet/publish?channel=a", "GET /comet/history?channel=a"} {
			method, path, _ := strings.Cut(target, " ")
			w := call(hub, method, path, "")
			p := problemOf(t, w)
			if w.Code != c.status || p.Code != c.code || strings.Contains(p.Detail, "secret") {
				t.Errorf("%s, %v: got %d %+v, want %d %s", target, c.err, w.Code, p, c.status, c.code)
			}
			if (w.Header().Get("Retry-After") != "") != (w.Code == 503) {
				t.Errorf("%s, %v: Retry-After is %q", target, c.err, w.Header().Get("Retry-After"))
			}
		}
		if _, err := hub.Publish(context.Background(), textMessage("a", "x")); !errors.Is(err, c.err) {
			t.Errorf("Publish: got %v, want %v", err, c.err)
		}
	}
}

// OPTIONS tells the methods, HEAD has no body, and info is what it should be.
func TestInfo(t *testing.T) {
	hub := newHub(t, halley.Options{Version: "v1 \"x\"", Hosts: []string{"a.example", "b.example:8443"}, Heartbeat: 1500e6})
	publish(t, hub, "a", "1")
	w := call(hub, "GET", "/comet/info", "", "Host: A.example")
	var got any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%s: %v", w.Body, err)
	}
	want := map[string]any{
		"protocol": 1.0, "version": "v1 \"x\"", "heartbeat": 1.5,
		"transports": []any{"websocket", "sse", "xhr-streaming", "multipart", "iframe", "long-polling", "jsonp"},
		"hosts":      []any{"a.example", "b.example:8443"},
		"cursor":     hub.End().String(),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json; charset=utf-8" {
		t.Errorf("Content-Type %q", ct)
	}

	for path, allow := range map[string]string{
		"subscribe": "GET, POST, OPTIONS", "publish": "POST, OPTIONS", "history": "GET, HEAD, OPTIONS", "info": "GET, HEAD, OPTIONS",
		"client.js": "GET, HEAD, OPTIONS", "client.mjs": "GET, HEAD, OPTIONS",
	} {
		w := call(hub, "OPTIONS", "/comet/"+path, "", "Host: localhost")
		if w.Code != 204 || w.Header().Get("Allow") != allow || w.Body.Len() > 0 {
			t.Errorf("OPTIONS %s: %d, Allow %q, %q", path, w.Code, w.Header().Get("Allow"), w.Body)
		}
		w = call(hub, "PATCH", "/comet/"+path, "", "Host: localhost")
		if w.Code != 405 || w.Header().Get("Allow") != allow {
			t.Errorf("PATCH %s: %d, Allow %q", path, w.Code, w.Header().Get("Allow"))
		}
	}

	srv := httptest.NewServer(newHub(t, halley.Options{}))
	defer srv.Close()
	for _, path := range []string{"/comet/info", "/comet/history?channel=a", "/comet/client.js", "/comet/client.mjs"} {
		resp, err := http.Head(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.ContentLength <= 0 {
			t.Errorf("HEAD %s: %d, %d bytes", path, resp.StatusCode, resp.ContentLength)
		}
	}
}

// A subscribe request by POST takes its parameters from the form and the
// query together.
func TestSubscribeForm(t *testing.T) {
	hub := newHub(t, halley.Options{})
	ids := publish(t, hub, "a", "1")
	publish(t, hub, "b", "2")
	for _, headers := range [][]string{{"Content-Type: application/x-www-form-urlencoded; charset=utf-8"}, nil} {
		w := call(hub, "POST", "/comet/subscribe?channel=b&timeout=0", "channel=a&cursor="+ids[0].String()+"&timeout=9", headers...)
		if w.Code != 200 || !strings.Contains(w.Body.String(), `"data":"2"`) || strings.Contains(w.Body.String(), `"data":"1"`) {
			t.Errorf("%q: got %d %s", headers, w.Code, w.Body)
		}
	}
	if w := call(hub, "POST", "/comet/subscribe?channel=b&timeout=0&cursor=earliest", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"data":"2"`) {
		t.Errorf("no form: got %d %s", w.Code, w.Body)
	}
}

// A large list of channels goes through.
func TestManyChannels(t *testing.T) {
	hub := newHub(t, halley.Options{})
	srv := transporttest.Serve(t, &http.Server{Handler: hub}, transporttest.HTTP1)
	publish(t, hub, "999", "x")
	body := "timeout=0&cursor=earliest&channel=" + strings.Join(numbers(1000), "&channel=")
	resp, err := srv.Client.Post(srv.URL+"/comet/subscribe", "application/x-www-form-urlencoded", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var page struct{ Messages []struct{ Channel string } }
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil || len(page.Messages) != 1 || page.Messages[0].Channel != "999" {
		t.Errorf("got %+v, %v", page, err)
	}
}
