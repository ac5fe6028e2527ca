package demo_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/cmd/halley/demo"
	"github.com/halley-comet/halley/engine/memory"
)

const (
	mine   = "0123456789abcdefghij"
	theirs = "jihgfedcba9876543210"
)

// gated is a server as halley serve has it: gates before a hub that takes
// connections over where it can.
type gated struct {
	t   *testing.T
	url string
}

func serveGated(t *testing.T) gated {
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := halley.New(log, &halley.Options{Path: "/comet"})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(demo.Handler(hub, nil))
	s.Listener = hub.Front(s.Config, s.Listener)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		hub.Close()
		log.Close()
	})
	return gated{t, s.URL}
}

type gateState struct {
	Blocked []string       `json:"blocked"`
	Hold    bool           `json:"hold"`
	Turned  map[string]int `json:"turned"`
}

func (s gated) do(method, path, contentType, body string) *http.Response {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	s.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { res.Body.Close() })
	return res
}

func (s gated) gate(id string) (state gateState) {
	s.t.Helper()
	res := s.do("GET", "/demo/gate/"+id, "", "")
	if err := json.NewDecoder(res.Body).Decode(&state); err != nil {
		s.t.Fatal(err)
	}
	return state
}

func (s gated) set(id string, state gateState) {
	s.t.Helper()
	body, err := json.Marshal(state)
	if err != nil {
		s.t.Fatal(err)
	}
	if res := s.do("PUT", "/demo/gate/"+id, "application/json", string(body)); res.StatusCode != 200 {
		s.t.Fatalf("set to %s: status %d", body, res.StatusCode)
	}
}

const form = "application/x-www-form-urlencoded"

func (s gated) subscribe(id, transport string) *http.Response {
	s.t.Helper()
	query := url.Values{"channel": {"news"}, "transport": {transport}, "format": {"envelope"}}.Encode()
	if transport == "xhr-streaming" || transport == "long-polling" {
		return s.do("POST", "/demo/gate/"+id+"/comet/subscribe", form, query)
	}
	return s.do("GET", "/demo/gate/"+id+"/comet/subscribe?"+query, "", "")
}

func (s gated) publish(id, text string) *http.Response {
	s.t.Helper()
	return s.do("POST", "/demo/gate/"+id+"/comet/publish?channel=news", "text/plain", text)
}

// line waits for one with the text.
func line(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	for {
		got, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("waiting for %q: %v", text, err)
		}
		if strings.Contains(got, text) {
			return
		}
	}
}

// A gate that blocks a transport cuts its streams and refuses new ones, and
// leaves the other transports, the other requests and the other pages alone.
func TestGateRefuses(t *testing.T) {
	s := serveGated(t)
	streams := make(map[string]*bufio.Reader)
	for _, id := range []string{mine, theirs} {
		for _, transport := range []string{"xhr-streaming", "sse"} {
			res := s.subscribe(id, transport)
			if res.StatusCode != 200 {
				t.Fatalf("%s: status %d", transport, res.StatusCode)
			}
			streams[id+transport] = bufio.NewReader(res.Body)
			line(t, streams[id+transport], `"open"`)
		}
	}
	s.publish(mine, "before")
	for _, r := range streams {
		line(t, r, "before")
	}

	s.set(mine, gateState{Blocked: []string{"xhr-streaming", "xhr-streaming"}})
	if rest, err := io.ReadAll(streams[mine+"xhr-streaming"]); err == nil {
		t.Errorf("the blocked stream ends well with %q, want a cut", rest)
	}
	delete(streams, mine+"xhr-streaming")
	for range 2 {
		if res := s.subscribe(mine, "xhr-streaming"); res.StatusCode != http.StatusBadGateway {
			t.Errorf("a blocked transport: status %d, want 502", res.StatusCode)
		}
	}
	if res := s.publish(mine, "after"); res.StatusCode != 200 {
		t.Errorf("publish: status %d, want 200", res.StatusCode)
	}
	for _, r := range streams {
		line(t, r, "after")
	}
	if got := fmt.Sprint(s.gate(mine)); got != "{[xhr-streaming] false map[xhr-streaming:2]}" {
		t.Errorf("the gate is %s", got)
	}
	if got := fmt.Sprint(s.gate(theirs)); got != "{[] false map[]}" {
		t.Errorf("the other gate is %s", got)
	}

	s.set(mine, gateState{})
	res := s.subscribe(mine, "xhr-streaming")
	line(t, bufio.NewReader(res.Body), `"open"`)
	if got := fmt.Sprint(s.gate(mine)); got != "{[] false map[]}" {
		t.Errorf("the gate is %s", got)
	}
}

