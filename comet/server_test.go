package comet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine/memory"
)

// serve starts a server in this process and returns its client.
func serve(t *testing.T, o *halley.Options) *comet.Client {
	t.Helper()
	return &comet.Client{URL: newServer(t, o) + "/comet", Backoff: comet.Backoff{Min: time.Millisecond, Max: 5 * time.Millisecond}}
}

func newServer(t *testing.T, o *halley.Options) string {
	t.Helper()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := halley.New(log, o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/comet/", hub)
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		hub.Close()
		server.CloseClientConnections()
		server.Close()
		log.Close()
	})
	return server.URL
}

// A way is a transport in one of its formats.
type way struct {
	transport comet.Transport
	raw       bool
}

func (w way) String() string {
	if w.raw {
		return string(w.transport) + "-raw"
	}
	return string(w.transport)
}

func ways() []way {
	all := []way{{comet.SSE, true}}
	for _, t := range comet.Transports {
		all = append(all, way{t, false})
	}
	return all
}

func (w way) options(cursor string, channels ...string) comet.Options {
	return comet.Options{Channels: channels, Transport: w.transport, Raw: w.raw, Cursor: cursor}
}

func TestEveryTransport(t *testing.T) {
	client := serve(t, nil)
	ctx := t.Context()
	ps := []comet.Publication{
		{Channel: "a", Type: "said", ContentType: "application/json", Data: []byte(`{"n":1.0e5}`)},
		{Channel: "a", ContentType: "text/plain", Data: []byte("two\nlines\r\n</script>")},
		{Channel: "a", ContentType: "image/png", Data: []byte{0xff, 0}},
	}
	ids, err := client.Publish(ctx, ps...)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ways() {
		t.Run(w.String(), func(t *testing.T) {
			i := 0
			for e, err := range client.Subscribe(ctx, w.options("earliest", "a")) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Control != "" {
					continue
				}
				want := string(ps[i].Data)
				if w.raw {
					want = strings.ReplaceAll(want, "\r\n", "\n")
					if i == 2 {
						want = "/wA="
					}
				}
				m := e.Message
				if m.ID != ids[i] || e.Cursor != ids[i] || m.Channel != "a" || m.Type != ps[i].Type || m.Text() != want {
					t.Errorf("got %s at %s, want %s with %q", e.Envelope(), e.Cursor, ids[i], want)
				}
				if i++; i == len(ps) {
					break
				}
			}
		})
	}
}

// TestCutAnywhere publishes messages while a proxy cuts every connection
// of the subscriber at a random byte, now with a FIN, now with a reset.
func TestCutAnywhere(t *testing.T) {
	n, padding := 1000, strings.Repeat("x", 100)
	if testing.Short() {
		n = 300
	}
	for _, w := range ways() {
		t.Run(w.String(), func(t *testing.T) {
			t.Parallel()
			publisher := serve(t, nil)
			proxy := newProxy(t, publisher.URL)
			client := &comet.Client{URL: proxy.url, Backoff: publisher.Backoff,
				HTTPClient: &http.Client{Transport: &http.Transport{}}}
			var publishing sync.WaitGroup
			t.Cleanup(publishing.Wait)
			info, err := publisher.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			window := make(chan struct{}, 50) // published, but not received
			publishing.Go(func() {
				for i := range n {
					select {
					case window <- struct{}{}:
					case <-t.Context().Done():
						return
					}
					p := comet.Publication{Channel: "a", ContentType: "application/json", Data: fmt.Appendf(nil, "[%d,%q]", i, padding)}
					if _, err := publisher.Publish(t.Context(), p); err != nil {
						t.Error(err)
						return
					}
				}
			})
			next, last := 0, info.Cursor
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for e, err := range client.Subscribe(ctx, w.options(info.Cursor, "a")) {
				if err != nil {
					t.Fatalf("after %d messages: %v", next, err)
				}
				if e.Control == comet.Gap {
					t.Fatalf("a gap after %d messages", next)
				}
				if e.Control != "" {
					continue
				}
				if got, want := e.Message.Text(), fmt.Sprintf("[%d,%q]", next, padding); got != want {
					t.Fatalf("got %s at %s after %s, want %s", got, e.Cursor, last, want)
				}
				<-window
				if next, last = next+1, e.Cursor; next == n {
					break
				}
			}
			// The last message may be here before its publish is answered, and
			// the test's context must not end in between.
			publishing.Wait()
			if cuts := proxy.cuts(); cuts < n/200 {
				t.Errorf("only %d cuts", cuts)
			}
		})
	}
}

