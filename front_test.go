package halley_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// A frontServer is an HTTP server with a hub at /comet, and "hello" at /.
type frontServer struct {
	testing.TB
	hub    *halley.Hub
	log    engine.Engine
	server *http.Server
	addr   string
	served chan error
}

// patience is how long a test waits for what should come at once.
const patience = 10 * time.Second

func serveFront(t testing.TB, log engine.Engine, o halley.Options, server *http.Server, front bool) *frontServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveFrontOn(t, l, log, o, server, front)
}

func serveFrontOn(t testing.TB, l net.Listener, log engine.Engine, o halley.Options, server *http.Server, front bool) *frontServer {
	t.Helper()
	s := &frontServer{TB: t, log: log, hub: newHubOn(t, log, o), server: server, addr: l.Addr().String(), served: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.Handle("/comet/", s.hub)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	server.Handler, server.ErrorLog = mux, slog.NewLogLogger(slog.DiscardHandler, 0)
	if front {
		l = s.hub.Front(server, l)
	}
	go func() { s.served <- server.Serve(l) }()
	t.Cleanup(func() { s.close() })
	return s
}

func (s *frontServer) close() {
	_ = s.hub.Close()    // it returns nil
	_ = s.server.Close() // the listener's error
	if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
		s.Errorf("Serve: %v", err)
	}
	s.served <- http.ErrServerClosed // for a second call
}

// A client is a connection of a client that sees each byte.
type client struct {
	testing.TB
	*net.TCPConn
	r *bufio.Reader
}

func (s *frontServer) dial() *client { return dialTo(s, s.addr) }

func dialTo(t testing.TB, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // most are closed
	_ = c.SetDeadline(time.Now().Add(patience))
	return &client{t, c.(*net.TCPConn), bufio.NewReader(c)}
}

func (c *client) send(requests ...string) *client {
	c.Helper()
	if _, err := io.WriteString(c, strings.Join(requests, "")); err != nil {
		c.Errorf("send: %v", err)
	}
	return c
}

// response returns the next response, with its body if that ends.
func (c *client) response() (*http.Response, string) {
	c.Helper()
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.Fatalf("read a response: %v", err)
	}
	if r.ContentLength < 0 {
		return r, ""
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.Fatalf("read a body: %v", err)
	}
	return r, string(body)
}

// want reads a response and checks its status and a part of its body.
func (c *client) want(status int, part string) string {
	c.Helper()
	r, body := c.response()
	if r.StatusCode != status || !strings.Contains(body, part) {
		c.Fatalf("got %d %s, want %d with %q", r.StatusCode, body, status, part)
	}
	return body
}

// wantEnd checks that the server closes the connection, and does not reset it.
func (c *client) wantEnd() {
	c.Helper()
	if b, err := io.ReadAll(c.r); len(b) > 0 || err != nil {
		c.Fatalf("got %q and %v, want the end", b, err)
	}
}