func TestGateWebSocket(t *testing.T) {
	s := serveGated(t)
	dial := func() (io.ReadWriter, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, early, _, err := ws.Dial(ctx, strings.Replace(s.url, "http", "ws", 1)+"/demo/gate/"+mine+"/comet/subscribe?transport=websocket&channel=news")
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if early == nil {
			return conn, nil
		}
		// Something has come with the handshake.
		return struct {
			io.Reader
			io.Writer
		}{early, conn}, nil
	}
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := wsutil.ReadServerText(conn); err != nil || !strings.Contains(string(text), `"open"`) {
		t.Fatalf("got %q, %v", text, err)
	}
	s.set(mine, gateState{Blocked: []string{"websocket"}})
	if text, err := wsutil.ReadServerText(conn); err == nil {
		t.Errorf("got %q of a blocked WebSocket", text)
	}
	if _, err := dial(); err == nil {
		t.Error("a blocked WebSocket opens")
	}
}

// A gate that holds lets a request wait until the page gives up, or until it
// is set again.
func TestGateHolds(t *testing.T) {
	s := serveGated(t)
	s.set(mine, gateState{Blocked: []string{"long-polling"}, Hold: true})
	answered := make(chan int)
	go func() {
		res, err := http.PostForm(s.url+"/demo/gate/"+mine+"/comet/subscribe", url.Values{"channel": {"news"}, "transport": {"long-polling"}})
		if err != nil {
			answered <- 0
			return
		}
		res.Body.Close()
		answered <- res.StatusCode
	}()
	for deadline := time.Now().Add(10 * time.Second); s.gate(mine).Turned["long-polling"] == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the request does not reach the gate")
		}
		time.Sleep(5 * time.Millisecond)
	}
	select {
	case status := <-answered:
		t.Fatalf("status %d, want it held", status)
	case <-time.After(100 * time.Millisecond):
	}
	s.set(mine, gateState{})
	if status := <-answered; status != http.StatusBadGateway {
		t.Errorf("status %d, want 502", status)
	}
}

func TestGateBlocksEverything(t *testing.T) {
	s := serveGated(t)
	s.set(mine, gateState{Blocked: []string{"everything"}})
	for _, path := range []string{"info", "history?channel=news", "subscribe?channel=news&transport=sse"} {
		if res := s.do("GET", "/demo/gate/"+mine+"/comet/"+path, "", ""); res.StatusCode != http.StatusBadGateway {
			t.Errorf("%s: status %d, want 502", path, res.StatusCode)
		}
	}
	if res := s.publish(mine, "nothing"); res.StatusCode != http.StatusBadGateway {
		t.Errorf("publish: status %d, want 502", res.StatusCode)
	}
	if res := s.publish(theirs, "something"); res.StatusCode != 200 {
		t.Errorf("publish by another: status %d, want 200", res.StatusCode)
	}
}

func TestGateIsSetWell(t *testing.T) {
	s := serveGated(t)
	for _, test := range []struct {
		id, contentType, body string
		status                int
	}{
		{mine, "application/json; charset=utf-8", `{"blocked":["sse"]}`, 200},
		{mine, "text/plain", `{"blocked":["sse"]}`, 415},
		{mine, form, `{"blocked":["sse"]}`, 415},
		{mine, "application/json", `{"blocked":["morse"]}`, 400},
		{mine, "application/json", `{"blocked":"sse"}`, 400},
		{mine, "application/json", `{"blocked":["` + strings.Repeat("s", 2000) + `"]}`, 400},
		{"short", "application/json", `{}`, 404},
		{strings.Repeat("a", 65), "application/json", `{}`, 404},
		{mine[1:] + "A", "application/json", `{}`, 404},
	} {
		if res := s.do("PUT", "/demo/gate/"+test.id, test.contentType, test.body); res.StatusCode != test.status {
			t.Errorf("%s %.40s as %s: status %d, want %d", test.id, test.body, test.contentType, res.StatusCode, test.status)
		}
	}
	if res := s.do("GET", "/demo/gate/short/comet/info", "", ""); res.StatusCode != 404 {
		t.Errorf("by an id that is none: status %d, want 404", res.StatusCode)
	}
}

// However many gates strangers set, only so many are remembered.
func TestGatesAreBounded(t *testing.T) {
	handler := demo.Handler(http.NotFoundHandler(), nil)
	set := func(i int) {
		r := httptest.NewRequest("PUT", fmt.Sprintf("/demo/gate/%020d", i), strings.NewReader(`{"blocked":["sse"]}`))
		r.Header.Set("Content-Type", "application/json")
		handler.ServeHTTP(httptest.NewRecorder(), r)
	}
	blocks := func(i int) bool {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", fmt.Sprintf("/demo/gate/%020d", i), nil))
		return strings.Contains(w.Body.String(), "sse")
	}
	for i := range 1000 {
		set(i)
	}
	if !blocks(0) {
		t.Error("a gate of a thousand is forgotten")
	}
	for i := range 10 {
		set(1000 + i)
	}
	if !blocks(0) || !blocks(1009) {
		t.Error("a gate is forgotten that was used just now")
	}
	for i := 1; i <= 9; i++ {
		if blocks(i) {
			t.Errorf("gate %d is remembered, which was unused for the longest time", i)
		}
	}
}
