package halley_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/transport/transporttest"
)

// newHub makes a hub on an empty log, until the test ends.
func newHub(t testing.TB, o halley.Options) *halley.Hub {
	t.Helper()
	return newHubOn(t, newLog(t), o)
}

func newLog(t testing.TB) engine.Engine {
	t.Helper()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() }) // some tests have closed it
	return log
}

func newHubOn(t testing.TB, e engine.Engine, o halley.Options) *halley.Hub {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	hub, err := halley.New(e, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hub.Close() }) // it returns nil
	return hub
}

// call serves one request. Headers are given as "Name: value".
func call(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, target, nil)
	}
	r.RemoteAddr = "127.0.0.1:1" // without the bounds of an address
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// A problem is what a client is told of an error.
type problem struct {
	Status              int
	Code, Title, Detail string
	Line                int
}

func problemOf(t testing.TB, w *httptest.ResponseRecorder) (p problem) {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json; charset=utf-8" {
		t.Errorf("Content-Type %q of %s", got, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Errorf("%s: %v", w.Body, err)
	}
	if p.Status != w.Code || p.Title == "" {
		t.Errorf("status %d with %s", w.Code, w.Body)
	}
	return p
}

func textMessage(channel, data string) halley.Message {
	return halley.Message{Channel: channel, ContentType: "text/plain", Data: []byte(data)}
}