// A proxy passes on so many bytes of each connection's answers, and cuts it.
type proxy struct {
	url string

	mu    sync.Mutex
	count int
}

func (p *proxy) cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(strings.TrimSuffix(target, "/comet"), "http://")
	p := &proxy{url: "http://" + listener.Addr().String() + "/comet"}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			down, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.pass(ctx, down, host) })
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		running.Wait()
	})
	return p
}

func (p *proxy) pass(ctx context.Context, down net.Conn, host string) {
	defer down.Close()
	up, err := net.Dial("tcp", host)
	if err != nil {
		return
	}
	defer up.Close()
	defer context.AfterFunc(ctx, func() { up.Close(); down.Close() })()
	go io.Copy(up, down)
	// From nothing to all that may have gathered for a poll's answer.
	limit := rand.Int64N(16 << 10)
	n, _ := io.CopyN(down, up, limit)
	if n == limit {
		p.mu.Lock()
		p.count++
		p.mu.Unlock()
	}
	if rand.IntN(2) == 0 {
		down.(*net.TCPConn).SetLinger(0)
	}
}

func TestServerRestarts(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.String(), func(t *testing.T) {
			old, fresh := serve(t, nil), serve(t, nil)
			target := old.URL
			var mu sync.Mutex
			// A balancer whose node is replaced by one with another log.
			client := &comet.Client{URL: "http://localhost/comet", Backoff: old.Backoff,
				HTTPClient: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					mu.Lock()
					defer mu.Unlock()
					return new(net.Dialer).DialContext(ctx, network, strings.TrimSuffix(strings.TrimPrefix(target, "http://"), "/comet"))
				}, DisableKeepAlives: true}}}
			publish(t, old, "1", "2")
			publish(t, fresh, "3", "4")
			var got []string
			cursor := "earliest"
			for _, c := range []string{old.URL, fresh.URL} {
				mu.Lock()
				target = c
				mu.Unlock()
				n := 0
				for e, err := range client.Subscribe(t.Context(), w.options(cursor, "a")) {
					if err != nil {
						t.Fatal(err)
					}
					cursor = e.Cursor
					switch e.Control {
					case comet.Gap:
						got = append(got, "gap")
					case "":
						got = append(got, e.Message.Text())
						n++
					}
					if n == 2 {
						break
					}
				}
			}
			if s := fmt.Sprint(got); s != "[1 2 gap 3 4]" {
				t.Errorf("got %s", s)
			}
		})
	}
}

func publish(t *testing.T, c *comet.Client, texts ...string) []string {
	t.Helper()
	var ps []comet.Publication
	for _, text := range texts {
		ps = append(ps, comet.Publication{Channel: "a", ContentType: "text/plain", Data: []byte(text)})
	}
	ids, err := c.Publish(t.Context(), ps...)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestHeartbeats(t *testing.T) {
	client := serve(t, &halley.Options{Heartbeat: 30 * time.Millisecond})
	for _, w := range ways() {
		o := w.options("now", "quiet")
		o.Hold = 30 * time.Millisecond
		beats := 0
		for e, err := range client.Subscribe(t.Context(), o) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Control == comet.Open && e.Heartbeat == 0 && w.transport != comet.LongPolling && w.transport != comet.JSONP {
				t.Errorf("%v: open without a heartbeat", w)
			}
			if e.Control == comet.Heartbeat {
				if beats++; beats == 3 {
					break
				}
			}
		}
	}
}

func TestRefusedByTheServer(t *testing.T) {
	client := serve(t, nil)
	for _, w := range ways() {
		for _, err := range client.Subscribe(t.Context(), w.options("", "a//b")) {
			if p, ok := errors.AsType[*comet.Problem](err); !ok || p.Status != 400 || p.Code == "" || p.Detail == "" {
				t.Errorf("%v: got %v, want a problem 400", w, err)
			}
		}
	}
}

