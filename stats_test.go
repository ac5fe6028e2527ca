package halley_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/transport/transporttest"
)

func count(h halley.Histogram) (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// TestStats shows what a hub counts of requests, whether the front or net/http
// serves them.
func TestStats(t *testing.T) {
	for _, fronted := range []bool{false, true} {
		hub := newHub(t, halley.Options{Workers: 2})
		server := httptest.NewUnstartedServer(hub)
		if fronted {
			server.Listener = hub.Front(server.Config, server.Listener)
		}
		server.Start()
		t.Cleanup(server.Close)
		post := func(query, body string, headers ...string) {
			t.Helper()
			r, err := http.NewRequest("POST", server.URL+"/comet/publish?"+query, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range headers {
				name, value, _ := strings.Cut(h, ": ")
				r.Header.Set(name, value)
			}
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		start := hub.End().String()
		post("channel=a&channel=b", "hello")
		post("channel=a", "hello", "Idempotency-Key: k")
		post("channel=a", "hello", "Idempotency-Key: k") // a repeat is not stored
		post("channel=a", "{", "Content-Type: application/json")
		post("channel=a/*", "x")
		if _, err := hub.Publish(t.Context(), halley.Message{Channel: "a", Data: []byte("go")}); err != nil {
			t.Fatal(err)
		}
		for _, transport := range []string{"long-polling", "jsonp&callback=f"} {
			resp, err := server.Client().Get(server.URL + "/comet/subscribe?channel=a&cursor=" + start + "&transport=" + transport)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		ctx, leave := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, "GET", server.URL+"/comet/subscribe?channel=a&transport=sse&cursor="+start, nil)
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		for got := ""; !strings.Contains(got, "data: Z28="); {
			b := make([]byte, 4096)
			n, err := resp.Body.Read(b)
			if got += string(b[:n]); err != nil {
				t.Fatal(err)
			}
		}
		sub, err := hub.Subscribe(t.Context(), halley.SubscribeOptions{Channels: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()

		post("channel=z", "x") // over another connection, which stays

		s := hub.Stats()
		if s.Published != 5 || s.PublishedBytes != 18 || count(s.Publish) != 5 || count(s.Append) != 5 {
			t.Errorf("front %v: %d messages of %d bytes, %d publishes, %d appends; want 5, 18, 5, 5",
				fronted, s.Published, s.PublishedBytes, count(s.Publish), count(s.Append))
		}
		if s.Append.Sum <= 0 || s.Publish.Sum < s.Append.Sum {
			t.Errorf("front %v: publishes took %v, appends %v", fronted, s.Publish.Sum, s.Append.Sum)
		}
		if s.Refused["invalid-message"] != 1 || s.Refused["invalid-channel"] != 1 {
			t.Errorf("front %v: refused %v", fronted, s.Refused)
		}
		for _, name := range []string{"long-polling", "jsonp"} {
			if n := s.Transports[name]; n.Connections != 0 || n.Opened != 1 || n.Messages != 3 || n.Bytes == 0 || n.Ended["answered"] != 1 {
				t.Errorf("front %v: %s %+v", fronted, name, n)
			}
		}
		if n := s.Transports["sse"]; n.Connections != 1 || n.Opened != 1 || n.Messages != 3 || n.Bytes == 0 {
			t.Errorf("front %v: sse %+v", fronted, n)
		}
		if n := s.Transports["go"]; n.Connections != 1 {
			t.Errorf("front %v: go %+v", fronted, n)
		}
		if want := map[bool]int{true: 1}[fronted]; s.Visitors != want { // the other one is subscribed
			t.Errorf("front %v: %d visitors, want %d", fronted, s.Visitors, want)
		}
		leave()
		_ = resp.Body.Close()
		for end := time.Now().Add(10 * time.Second); hub.Stats().Transports["sse"].Ended["client"] == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("front %v: sse %+v", fronted, hub.Stats().Transports["sse"])
			}
		}
	}
}

// TestReady shows when a hub says that it is not ready.
func TestReady(t *testing.T) {
	log := &stopping{Engine: newLog(t)}
	hub := newHubOn(t, log, halley.Options{})
	if err := hub.Ready(); err != nil {
		t.Errorf("at first: %v", err)
	}
	log.err = errors.New("the disk is full")
	if err := hub.Ready(); err != log.err {
		t.Errorf("with an engine that has stopped: %v", err)
	}
	log.err = nil
	if err := hub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := hub.Ready(); err == nil {
		t.Error("after Drain it is ready")
	}
}

// stopping is an engine that may have stopped.
type stopping struct {
	engine.Engine
	err error
}

func (s *stopping) Err() error { return s.err }

// TestStatsOfWebSocket shows that what is refused in a frame is counted.
func TestStatsOfWebSocket(t *testing.T) {
	webSocketTest(t, halley.Options{}, func(t *testing.T, hub *halley.Hub, srv *transporttest.Server) {
		c := dialWebSocket(t, srv, "channel=a")
		c.want("open")
		c.send(`{"publish":{"channel":"a/*","data":1},"ref":1}`)
		c.want("error 1 invalid-channel")
		c.send(`{"publish":{"channel":"a","data":1}}`)
		c.want("a=1")
		s := hub.Stats()
		for end := time.Now().Add(10 * time.Second); count(s.Publish) == 0 && time.Now().Before(end); s = hub.Stats() {
			time.Sleep(time.Millisecond) // the message may have come before it was counted
		}
		if n := s.Transports["websocket"]; n.Connections != 1 || n.Messages != 1 || s.Refused["invalid-channel"] != 1 || s.Published != 1 || count(s.Publish) != 1 {
			t.Errorf("%+v", s)
		}
	})
}