// publish stores texts, and returns their ids.
func publish(t testing.TB, hub *halley.Hub, channel string, data ...string) []halley.Cursor {
	t.Helper()
	var list []halley.Message
	for _, d := range data {
		list = append(list, textMessage(channel, d))
	}
	ids, err := hub.Publish(context.Background(), list...)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// stored returns the channels and data of all messages in the log.
func stored(t testing.TB, hub *halley.Hub) (list []string) {
	t.Helper()
	page, err := hub.Read(context.Background(), halley.Query{Channels: []string{"**"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page.Messages {
		list = append(list, m.Channel+" "+string(m.Data))
	}
	return list
}

// The error of New names the option at fault.
func TestOptions(t *testing.T) {
	log := newLog(t)
	for _, c := range []struct {
		options halley.Options
		want    string
	}{
		{halley.Options{Heartbeat: 9 * time.Millisecond}, "Options.Heartbeat"},
		{halley.Options{Heartbeat: -time.Second}, "Options.Heartbeat"},
		{halley.Options{Heartbeat: 2 * time.Hour}, "Options.Heartbeat"},
		{halley.Options{PollTimeout: 61 * time.Second}, "Options.PollTimeout"},
		{halley.Options{WriteTimeout: time.Microsecond}, "Options.WriteTimeout"},
		{halley.Options{MultipartLimit: -1}, "Options.MultipartLimit"},
		{halley.Options{MaxMessage: -1}, "Options.MaxMessage"},
		{halley.Options{MaxBody: -1}, "Options.MaxBody"},
		{halley.Options{MaxChannels: -1}, "Options.MaxChannels"},
		{halley.Options{MaxConnections: -1}, "Options.MaxConnections"},
		{halley.Options{Workers: -1}, "Options.Workers"},
		{halley.Options{DrainWindow: -1}, "Options.DrainWindow"},
		{halley.Options{AdmitRate: 1<<30 + 1}, "Options.AdmitRate"},
		{halley.Options{TrustedProxies: []string{"10.0.0.1", "10.0.0.0/33"}}, `Options.TrustedProxies[1] is "10.0.0.0/33"`},
		{halley.Options{Origins: []string{"https://a.example", "a.example"}}, `Options.Origins[1] is "a.example"`},
		{halley.Options{Origins: []string{"https://a.example/path"}}, "Options.Origins[0]"},
		{halley.Options{Origins: []string{"https://user@a.example"}}, "Options.Origins[0]"},
		{halley.Options{Origins: []string{"null"}}, "Options.Origins[0]"},
		{halley.Options{Origins: []string{""}}, "Options.Origins[0]"},
		{halley.Options{ActiveContent: []string{"a", "b*"}}, "Options.ActiveContent[1]"},
		{halley.Options{SlowClients: []halley.SlowClientRule{{Pattern: "a"}, {Pattern: "b*"}}}, "Options.SlowClients[1].Pattern: "},
		{halley.Options{SlowClients: []halley.SlowClientRule{{Pattern: "a", Policy: 3}}}, "Options.SlowClients[0].Policy is 3"},
		{halley.Options{SlowClients: []halley.SlowClientRule{{Pattern: "a", Policy: halley.Cut}}}, "Options.SlowClients[0].Limit is 0"},
		{halley.Options{SlowClients: []halley.SlowClientRule{{Pattern: "a", Policy: halley.Cut, Limit: -1}}}, "Options.SlowClients[0].Limit is -1"},
		{halley.Options{SlowClients: []halley.SlowClientRule{{Pattern: "a", Policy: halley.LatestOnly, Limit: 1}}}, "Options.SlowClients[0].Limit is 1"},
	} {
		hub, err := halley.New(log, &c.options)
		if err == nil {
			_ = hub.Close()
			t.Errorf("%+v is taken", c.options)
		} else if !strings.HasPrefix(err.Error(), "halley: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %q, want %q in it", c.options, err, c.want)
		}
	}
	if _, err := halley.New(nil, nil); err == nil {
		t.Error("a hub without an engine")
	}
	hub, err := halley.New(log, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := hub.Close(); err != nil {
		t.Error(err)
	}
	_ = newHub(t, halley.Options{Origins: []string{"*", "https://a.example/", "http://[::1]:8080"}, Hosts: []string{"a.example"}, ActiveContent: []string{"**"}})
}

// Publishing from Go is held to what clients are.
func TestPublish(t *testing.T) {
	hub := newHub(t, halley.Options{MaxMessage: 10})
	ctx := context.Background()
	for _, c := range []struct {
		name     string
		messages []halley.Message
		want     error
	}{
		{"nothing", nil, halley.ErrInvalid},
		{"no channel", []halley.Message{{Data: []byte("x")}}, halley.ErrInvalid},
		{"pattern", []halley.Message{textMessage("a/*", "x")}, halley.ErrInvalid},
		{"reserved", []halley.Message{textMessage("meta/x", "x")}, halley.ErrInvalid},
		{"type", []halley.Message{{Channel: "a", Type: "error"}}, halley.ErrInvalid},
		{"content type", []halley.Message{{Channel: "a", ContentType: "text"}}, halley.ErrInvalid},
		{"JSON", []halley.Message{{Channel: "a", ContentType: "application/json", Data: []byte("{")}}, halley.ErrInvalid},
		{"JSON in Latin 1", []halley.Message{{Channel: "a", ContentType: "application/json", Data: []byte("\"\xe9\"")}}, halley.ErrInvalid},
		{"text in Latin 1", []halley.Message{textMessage("a", "\xe9")}, halley.ErrInvalid},
		{"too large", []halley.Message{textMessage("a", "12345678901")}, halley.ErrTooLarge},
		{"the second one", []halley.Message{textMessage("a", "x"), textMessage("a//b", "x")}, halley.ErrInvalid},
		{"too many", slices.Repeat([]halley.Message{textMessage("a", "x")}, 1001), halley.ErrInvalid},
	} {
		if ids, err := hub.Publish(ctx, c.messages...); !errors.Is(err, c.want) || ids != nil {
			t.Errorf("%s: got %v, %v, want %v", c.name, ids, err, c.want)
		}
	}
	if got := stored(t, hub); len(got) > 0 {
		t.Errorf("stored %q", got)
	}
	ids, err := hub.Publish(ctx, halley.Message{Channel: "a", Data: []byte{0xff}}, textMessage("b", "1234567890"))
	if err != nil || len(ids) != 2 || ids[1] != hub.End() || ids[0].Seq+1 != ids[1].Seq {
		t.Errorf("got %v, %v", ids, err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := hub.Publish(canceled, textMessage("a", "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}

	batch := halley.Batch{Messages: []halley.Message{textMessage("a", "once")}, Key: "k", Digest: [32]byte{1}}
	first, err := hub.PublishBatch(ctx, batch)
	if err != nil || first.Repeated {
		t.Fatalf("got %+v, %v", first, err)
	}
	again, err := hub.PublishBatch(ctx, batch)
	if err != nil || !again.Repeated || again.First != first.First {
		t.Errorf("a repeat: got %+v, %v, want %+v", again, err, first)
	}
	batch.Digest[0]++
	if _, err := hub.PublishBatch(ctx, batch); !errors.Is(err, halley.ErrKeyReused) {
		t.Errorf("other content: %v", err)
	}
	// A client's key of the same name is another.
	if w := call(hub, "POST", "/comet/publish?channel=a", "x", "Content-Type: text/plain", "Idempotency-Key: k"); w.Code != 200 {
		t.Errorf("a client's key: %d %s", w.Code, w.Body)
	}
}

// No more subscriptions are held than allowed, and one that ends makes room.
func TestMaxConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, halley.Options{MaxConnections: 2})
		srv := transporttest.Serve(t, &http.Server{Handler: hub}, transporttest.HTTP1)
		open := func() *http.Response {
			resp, err := srv.Client.Get(srv.URL + "/comet/subscribe?channel=a&transport=xhr-streaming")
			if err != nil {
				t.Fatal(err)
			}
			return resp
		}
		first, second := open(), open()
		defer second.Body.Close()
		if first.StatusCode != 200 || second.StatusCode != 200 {
			t.Fatalf("status %d and %d", first.StatusCode, second.StatusCode)
		}
		if w := call(hub, "GET", "/comet/subscribe?channel=a&timeout=0", ""); problemOf(t, w).Code != "too-many-connections" || w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("the third: %d %s", w.Code, w.Body)
		}
		if w := call(hub, "GET", "/comet/subscribe?channel=a&transport=sse", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "event: comet:reconnect\n") {
			t.Errorf("the third over sse: %d %s", w.Code, w.Body)
		}
		first.Body.Close()
		synctest.Wait()
		if w := call(hub, "GET", "/comet/subscribe?channel=a&timeout=0", ""); w.Code != 200 {
			t.Errorf("when there is room: %d %s", w.Code, w.Body)
		}
	})
}

// The time-outs of the embedder's server are not for what is held open.
func TestServerTimeouts(t *testing.T) {
	for _, protocol := range []transporttest.Protocol{transporttest.HTTP1, transporttest.H2C} {
		for _, transport := range []string{"long-polling", "jsonp", "iframe", "multipart", "xhr-streaming", "sse", "websocket"} {
			if transport == "websocket" && protocol == transporttest.H2C {
				continue
			}
			for _, method := range []string{"GET", "POST"} {
				if transport == "websocket" && method == "POST" {
					continue
				}
				t.Run(string(protocol)+"/"+transport+"/"+method, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						testServerTimeouts(t, protocol, transport, method)
					})
				})
			}
		}
	}
}