func TestServerDrains(t *testing.T) {
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	hub, err := halley.New(log, &halley.Options{DrainWindow: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	server := httptest.NewServer(http.StripPrefix("/comet", hub))
	defer server.Close()
	client := &comet.Client{URL: server.URL + "/comet"}
	var streaming sync.WaitGroup
	opened := make(chan way, 10)
	n := 0
	for _, w := range ways() {
		if w.transport == comet.LongPolling || w.transport == comet.JSONP {
			continue // their polls are answered, as if their time were over
		}
		n++
		streaming.Go(func() {
			for e, err := range client.Subscribe(t.Context(), w.options("", "a")) {
				if e.Control == comet.Open {
					opened <- w
					continue
				}
				if err != nil || e.Control != comet.Reconnect || e.Delay <= 0 || e.Cursor == "" {
					t.Errorf("%v: got %s at %q, %v, want a reconnect", w, e.Envelope(), e.Cursor, err)
				}
				return
			}
		})
	}
	for range n {
		<-opened
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := hub.Drain(ctx); err != nil {
		t.Error(err)
	}
	streaming.Wait()
}

func TestPublishTriesAgain(t *testing.T) {
	target := newServer(t, nil)
	var mu sync.Mutex
	var keys []string
	client := &comet.Client{URL: target + "/comet", Backoff: comet.Backoff{Min: 1, Max: 1}}
	faults := 3
	client.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		mu.Lock()
		defer mu.Unlock()
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		resp, err := http.DefaultTransport.RoundTrip(r)
		if faults--; faults >= 0 && err == nil {
			// It was stored, but the client never hears of it.
			resp.Body.Close()
			return nil, errors.New("connection reset by peer")
		}
		return resp, err
	})}
	ids := publish(t, client, "once", "and this")
	page, err := client.History(t.Context(), comet.Query{Channels: []string{"a"}})
	if err != nil || len(page.Messages) != 2 || page.Messages[0].ID != ids[0] || page.Messages[1].Text() != "and this" {
		t.Errorf("got %+v, %v, want the two messages once", page, err)
	}
	if len(keys) < 4 || keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[3] {
		t.Errorf("got the keys %q, want one for all attempts", keys)
	}

	// It gives up after its attempts, and at once where trying again is no use.
	mu.Lock()
	faults, keys, client.Attempts = 100, nil, 3
	mu.Unlock()
	if _, err := client.Publish(t.Context(), comet.Publication{Channel: "a"}); err == nil || len(keys) != 3 {
		t.Errorf("got %v after %d attempts, want an error after 3", err, len(keys))
	}
	mu.Lock()
	faults, keys = 0, nil
	mu.Unlock()
	_, err = client.Publish(t.Context(), comet.Publication{Channel: "a", ContentType: "application/json", Data: []byte("1")},
		comet.Publication{Channel: "a//b", ContentType: "application/json", Data: []byte("2")})
	if p, ok := errors.AsType[*comet.Problem](err); !ok || p.Status != 400 || p.Line != 2 || len(keys) != 1 {
		t.Errorf("got %v after %d attempts, want a problem with line 2 after one", err, len(keys))
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHistory(t *testing.T) {
	client := serve(t, nil)
	ids := publish(t, client, "0", "1", "2", "3", "4")
	for _, c := range []struct {
		q    comet.Query
		want string
		more bool
	}{
		{comet.Query{}, "01234", false},
		{comet.Query{Limit: 2}, "01", true},
		{comet.Query{Cursor: ids[1], Limit: 2}, "23", true},
		{comet.Query{Until: ids[2]}, "012", false},
		{comet.Query{Before: ids[4], Limit: 2}, "23", true},
		{comet.Query{Before: ids[2]}, "01", false},
	} {
		c.q.Channels = []string{"a"}
		page, err := client.History(t.Context(), c.q)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range page.Messages {
			got += m.Text()
		}
		if got != c.want || page.More != c.more || page.Gap {
			t.Errorf("%+v: got %s, more %t, gap %t", c.q, got, page.More, page.Gap)
		}
	}
	if page, err := client.History(t.Context(), comet.Query{Channels: []string{"a"}, Cursor: "zzz-1"}); err != nil || !page.Gap {
		t.Errorf("got %+v, %v, want a gap", page, err)
	}
}

func TestInfo(t *testing.T) {
	info, err := serve(t, &halley.Options{Heartbeat: 1500 * time.Millisecond, Version: "v9"}).Info(t.Context())
	if err != nil || info.Protocol != 1 || info.Version != "v9" || info.Heartbeat != 1500*time.Millisecond || info.Cursor == "" || len(info.Transports) != 7 {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestHeaderAndToken(t *testing.T) {
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		json.NewEncoder(w).Encode(map[string]any{"id": "e-1"})
	}))
	defer server.Close()
	client := &comet.Client{URL: server.URL, Header: http.Header{"X-Tenant": {"a"}}, Token: "secret"}
	ids, err := client.Publish(t.Context(), comet.Publication{Channel: "a", Data: bytes.Repeat([]byte{1}, 3)})
	if err != nil || fmt.Sprint(ids) != "[e-1]" || got.Get("X-Tenant") != "a" || got.Get("Authorization") != "Bearer secret" {
		t.Errorf("got %v, %v and sent %v", ids, err, got)
	}
}