func (c *client) end() {
	c.Helper()
	if err := c.CloseWrite(); err != nil {
		c.Error(err)
	}
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n" }

func post(channel, body string) string {
	return fmt.Sprintf("POST /comet/publish?channel=%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", channel, len(body), body)
}

// What a client sees of a server with Front is what it sees of one without.
func TestFrontDifference(t *testing.T) {
	o := halley.Options{MaxMessage: 100, MaxBody: 1000, MaxChannels: 3, Workers: 1, Origins: []string{"https://app.example"}}
	with := serveFront(t, newLog(t), o, &http.Server{MaxHeaderBytes: 5000}, true)
	without := serveFront(t, newLog(t), o, &http.Server{MaxHeaderBytes: 5000}, false)
	for _, s := range []*frontServer{with, without} {
		publish(t, s.hub, "a", "1", "<2>")
		publish(t, s.hub, "b/c", "3")
	}
	n := 0
	compare := func(request string, split int) {
		t.Helper()
		n++
		if got, want := with.exchange(request, split), without.exchange(request, split); got != want {
			t.Errorf("%q, in two at %d:\nwith Front:    %q\nwithout Front: %q", request, split, got, want)
		}
	}
	for _, request := range plainRequests() {
		for range 3 { // the second comes from the memo
			compare(request, 0)
		}
	}
	// Without a seed of its own a run could not be repeated.
	random := rand.New(rand.NewPCG(1, 2))
	rounds := 1000
	if testing.Short() {
		rounds = 200
	}
	for range rounds {
		request := randomRequest(random)
		split := 0
		if random.IntN(3) == 0 {
			split = random.IntN(len(request))
		}
		compare(request, split)
		if random.IntN(4) == 0 {
			compare(randomRequest(random)+request, 0)
		}
	}
	if got, want := stored(t, with.hub), stored(t, without.hub); !slices.Equal(got, want) || len(want) < rounds/10 {
		t.Errorf("after %d requests, the log with Front is %q, without %q", n, got, want)
	}
}

// exchange sends a request, in two pieces if split is not 0, and once it is
// answered one for info. It returns all that comes back but for what is never the same.
func (s *frontServer) exchange(request string, split int) string {
	s.Helper()
	c := s.dial()
	defer c.Close()
	epoch := s.hub.End().Epoch
	request = strings.ReplaceAll(request, "EPOCH", epoch)
	split = min(split, len(request))
	for _, b := range []string{request[:split], request[split:]} {
		if _, err := io.WriteString(c, b); err != nil {
			break // the server has refused it
		}
	}
	var seen strings.Builder
	for i := 0; ; i++ {
		r, err := http.ReadResponse(c.r, nil)
		if os.IsTimeout(err) {
			s.Fatalf("%q: no answer after %s", request, &seen)
		}
		if err != nil {
			break
		}
		r.Header.Del("Date")
		if r.ContentLength > 0 {
			r.Header.Set("Content-Length", "n") // epochs are not of one length
		}
		fmt.Fprintln(&seen, r.StatusCode, r.Header)
		switch {
		case r.StatusCode == http.StatusSwitchingProtocols:
			return normal(seen.String(), epoch)
		case r.ContentLength < 0 && r.StatusCode == http.StatusOK:
			// A stream: what it begins with is enough, and it never ends.
			if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/") {
				return normal(seen.String(), epoch)
			}
			var body []byte
			for buf := make([]byte, 1); !bytes.Contains(body, []byte(`"control":"`)); body = append(body, buf...) {
				if _, err := r.Body.Read(buf); err != nil {
					s.Fatalf("%q: %q and then %v", request, body, err)
				}
			}
			return normal(seen.String()+string(body), epoch)
		}
		body, err := io.ReadAll(r.Body)
		fmt.Fprintln(&seen, string(body), err)
		if i == 0 { // what came with the request would have it served by the HTTP server
			_, _ = io.WriteString(c, "GET /comet/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") // if it is not closed
		}
	}
	return normal(seen.String(), epoch)
}

var changing = regexp.MustCompile(`comet-[A-Z2-7]{26}|"time":[0-9]+|Retry-After:\[[0-9]+\]`)

func normal(s, epoch string) string {
	return changing.ReplaceAllString(strings.ReplaceAll(s, epoch, "EPOCH"), "X")
}