func testServerTimeouts(t *testing.T, protocol transporttest.Protocol, transport, method string) {
	hub := newHub(t, halley.Options{Heartbeat: 3 * time.Second})
	srv := transporttest.Serve(t, &http.Server{
		Handler: hub, ReadTimeout: time.Second, WriteTimeout: time.Second, IdleTimeout: time.Second,
	}, protocol)
	query := "channel=a&format=envelope&callback=f&transport=" + transport
	r, err := http.NewRequest(method, srv.URL+"/comet/subscribe?"+query, nil)
	if method == "POST" {
		r, err = http.NewRequest(method, srv.URL+"/comet/subscribe", strings.NewReader(query))
	}
	if err != nil {
		t.Fatal(err)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if transport == "websocket" {
		upgrade(r.Header)
	}
	// The second message comes when the time-outs are over more than once.
	for i, at := range []time.Duration{2 * time.Second, 10 * time.Second} {
		time.AfterFunc(at, func() { publish(t, hub, "a", "message "+string(rune('1'+i))) })
	}
	var got strings.Builder
	for polls := 0; polls < 2 && !strings.Contains(got.String(), "message 2"); polls++ {
		resp, err := srv.Client.Do(r.Clone(context.Background()))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		buf := make([]byte, 4096)
		for !strings.Contains(got.String(), "message 2") {
			n, err := resp.Body.Read(buf)
			got.Write(buf[:n])
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("after %q: %v", &got, err)
			}
		}
		if method == "POST" {
			r.Body, _ = r.GetBody() // of a string
		}
	}
	if !strings.Contains(got.String(), "message 1") || !strings.Contains(got.String(), "message 2") {
		t.Errorf("got %q", &got)
	}
}