// plainRequests are one for each thing that a plan depends on.
func plainRequests() (list []string) {
	for _, query := range []string{
		"channel=a&cursor=earliest", "channel=b/c&cursor=EPOCH-1", "channel=**&cursor=EPOCH-99", "channel=a&cursor=x-1", "channel=a&cursor=X",
		"channel=a&timeout=0", "channel=a&timeout=0.01", "channel=a&channel=b/c&cursor=earliest", "channel=a&channel=b&channel=c&channel=d&cursor=earliest",
		"channel=&timeout=0", "channel=a*&timeout=0", "channel=meta/a&timeout=0", "channel=a%2Fb&timeout=0", "channel=a+b&timeout=0", "timeout=0",
		"channel=a&cursor=earliest&transport=jsonp&callback=f", "channel=a&cursor=earliest&transport=jsonp&callback=alert(1)", "channel=a&timeout=0&transport=jsonp",
		"channel=a&cursor=x&transport=jsonp&callback=f", "channel=a&cursor=earliest&padding=3000", "channel=a&timeout=0&padding=65536", "channel=a&timeout=-1",
		"channel=a&transport=iframe&callback=f", "channel=a&transport=iframe&origin=http://localhost", "channel=a&transport=iframe&origin=http://[::1]", "channel=a&transport=iframe", "channel=a&transport=sse",
		"channel=a&transport=sse&cursor=EPOCH-77", "channel=a&transport=sse&format=envelope&padding=100", "channel=a&transport=xhr-streaming&cursor=earliest",
		"channel=a&transport=multipart", "channel=a&transport=multipart&format=envelope", "channel=a&transport=websocket", "channel=a&transport=flash",
		"channel=a&cur%73or=x-1&cursor=EPOCH-1&timeout=0", "channel=a&chann%65l=b&timeout=0", "channel=a;b&timeout=0", "channel=a&timeout=0&x=%", "channel=a&timeout=0&x=%00",
	} {
		list = append(list, get("/comet/subscribe?"+query))
	}
	for _, header := range []string{
		"Host: evil.example", "Host: localhost:1/x", "Host: a.localhost", "Host: ", "Host: localhost\r\nHost: localhost", "X: y",
		"Host: localhost\r\nOrigin: http://localhost:3000", "Host: localhost\r\nOrigin: http://evil.example", "Host: localhost\r\nOrigin: null",
		"Host: localhost\r\nSec-Fetch-Site: cross-site\r\nReferer: http://evil.example/", "Host: localhost\r\nLast-Event-ID: EPOCH-2", "Host: localhost\r\nLast-Event-ID: nonsense",
		"Host: localhost\r\nLast-Event-ID: ", "Host: localhost\r\nAccept: text/event-stream", "Host: localhost\r\nAccept: a/b;q=0.1\r\nAccept: application/x-ndjson",
		"Host: localhost\r\nConnection: close", "Host: localhost\r\nConnection: keep-alive", "Host: localhost\r\nExpect: 100-continue", "Host: localhost\r\nA: \x01",
		"Host: localhost\r\nA : b", "Host: localhost\r\nA: b\r\n c", "Host: localhost\r\nContent-Length: 2\r\n\r\nxx", "Host: localhost\r\nUpgrade: websocket",
		"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
		"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short",
		"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
		"Host: localhost\r\nCookie: " + strings.Repeat("x", 4000), "Host: localhost\r\nCookie: " + strings.Repeat("x", 20000),
	} {
		end := "\r\n\r\n"
		if strings.Contains(header, end) {
			end = ""
		}
		list = append(list, "GET /comet/subscribe?channel=a&timeout=0.01 HTTP/1.1\r\n"+header+end)
		if end != "" {
			list = append(list, "POST /comet/publish?channel=a HTTP/1.1\r\n"+header+"\r\nContent-Length: 2\r\n\r\nhi", "POST /comet/publish?channel=a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"+header+"\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
		}
	}
	for _, path := range []string{"/comet/../comet/subscribe", "//comet/subscribe", "/comet/subscribe/", "/comet/Subscribe", "/comet/%73ubscribe", "/comet//subscribe", "http://localhost/comet/subscribe", "/comet/", "/comet", "/"} {
		for _, method := range []string{"GET", "OPTIONS", "PUT", "BREW"} {
			list = append(list, method+" "+path+"?channel=a&timeout=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
		}
	}
	for _, c := range [][3]string{
		{"channel=a", "text/plain", "hi"}, {"channel=a&type=t", "text/plain", "hi"}, {"channel=a&type=open", "text/plain", "hi"}, {"channel=a", "text/plain", ""},
		{"channel=a&channel=b&channel=a", "", "\x00\xff"}, {"channel=a/**", "text/plain", "hi"}, {"", "text/plain", "hi"}, {"channel=a", "text/plain", "\xff"},
		{"channel=a", "application/json", `{"x":1}`}, {"channel=a", "application/json", `{`}, {"channel=a", "nonsense", "hi"}, {"channel=a", "text/plain", strings.Repeat("x", 101)},
		{"channel=a", "text/plain", strings.Repeat("x", 1001)}, {"channel=a", "application/x-ndjson", "{\"data\":1}\n{\"channel\":\"b\",\"data\":\"x\"}\n"}, {"channel=a", "application/x-ndjson", "{\"data\":1}\n{"},
		{"channel=a", "application/x-ndjson", strings.Repeat("{\"data\":1}\n", 100)},
		{"channel=a&cursor=x", "application/x-www-form-urlencoded", "data=x&channel=b"}, {"channel=a", "application/x-www-form-urlencoded", "x"},
	} {
		list = append(list, fmt.Sprintf("POST /comet/publish?%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", c[0], c[1], len(c[2]), c[2]))
	}
	return append(list, post("a", "hi")+post("b", "ho"), post("a", "hi")+"\r\n"+post("a", "ho"), "\r\n"+post("a", "hi"), get("/comet/subscribe?channel=a&timeout=0")+"\r\n",
		post("a", "hi")+get("/comet/subscribe?channel=a&cursor=EPOCH-1"), get("/comet/subscribe?channel=a&cursor=EPOCH-1")+post("a", "hi"),
		"HEAD /comet/publish?channel=a HTTP/1.0\r\n\r\n", "GET /comet/subscribe?channel=a&timeout=0 HTTP/1.0\r\n\r\n", "GET /comet/subscribe?channel=a&timeout=0 HTTP/1.1\nHost: localhost\n\n",
		"POST /comet/subscribe?timeout=0 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\nchannel=a", get("/comet/history?channel=a"))
}

// randomRequest is mostly a good one, or nearly.
func randomRequest(r *rand.Rand) string {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	some := func(n int, list ...string) (s string) {
		for range r.IntN(n + 1) {
			s += pick(list...)
		}
		return s
	}
	channels := pick("&channel=a", "&channel=b/c", "&channel=c", "&channel=a&channel=b/c", "&channel=%61", "&channel=", "&channel", "&channel=a%", "&Channel=a")
	header := "Host: " + pick("localhost", "localhost:80", "127.0.0.1", "[::1]", "h.localhost", "h") + "\r\n" +
		some(2, "Accept: */*\r\n", "Origin: http://localhost\r\n", "Origin: http://x.example\r\n", "User-Agent: x\r\n", "x: y\r\n", "Connection: keep-alive\r\n", "Cache-Control: no-cache\r\n",
			"Sec-Fetch-Site: cross-site\r\n", "Referer: http://localhost/\r\n")
	if r.IntN(2) == 0 {
		body := pick("", "1", "hi", "{}", "data=x", `{"data":1}`, "\xff")
		return "POST /comet/publish?" + some(1, "type=t", "type=open", "x=y") + channels + " HTTP/1.1\r\n" + header +
			some(1, "Content-Type: text/plain\r\n", "Content-Type: application/json\r\n", "Content-Type: application/x-ndjson\r\n", "content-type: application/x-www-form-urlencoded\r\n") +
			fmt.Sprintf("%s: %d\r\n", pick("Content-Length", "content-length", "CONTENT-LENGTH"), len(body)) + some(1, "Idempotency-Key: k\r\n") + "\r\n" + body
	}
	return "GET /comet/subscribe?" + pick("timeout=0", "timeout=0.001", "timeout=0.01") + channels +
		some(2, "&cursor=EPOCH-1", "&cursor=EPOCH-3", "&cursor=now", "&cursor=earliest", "&cursor=", "&cursor=x-1", "&cursor=-", "&c%75rsor=EPOCH-2", "&transport=jsonp&callback=f", "&padding=20", "&format=envelope") +
		" HTTP/1.1\r\n" + header + some(1, "Last-Event-ID: EPOCH-1\r\n", "last-event-id: EPOCH-2\r\n", "Last-Event-Id: x\r\n", "Last-Event-ID:\r\n") + "\r\n"
}