func upgrade(h http.Header) {
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	h.Set("Sec-WebSocket-Version", "13")
	h.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

// Clients that come faster than they are let in are told, each in its
// transport's way, to come at a time of their own. Polls that go on are let in.
func TestAdmitRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, halley.Options{AdmitRate: 3, PollTimeout: time.Second})
		id := publish(t, hub, "a", "1")
		begin := func(query string) *httptest.ResponseRecorder {
			return call(hub, "GET", "/comet/subscribe?channel=a&"+query, "")
		}
		for range 3 {
			if w := begin("timeout=0&cursor=earliest"); w.Code != 200 {
				t.Fatalf("at first: %d %s", w.Code, w.Body)
			}
		}
		for _, query := range []string{"timeout=0&cursor=earliest", "cursor=old-1", "transport=xhr-streaming", "transport=multipart"} {
			w := begin(query)
			if after := w.Header().Get("Retry-After"); problemOf(t, w).Code != "overloaded" || w.Code != 503 || after < "1" || after > "6" {
				t.Errorf("%s: %d %s, Retry-After %q", query, w.Code, w.Body, after)
			}
		}
		if w := begin("transport=sse"); w.Code != 200 || !strings.Contains(w.Body.String(), "\nevent: comet:reconnect\n") {
			t.Errorf("sse: %d %s", w.Code, w.Body)
		}
		if w := begin("transport=jsonp&callback=f&cursor=earliest"); w.Code != 200 || !strings.Contains(w.Body.String(), `"code":"overloaded"`) {
			t.Errorf("jsonp: %d %s", w.Code, w.Body)
		}
		for _, query := range []string{"cursor=" + id[0].String(), "", "transport=jsonp&callback=f", "timeout=0"} {
			if w := begin(query); w.Code != 200 || strings.Contains(w.Body.String(), "error") {
				t.Errorf("a poll that goes on, %q: %d %s", query, w.Code, w.Body)
			}
		}
		time.Sleep(time.Second)
		for i := range 4 {
			if w := begin("timeout=0&cursor=earliest"); (w.Code == 200) != (i < 3) {
				t.Errorf("a second later, %d: %d %s", i, w.Code, w.Body)
			}
		}
	})
}

// All clients of a server that was restarted come at once. They are let in at
// the rate that is set, each after a few tries, and none is left out.
func TestAdmitAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients, rate = 3000, 500
		hub := newHub(t, halley.Options{AdmitRate: rate, MaxConnectionsPerAddress: -1})
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var mu sync.Mutex
		var admitted [30]int // by second
		tries := 0
		var all sync.WaitGroup
		for range clients {
			all.Go(func() {
				for ctx.Err() == nil {
					w := httptest.NewRecorder()
					r := httptest.NewRequest("GET", "/comet/subscribe?channel=a&transport=sse", nil).WithContext(ctx)
					r.RemoteAddr = "127.0.0.1:1" // which may take all
					second := int(time.Since(began).Seconds())
					hub.ServeHTTP(w, r)
					mu.Lock()
					tries++
					_, delay, refused := strings.Cut(w.Body.String(), `"delay":`)
					if !refused {
						admitted[second]++
					}
					mu.Unlock()
					if !refused {
						return // it was held until the end
					}
					var ms int
					if _, err := fmt.Sscanf(delay, "%d}", &ms); err != nil {
						t.Errorf("%q: %v", w.Body, err)
						return
					}
					time.Sleep(time.Duration(ms) * time.Millisecond)
				}
			})
		}
		time.Sleep(29 * time.Second)
		if n := hub.Connections(); n != clients {
			t.Errorf("%d of %d are there after 29 s", n, clients)
		}
		cancel()
		all.Wait()
		most := admitted[0] // with those at once after a pause
		for _, n := range admitted[1:] {
			most = max(most, n-rate)
		}
		if most > rate+1 || tries > 10*clients {
			t.Errorf("%v were admitted in each second, after %d tries", admitted, tries)
		}
	})
}

// The streams of a browser share a connection of HTTP/2, and are sent away one
// by one.
func TestDrainHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams, window = 50, 10 * time.Second
		hub := newHub(t, halley.Options{DrainWindow: window})
		srv := transporttest.Serve(t, &http.Server{Handler: hub}, transporttest.HTTP2)
		ends := make(chan time.Duration, streams)
		var began time.Time
		for range streams {
			resp, err := srv.Client.Get(srv.URL + "/comet/subscribe?channel=a&transport=sse")
			if err != nil {
				t.Fatal(err)
			}
			if resp.ProtoMajor != 2 {
				t.Fatal(resp.Proto)
			}
			go func() {
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if err != nil || !strings.Contains(string(body), "data: 1\n") || !strings.Contains(string(body), "event: comet:reconnect\n") {
					t.Errorf("a stream was %q, %v", body, err)
				}
				ends <- time.Since(began)
			}()
		}
		synctest.Wait()
		began = time.Now()
		drained := make(chan error)
		go func() { drained <- hub.Drain(t.Context()) }()
		synctest.Wait()
		publish(t, hub, "a", "1")
		if err := <-drained; err != nil {
			t.Error(err)
		}
		first, last := window, time.Duration(0)
		for range streams {
			d := <-ends
			first, last = min(first, d), max(last, d)
		}
		if first > window/4 || last < window*3/4 || last > window+20*time.Millisecond {
			t.Errorf("streams ended between %v and %v, want over %v", first, last, window)
		}
	})
}

// Who comes to a hub that drains is told to come when it has ended.
func TestDrainRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 20 * time.Second
		hub := newHub(t, halley.Options{DrainWindow: window})
		refused := func() (delay time.Duration) {
			t.Helper()
			w := call(hub, "GET", "/comet/subscribe?channel=a", "")
			after, err := time.ParseDuration(w.Header().Get("Retry-After") + "s")
			if problemOf(t, w).Code != "draining" || err != nil || w.Header().Get("Connection") != "close" {
				t.Errorf("%d %s, %v", w.Code, w.Body, w.Header())
			}
			return after
		}
		var all sync.WaitGroup
		for range 50 {
			s, err := hub.Subscribe(t.Context(), halley.SubscribeOptions{Channels: []string{"a"}})
			if err != nil {
				t.Fatal(err)
			}
			_ = s.Close() // it does not count
			all.Go(func() { call(hub, "GET", "/comet/subscribe?channel=a&transport=sse", "") })
		}
		synctest.Wait()
		began := time.Now()
		drained := make(chan error)
		go func() { drained <- hub.Drain(t.Context()) }()
		for i := range 4 {
			synctest.Wait()
			left := window - time.Duration(i)*5*time.Second
			if d := refused(); d < left+time.Second || d > left+6*time.Second {
				t.Errorf("%v before the end: come back after %v", left, d)
			}
			if n := hub.Connections(); n == 0 || n == 50 && i > 0 {
				t.Errorf("%v before the end there are %d connections", left, n)
			}
			time.Sleep(5 * time.Second)
		}
		if err := <-drained; err != nil || time.Since(began) > window+20*time.Millisecond {
			t.Errorf("drained after %v: %v", time.Since(began), err)
		}
		if d := refused(); d > 6*time.Second {
			t.Errorf("at the end: come back after %v", d)
		}
		all.Wait()
	})
}

// Drain waits for clients that are slow to go, but not longer than asked.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, halley.Options{WriteTimeout: 10 * time.Second})
		srv := transporttest.Serve(t, &http.Server{Handler: hub}, transporttest.HTTP1)
		conn, err := srv.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /comet/subscribe?channel=a&transport=sse HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		s, err := hub.Subscribe(context.Background(), halley.SubscribeOptions{Channels: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		synctest.Wait()

		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := hub.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("Drain: %v after %v", err, time.Since(began))
		}
		if err := hub.Drain(context.Background()); err != nil || time.Since(began) != 10*time.Second {
			t.Errorf("second Drain: %v after %v", err, time.Since(began))
		}
		if _, err := s.Next(context.Background()); err != halley.ErrClosed {
			t.Errorf("a subscription of the program: %v", err)
		}
		if err := hub.Drain(context.Background()); err != nil {
			t.Errorf("third Drain: %v", err)
		}
		publish(t, hub, "a", "goes on")
		if err := hub.Close(); err != nil {
			t.Error(err)
		}
		publish(t, hub, "a", "the engine is open")
	})
}

// Close of a hub without clients ends at once, twice, and leaves the engine.
func TestClose(t *testing.T) {
	log := newLog(t)
	hub := newHubOn(t, log, halley.Options{})
	s, err := hub.Subscribe(context.Background(), halley.SubscribeOptions{Channels: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if err := hub.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Next(context.Background()); err != halley.ErrClosed {
		t.Errorf("Next: %v", err)
	}
	if _, err := hub.Subscribe(context.Background(), halley.SubscribeOptions{Channels: []string{"a"}}); err != halley.ErrClosed {
		t.Errorf("Subscribe: %v", err)
	}
	if w := call(hub, "GET", "/comet/subscribe?channel=a", ""); problemOf(t, w).Code != "draining" {
		t.Errorf("subscribe: %d %s", w.Code, w.Body)
	}
	if _, err := log.Append(context.Background(), engine.Batch{Messages: []engine.Message{textMessage("a", "x")}}); err != nil {
		t.Errorf("the engine: %v", err)
	}
}
