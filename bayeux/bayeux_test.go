package bayeux_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/bayeux"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
)

// ways are how connects are held: read before the server, parked, by a goroutine.
var ways = []string{"read", unread, "not parked"}

// unread is in the names of tests whose connects net/http has to read.
const unread = "parked alone"

// A world is a server that speaks both protocols.
type world struct {
	t       *testing.T
	hub     *halley.Hub
	handler *bayeux.Handler
	mount   string
	http    http.Client
	streams atomic.Int32 // of the transport eventsource that are served
}

func newWorld(t *testing.T, ho halley.Options, bo bayeux.Options) *world {
	t.Helper()
	return newWorldOn(t, memory.Options{}, ho, bo)
}

func newWorldOn(t *testing.T, mo memory.Options, ho halley.Options, bo bayeux.Options) *world {
	t.Helper()
	log, err := memory.New(mo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return newWorldWith(t, log, ho, bo)
}

func newWorldWith(t *testing.T, log halley.Engine, ho halley.Options, bo bayeux.Options) *world {
	t.Helper()
	hub, err := halley.New(log, &ho)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := bayeux.New(hub, &bo)
	if err != nil {
		t.Fatal(err)
	}
	world := &world{t: t, hub: hub, handler: handler}
	mux := http.NewServeMux()
	mux.Handle("/comet/", hub)
	mux.HandleFunc("/bayeux", world.serve)
	mux.HandleFunc("/bayeux/", world.serve)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	if !strings.Contains(t.Name(), strings.ReplaceAll(unread, " ", "_")) {
		handler.Read("/bayeux")
	}
	go func() { _ = server.Serve(hub.Front(server, l)) }() // until it is closed
	t.Cleanup(func() {
		_ = handler.Close()
		_ = server.Close()
		hub.Close()
	})
	world.mount = "http://" + l.Addr().String() + "/bayeux"
	return world
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Accept") == "text/event-stream" {
		w.streams.Add(1)
		defer w.streams.Add(-1)
	}
	w.handler.ServeHTTP(rw, r)
}

// fields are a message's.
type fields map[string]any

// text returns a field that is a string, "" if it is not.
func (f fields) text(name string) string {
	s, _ := f[name].(string)
	return s
}

func (f fields) ok() bool { return f["successful"] == true }

// advice returns a field of the advice.
func (f fields) advice(name string) any {
	a, _ := f["advice"].(map[string]any)
	return a[name]
}

// post sends what is JSON and returns the replies.
func (w *world) post(body string, headers ...string) []fields {
	w.t.Helper()
	replies, err := w.try(w.t.Context(), body, headers...)
	if err != nil {
		w.t.Fatalf("%s: %v", body, err)
	}
	return replies
}

func (w *world) try(ctx context.Context, body string, headers ...string) ([]fields, error) {
	r, err := http.NewRequestWithContext(ctx, "POST", w.mount, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	resp, err := w.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	for _, c := range b {
		if c >= 0x80 {
			return nil, fmt.Errorf("%q is not ASCII", b)
		}
	}
	var replies []fields
	if err := json.Unmarshal(b, &replies); err != nil {
		return nil, fmt.Errorf("%s %q: %w", resp.Status, b, err)
	}
	return replies, nil
}

// one is post for what has one reply.
func (w *world) one(body string, headers ...string) fields {
	w.t.Helper()
	replies := w.post(body, headers...)
	if len(replies) != 1 {
		w.t.Fatalf("%s: %v", body, replies)
	}
	return replies[0]
}

// handshake returns a new client ID.
func (w *world) handshake(ext string, headers ...string) string {
	w.t.Helper()
	if ext != "" {
		ext = `,"ext":` + ext
	}
	f := w.one(`[{"channel":"/meta/handshake","id":"h","version":"1.0","supportedConnectionTypes":["long-polling"]`+ext+`}]`, headers...)
	if !f.ok() || f.text("id") != "h" || f.text("version") != "1.0" || f.advice("reconnect") != "retry" || f.advice("maxInterval") == nil {
		w.t.Fatalf("handshake: %v", f)
	}
	return f.text("clientId")
}

func (w *world) subscribe(id, channel string) {
	w.t.Helper()
	f := w.one(fmt.Sprintf(`[{"channel":"/meta/subscribe","clientId":%q,"subscription":%q}]`, id, channel))
	if !f.ok() || f.text("subscription") != channel {
		w.t.Fatalf("subscribe: %v", f)
	}
}

// connect returns what a connect brings, and its own reply.
func (w *world) connect(id, more string) ([]fields, fields) {
	w.t.Helper()
	replies := w.post(connectBody(id, more))
	return replies[:len(replies)-1], replies[len(replies)-1]
}

func connectBody(id, more string) string {
	return fmt.Sprintf(`[{"channel":"/meta/connect","clientId":%q,"connectionType":"long-polling"%s}]`, id, more)
}

func (w *world) publish(channel string, data any) {
	w.t.Helper()
	b, err := json.Marshal(data)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.hub.Publish(w.t.Context(), halley.Message{Channel: channel, ContentType: "application/json", Data: b}); err != nil {
		w.t.Fatal(err)
	}
}

const (
	now  = `,"advice":{"timeout":0}`
	soon = `,"advice":{"timeout":5000}`
)

// data returns the data of messages.
func data(messages []fields) []any {
	all := []any{}
	for _, m := range messages {
		all = append(all, m["data"])
	}
	return all
}

func same(got, want any) bool {
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	return string(a) == string(b)
}

// A message that is published in one protocol is delivered in the other, with
// its id and ext, and without what would let others take the client's place.
func TestOneWorld(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/chat/**")
	w.subscribe(id, "/chat/room") // which overlaps
	f := w.one(`[{"channel":"/chat/room","id":"m1","clientId":"` + id + `","data":{"text":"ü€😀"},"ext":{"a":1},"timestamp":"x"}]`)
	if !f.ok() || f.text("id") != "m1" || f["data"] != nil {
		t.Errorf("publish: %v", f)
	}
	w.publish("chat/room", "native")
	if _, err := w.hub.Publish(t.Context(), halley.Message{Channel: "chat/text", ContentType: "text/plain", Data: []byte("plain\n")}); err != nil {
		t.Fatal(err)
	}
	messages, reply := w.connect(id, soon)
	if !reply.ok() || reply.text("channel") != "/meta/connect" {
		t.Errorf("connect: %v", reply)
	}
	want := []fields{
		{"channel": "/chat/room", "id": "m1", "data": map[string]any{"text": "ü€😀"}, "ext": map[string]any{"a": 1}},
		{"channel": "/chat/room", "data": "native"},
		{"channel": "/chat/text", "data": "plain\n"},
	}
	if !same(messages, want) {
		t.Errorf("delivered %v", messages)
	}
	page, err := w.hub.Read(t.Context(), halley.Query{Channels: []string{"chat/room"}, Limit: 1})
	if err != nil || len(page.Messages) != 1 || string(page.Messages[0].Data) != `{"text":"ü€😀"}` {
		t.Errorf("in the log: %v %v", page, err)
	}
}

// What clients send that is wrong is told, each in its own reply.
func TestFaults(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{MaxSubscriptions: 3, MaxBatch: 20})
	id := w.handshake("")
	for _, c := range []struct{ body, want string }{
		{`[{"channel":"/meta/handshake","supportedConnectionTypes":["long-polling"]}]`, "400:version:"},
		{`[{"channel":"/meta/handshake","version":"2.0","supportedConnectionTypes":["long-polling"]}]`, "300:2.0:"},
		{`[{"channel":"/meta/handshake","version":"1.0"}]`, "400:supportedConnectionTypes:"},
		{`[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["flash"]}]`, "301:flash:"},
		{`[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":"long-polling"}]`, "400:supportedConnectionTypes:"},
		{`[{"channel":"/meta/connect","connectionType":"long-polling"}]`, "401::"},
		{`[{"channel":"/meta/connect","clientId":"nobody","connectionType":"long-polling"}]`, "402:nobody:"},
		{`[{"channel":"/meta/connect","clientId":5,"connectionType":"long-polling"}]`, "400:clientId:"},
		{`[{"channel":"/meta/connect","clientId":"ID"}]`, "400:connectionType:"},
		{`[{"channel":"/meta/connect","clientId":"ID","connectionType":"flash"}]`, "301:flash:"},
		{`[{"channel":"/meta/connect","clientId":"ID","connectionType":"long-polling","advice":7}]`, "400:advice:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID"}]`, "400:subscription:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID","subscription":[]}]`, "400:subscription:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID","subscription":{}}]`, "400:subscription:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID","subscription":["/a",7]}]`, "400:subscription:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID","subscription":"a"}]`, "400:a:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID","subscription":"/a//b"}]`, "400:/a//b:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID","subscription":"/*/b"}]`, "400:/*/b:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID","subscription":"/meta/connect"}]`, "403:/meta/connect:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID","subscription":"/meta/**"}]`, "403:/meta/**:"},
		{`[{"channel":"/meta/subscribe","clientId":"ID","subscription":["/a","/b","/c","/d"]}]`, "429::"},
		{`[{"channel":"/meta/unsubscribe","clientId":"ID"}]`, "400:subscription:"},
		{`[{"channel":"/meta/publish","clientId":"ID","data":1}]`, "404:/meta/publish:"},
		{`[{"channel":"/meta//handshake","clientId":"ID","data":1}]`, "404:/meta//handshake:"},
		{`[{"channel":"/meta/../a","clientId":"ID","data":1}]`, "404:/meta/../a:"},
		{`[{"channel":"/x/../meta/connect","clientId":"ID","data":1}]`, "400:/x/../meta/connect:"},
		{`[{"channel":"//meta/connect","clientId":"ID","data":1}]`, "400://meta/connect:"},
		{`[{"channel":"meta/connect","clientId":"ID","data":1}]`, "400:meta/connect:"},
		{`[{"channel":"/a","clientId":"ID"}]`, "400:data:"},
		{`[{"channel":"/a/*","clientId":"ID","data":1}]`, "400:/a/*:"},
		{`[{"channel":"/","clientId":"ID","data":1}]`, "400:/:"},
		{`[{"channel":"","data":1}]`, "400:channel:"},
		{`[{"data":1}]`, "400:channel:"},
		{`[{"channel":7,"data":1}]`, "400:channel:"},
		{`[{"channel":"/a","id":{},"data":1}]`, "400:id:"},
		{`[{"channel":"/a","id":true,"data":1}]`, "400:id:"},
		{`[{"channel":"/a","ext":[],"data":1}]`, "400:ext:"},
		{`[{"channel":"/a","data":1,"clientId":"nobody"}]`, "402:nobody:"},
		{`[{"channel":"/a","data":{"data":"~"},"ext":{"binary":true}}]`, "400:/a:"},
		{`[{"channel":"/a","data":5,"ext":{"binary":{}}}]`, "400:/a:"},
		{`[7]`, "400::"},
		{`["x"]`, "400::"},
		{`[null]`, "400::"},
		{`[[]]`, "400::"},
		{`[]`, "400::"},
		{``, "400::"},
		{`7`, "400::"},
		{`"x"`, "400::"},
		{`[{"channel":"/a",]`, "400::"},
		{`{"channel":"/a"`, "400::"},
		{strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000), "400::"},
		{`[{"channel":"/a","data":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}]`, "400::"},
		{"[" + strings.Repeat(`{"channel":"/a","data":1},`, 20) + `{"channel":"/a","data":1}]`, "400::"},
		{`[{"channel":"/a","data":1,"ext":{"x":"` + strings.Repeat("x", 5000) + `"}}]`, "400:/a:"},
	} {
		body := strings.ReplaceAll(c.body, "ID", id)
		f := w.one(body)
		if f["successful"] != false || !strings.HasPrefix(f.text("error"), c.want) || strings.Count(f.text("error"), ":") < 2 {
			t.Errorf("%.200s: %v, want %s", body, f, c.want)
		}
	}
	// What is good among them is done.
	w.subscribe(id, "/a")
	all := w.post(`[{"channel":"/a","id":"1","data":1},7,{"channel":"/a","id":2,"data":null},{"channel":"/meta/x","id":"3"}]`)
	if len(all) != 4 || !all[0].ok() || all[1].ok() || !all[2].ok() || all[2]["id"] != 2.0 || all[3].ok() {
		t.Errorf("a batch: %v", all)
	}
	if messages, _ := w.connect(id, soon); !same(data(messages), []any{1, nil}) {
		t.Errorf("delivered %v", messages)
	}
}

// A handshake's request does nothing else; all fields come back that ask for it.
func TestHandshake(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{MaxSessions: 3})
	f := w.one(`[{"channel":"/a","data":1},{"channel":"/meta/handshake","version":"1.0","minimumVersion":"0.9","supportedConnectionTypes":["x","websocket"],"ext":{"ack":true,"replay":true}}]`)
	if ext := f["ext"]; !f.ok() || !same(ext, fields{"ack": true, "replay": true}) || len(f.text("clientId")) < 22 {
		t.Errorf("%v", f)
	}
	if end := w.hub.End(); end.Seq != 0 {
		t.Errorf("what came along was published: %v", end)
	}
	w.handshake("")
	last := w.handshake("")
	if f := w.one(`[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}]`); f.ok() || !strings.HasPrefix(f.text("error"), "503:") || f.advice("interval") == nil {
		t.Errorf("too many: %v", f)
	}
	if f := w.one(`[{"channel":"/meta/disconnect","id":"d","clientId":"` + last + `"}]`); !f.ok() || f.text("id") != "d" {
		t.Errorf("disconnect: %v", f)
	}
	if f := w.one(`[{"channel":"/meta/disconnect","clientId":"` + last + `"}]`); f.ok() || f.advice("reconnect") != "handshake" {
		t.Errorf("again: %v", f)
	}
	w.handshake("")
}

// Subscribing while a connect is held is known to it; so is the opposite.
func TestSubscribeWhileHeld(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			parked := way != "not parked"
			w := newWorld(t, halley.Options{NoParking: !parked}, bayeux.Options{})
			id := w.handshake("")
			w.subscribe(id, "/gone")
			got := w.later(id, soon)
			w.held(1)
			if f := w.one(`[{"channel":"/meta/unsubscribe","clientId":"` + id + `","subscription":["/gone"]}]`); !f.ok() || !same(f["subscription"], []string{"/gone"}) {
				t.Errorf("unsubscribe: %v", f)
			}
			w.publish("gone", 0)
			w.publish("new", "before")
			w.subscribe(id, "/new")
			w.publish("gone", 1)
			w.publish("new", 2)
			replies := <-got
			messages := data(replies[:len(replies)-1])
			if len(messages) == 0 { // it had come to what is gone before it was told
				more, _ := w.connect(id, "")
				messages = data(more)
			}
			if !same(messages, []any{2}) {
				t.Errorf("delivered %v", messages)
			}
		})
	}
}

// later connects in the background.
func (w *world) later(id, more string) <-chan []fields {
	got := make(chan []fields, 1)
	go func() {
		replies, err := w.try(w.t.Context(), connectBody(id, more))
		if err != nil {
			replies = []fields{{"error": err.Error()}, {"error": err.Error()}}
		}
		got <- replies
	}()
	return got
}

// held waits until so many connects are held.
func (w *world) held(n int) {
	w.t.Helper()
	w.await("connects that are held", n, w.hub.Connections)
}

// noStreams waits until all streams are over.
func (w *world) noStreams() {
	w.t.Helper()
	w.await("streams", 0, func() int { return int(w.streams.Load()) })
}

// await waits until there are so many of something, which nothing tells of.
func (w *world) await(what string, want int, count func() int) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); count() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: %d, want %d", what, count(), want)
		}
	}
}

// A connect that is cut takes nothing along, whatever is published meanwhile.
func TestCutConnect(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			parked := way != "not parked"
			w := newWorld(t, halley.Options{NoParking: !parked}, bayeux.Options{})
			id := w.handshake("")
			w.subscribe(id, "/a")
			var want, got []any
			for i := range 50 {
				w.held(0)
				c, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(w.mount, "http://"), "/bayeux"))
				if err != nil {
					t.Fatal(err)
				}
				body := connectBody(id, fmt.Sprintf(`,"id":"%d"`, i))
				if _, err := fmt.Fprintf(c, "POST /bayeux HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
					t.Fatal(err)
				}
				w.held(1)
				if i%2 == 0 {
					_ = c.(*net.TCPConn).SetLinger(0) // a reset
				}
				_ = c.Close()
				if !parked {
					w.held(0) // what comes before that is noticed goes to nobody
				}
				w.publish("a", i)
				want = append(want, i)
				messages, _ := w.connect(id, fmt.Sprintf(`,"id":"after %d","advice":{"timeout":1000}`, i))
				got = append(got, data(messages)...)
				w.held(0)
			}
			if !same(got, want) {
				t.Errorf("delivered %v", got)
			}
		})
	}
}

// With the extension ack, what the client does not acknowledge comes again, and
// what it does never.
func TestAck(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake(`{"ack":true}`)
	w.subscribe(id, "/a")
	batch := func(f fields) int {
		ext, _ := f["ext"].(map[string]any)
		n, ok := ext["ack"].(float64)
		if !ok {
			t.Fatalf("no batch: %v", f)
		}
		return int(n)
	}
	ack := func(n int) string { return fmt.Sprintf(`,"ext":{"ack":%d},"advice":{"timeout":0}`, n) }
	_, f := w.connect(id, ack(0))
	n0 := batch(f)
	w.publish("a", 1)
	messages, f := w.connect(id, ack(n0))
	n1 := batch(f)
	if !same(data(messages), []any{1}) {
		t.Fatalf("%v", messages)
	}
	w.publish("a", 2)
	w.subscribe(id, "/b")
	w.publish("b", 3)
	messages, f = w.connect(id, ack(n0)) // it did not arrive
	n2 := batch(f)
	if !same(data(messages), []any{1, 2, 3}) || n2 == n1 {
		t.Fatalf("%v %v", messages, f)
	}
	messages, f = w.connect(id, ack(n1)) // nor did that
	n3 := batch(f)
	if !same(data(messages), []any{1, 2, 3}) || n3 == n2 {
		t.Fatalf("%v %v", messages, f)
	}
	messages, f = w.connect(id, ack(n3))
	if len(messages) != 0 {
		t.Fatalf("%v %v", messages, f)
	}
	w.publish("a", 4)
	if messages, _ = w.connect(id, ack(batch(f))); !same(data(messages), []any{4}) {
		t.Fatalf("%v", messages)
	}
}

const fayeHandshake = `[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling","callback-polling","in-process"]}]`

// Others say by what they send that a reply has not arrived.
func TestRepeatedConnect(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.one(fayeHandshake).text("clientId")
	w.subscribe(id, "/a")
	for range 20 { // by one connection, as a proxy has it for many clients
		w.publish("a", 1)
		messages, _ := w.connect(id, `,"id":"7"`)
		w.publish("a", 2)
		if again, _ := w.connect(id, `,"id":"7"`); !same(data(again), append(data(messages), 2)) {
			t.Errorf("the same connect again, as Faye sends it: %v after %v", again, messages)
		}
	}
	if messages, _ := w.connect(id, `,"id":"8","advice":{"timeout":10}`); len(messages) != 0 {
		t.Errorf("another: %v", messages)
	}
	id = w.handshake("")
	w.subscribe(id, "/a")
	w.publish("a", 1)
	w.publish("a", 2)
	if messages, _ := w.connect(id, `,"id":"7"`); !same(data(messages), []any{1, 2}) {
		t.Fatalf("%v", messages)
	}
	w.publish("a", 3) // by the same connection, as a proxy has it for many clients
	if got := w.post(connectBody(id, `,"id":"8"`+now), "Via: 1.1 proxy"); !same(data(got[:len(got)-1]), []any{1, 2, 3}) {
		t.Errorf("a connect to be answered at once, as CometD sends it after a failure: %v", got)
	}
	w.publish("a", 4)
	w.http.CloseIdleConnections()
	if messages, _ := w.connect(id, `,"id":"9"`+now); !same(data(messages), []any{1, 2, 3, 4}) {
		t.Errorf("another, after one more failure: %v", messages)
	}
	w.publish("a", 5)
	if messages, _ := w.connect(id, `,"id":"10"`); !same(data(messages), []any{5}) {
		t.Errorf("the next: %v", messages)
	}
	// One id for all is none.
	for _, open := range []bool{true, false} {
		id = w.handshake("")
		w.subscribe(id, "/a")
		w.connect(id, `,"id":"1"`+now)
		w.connect(id, `,"id":"1","advice":{"timeout":10}`)
		for i := range 10 {
			w.publish("a", i)
			if !open {
				w.http.CloseIdleConnections()
			}
			messages, _ := w.connect(id, `,"id":"1"`)
			if !same(data(messages), []any{i}) {
				t.Errorf("message %d by a client with one id: %v", i, messages)
			}
		}
	}
}

// A reply that is lost again and again, as a large one over a bad line, is made
// as often.
func TestLostOften(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a")
	w.publish("a", 1)
	w.connect(id, `,"id":"0"`)
	for i := range 50 {
		w.http.CloseIdleConnections()
		if messages, _ := w.connect(id, fmt.Sprintf(`,"id":"again %d"`, i)+now); !same(data(messages), []any{1}) {
			t.Fatalf("after %d: %v", i+1, messages)
		}
	}
}

// What comes together with other messages is answered at once without a failure
// before it, as Faye has it.
func TestConnectInCompany(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a")
	w.publish("a", 1)
	w.connect(id, `,"id":"1"`)
	w.http.CloseIdleConnections()
	got := w.post(`[{"channel":"/b","id":"2","data":1,"clientId":"` + id + `"},{"channel":"/meta/connect","id":"3","connectionType":"long-polling","clientId":"` + id + `","advice":{"timeout":0}}]`)
	if len(got) != 2 {
		t.Errorf("%v", got)
	}
}

// A client that only polls, each time by another connection, does not get the
// same for ever.
func TestPolling(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a")
	w.publish("a", 1)
	n := 0
	for i := range 50 {
		messages, _ := w.connect(id, fmt.Sprintf(`,"id":"%d"`, i)+now)
		n += len(messages)
		w.http.CloseIdleConnections()
	}
	if n < 1 || n > 11 {
		t.Errorf("%d times", n)
	}
	w.publish("a", 2)
	for i := range 5 { // it has a connection of its own now
		messages, _ := w.connect(id, fmt.Sprintf(`,"id":"x%d"`, i)+now)
		if n := len(messages); n != 1 && i == 0 || n != 0 && i > 0 {
			t.Errorf("poll %d: %v", i, messages)
		}
	}
}

// A second connect of a session takes the place of the first.
func TestTwoConnects(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a")
	first := w.later(id, `,"id":"1"`)
	w.held(1)
	second := w.later(id, `,"id":"2"`)
	if got := <-first; len(got) != 1 || got[0].ok() || got[0].advice("reconnect") != "retry" || got[0].advice("interval") != 1000.0 {
		t.Errorf("the first: %v", got)
	}
	w.held(1)
	w.publish("a", 1)
	if got := <-second; len(got) != 2 || !same(got[0]["data"], 1) || !got[1].ok() {
		t.Errorf("the second: %v", got)
	}
	third := w.later(id, "")
	w.held(1)
	w.one(`[{"channel":"/meta/disconnect","clientId":"` + id + `"}]`)
	if got := <-third; len(got) != 1 || !got[0].ok() || got[0].advice("reconnect") != "none" {
		t.Errorf("after a disconnect: %v", got)
	}
}

// Over a WebSocket the reply to a disconnect is the last: CometD closes the
// connection by it, and would leave it open if one to its connect came later.
func TestDisconnectIsLast(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	for range 50 {
		c := w.dial()
		id := w.handshake("")
		c.say(`[{"channel":"/meta/connect","clientId":"` + id + `","connectionType":"websocket"}]`)
		w.held(1)
		c.say(`[{"channel":"/meta/disconnect","clientId":"` + id + `"}]`)
		if r := c.hear(); r[0].text("channel") != "/meta/connect" || !r[0].ok() || r[0].advice("reconnect") != "none" {
			t.Fatalf("at first %v", r)
		}
		if r := c.hear(); r[0].text("channel") != "/meta/disconnect" || !r[0].ok() {
			t.Fatalf("at last %v", r)
		}
		_ = c.conn.Close()
	}
}

// The extension replay (Salesforce): new messages, all, or those after a
// position; a position that cannot be kept is told.
func TestReplay(t *testing.T) {
	w := newWorldOn(t, memory.Options{Retention: engine.Retention{Count: 5}}, halley.Options{}, bayeux.Options{})
	for i := range 10 {
		w.publish("a", map[string]any{"n": i})
	}
	position := func(f fields) int {
		ext, _ := f["ext"].(map[string]any)
		n, _ := ext["replay"].(float64)
		d, _ := f["data"].(map[string]any)
		event, _ := d["event"].(map[string]any)
		if event["replayId"] != n {
			t.Errorf("positions: %v", f)
		}
		return int(n)
	}
	sub := func(id, at string) fields {
		return w.one(`[{"channel":"/meta/subscribe","clientId":"` + id + `","subscription":"/a","ext":{"replay":{"/a":` + at + `}}}]`)
	}
	ns := func(messages []fields) (all []any) {
		for _, m := range messages {
			all = append(all, m["data"].(map[string]any)["n"])
		}
		return all
	}
	var last []fields
	for _, c := range []struct {
		at   string
		want []any
	}{{"-2", []any{5, 6, 7, 8, 9}}, {"-1", nil}, {"8", []any{8, 9}}, {"10", nil}, {`"` + w.hub.End().Epoch + `-9"`, []any{9}}} {
		id := w.handshake(`{"replay":true}`)
		if f := sub(id, c.at); !f.ok() {
			t.Fatalf("%s: %v", c.at, f)
		}
		messages, reply := w.connect(id, now)
		if !same(ns(messages), c.want) || reply["ext"] != nil {
			t.Errorf("from %s: %v %v, want %v", c.at, messages, reply, c.want)
		}
		for _, m := range messages {
			position(m)
		}
		if c.at == "-2" {
			last = messages
		}
	}
	if p := position(last[0]); p != 6 {
		t.Errorf("position %d", p)
	}
	id := w.handshake(`{"replay":true}`)
	for at, want := range map[string]string{"2": "too old", "11": "not of this log", `"zz-1"`: "not of this log", "1.5": "not valid", "-3": "not valid", "{}": "not valid"} {
		if f := sub(id, at); f.ok() || !strings.HasPrefix(f.text("error"), "400:/a:") || !strings.Contains(f.text("error"), want) {
			t.Errorf("from %s: %v", at, f)
		}
	}
	// Another channel's messages do not come again with a replay.
	w.publish("b", map[string]any{"n": "b"})
	w.subscribe(id, "/b")
	w.publish("b", map[string]any{"n": "b2"})
	if messages, _ := w.connect(id, now); !same(ns(messages), []any{"b2"}) {
		t.Errorf("%v", messages)
	}
	if f := sub(id, "9"); !f.ok() {
		t.Fatalf("%v", f)
	}
	w.publish("b", map[string]any{"n": "b3"})
	if messages, _ := w.connect(id, soon); !same(ns(messages), []any{9, "b3"}) {
		t.Errorf("%v", messages)
	}
}

// Callback-polling escapes what it wraps, takes no odd callbacks, and holds.
func TestCallbackPolling(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	get := func(query string) (int, http.Header, string) {
		resp, err := w.http.Get(w.mount + "?" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header, string(b)
	}
	status, header, body := get("jsonp=a.b&message=" + url.QueryEscape(`[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["callback-polling"]}]`))
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/javascript") || header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %v", status, header)
	}
	inner, ok := strings.CutPrefix(body, "/**/a.b(")
	var replies []fields
	if err := json.Unmarshal([]byte(strings.TrimSuffix(inner, ");")), &replies); !ok || err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	id := replies[0].text("clientId")
	w.subscribe(id, "/a")
	time.AfterFunc(50*time.Millisecond, func() { w.publish("a", "</script>\u2028") })
	_, _, body = get("message=" + url.QueryEscape(`[{"channel":"/meta/connect","connectionType":"callback-polling","clientId":"`+id+`"}]`))
	if !strings.HasPrefix(body, "/**/jsonpcallback([{") || strings.Contains(body, "\u2028") || !strings.Contains(body, `"/meta/connect"`) {
		t.Errorf("%s", body)
	}
	for _, q := range []string{"jsonp=a-b&message=[]", "jsonp=" + url.QueryEscape("alert(1)//") + "&message=[]", "", "message=", "jsonp=" + strings.Repeat("a", 65) + "&message=[]"} {
		if status, _, body := get(q); status != 400 {
			t.Errorf("%s: %d %s", q, status, body)
		}
	}
}

// Forms, several parameters, and bodies that call themselves something else.
func TestForms(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{MaxBody: 2000})
	one, two := url.QueryEscape(`{"channel":"/a","data":1}`), url.QueryEscape(` [{"channel":"/a","data":2},{"channel":"/a","data":3}] `)
	const form = "Content-Type: application/x-www-form-urlencoded"
	for body, want := range map[string]int{
		"message=" + one: 1, "message=" + two: 2, "message=" + one + "&message=" + two: 3, "message=" + two + "&message=" + one + "&message=" + two: 5, "message=[]&message=" + one: 1,
	} {
		if got := w.post(body, form); len(got) != want || !got[0].ok() {
			t.Errorf("%s: %v", body, got)
		}
		if got := w.post(body, "Content-Type: text/plain"); len(got) != want {
			t.Errorf("%s as text: %v", body, got)
		}
	}
	for _, c := range []struct{ body, header string }{{`{"channel":"/a","data":1}`, form}, {`[{"channel":"/a","data":1}]`, "Content-Type: text/json"}} {
		if got := w.post(c.body, c.header); len(got) != 1 || !got[0].ok() {
			t.Errorf("%s: %v", c.body, got)
		}
	}
	for _, body := range []string{"message=" + url.QueryEscape("[1") + "&message=" + one, "x=1", "message=%zz"} {
		if got := w.one(body, form); got.ok() || !strings.HasPrefix(got.text("error"), "400::") {
			t.Errorf("%s: %v", body, got)
		}
	}
	if got := w.one(`[{"channel":"/a","data":"` + strings.Repeat("x", 2000) + `"}]`); !strings.HasPrefix(got.text("error"), "413::") {
		t.Errorf("a large one: %v", got)
	}
	if got := w.one(`[{"channel":"/a","data":1}]`, "Content-Encoding: gzip"); !strings.HasPrefix(got.text("error"), "415::") {
		t.Errorf("an encoded one: %v", got)
	}
}

// Sessions end without connects, but not while one is held.
func TestExpiry(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{MaxInterval: 200 * time.Millisecond, IdleTimeout: 700 * time.Millisecond})
	held, left := w.handshake(""), w.handshake("")
	got := w.later(held, `,"advice":{"timeout":600}`)
	w.held(1)
	end := time.Now().Add(10 * time.Second)
	for w.handler.Session(left) != nil {
		if time.Now().After(end) {
			t.Fatal("a session does not end")
		}
		time.Sleep(time.Millisecond)
	}
	if w.handler.Session(held) == nil {
		t.Error("the session of a connect that is held has ended")
	}
	if r := <-got; !r[0].ok() {
		t.Errorf("%v", r)
	}
	if f := w.one(connectBody(left, "")); !strings.HasPrefix(f.text("error"), "402:") || f.advice("reconnect") != "handshake" {
		t.Errorf("%v", f)
	}
	// One that does nothing but connect is ended too.
	for {
		_, f := w.connect(held, `,"advice":{"timeout":50}`)
		if !f.ok() {
			if !strings.Contains(f.text("error"), "idle") || f.advice("reconnect") != "none" {
				t.Errorf("%v", f)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("an idle session does not end")
		}
	}
}

// Sessions of one browser share the few connections that it has.
func TestMultipleClients(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{MultiSessionInterval: 300 * time.Millisecond})
	const cookie = "Cookie: BAYEUX_BROWSER=one"
	first, second, other := w.handshake("", cookie), w.handshake("", cookie), w.handshake("", "Cookie: BAYEUX_BROWSER=two")
	got := w.later(first, "")
	w.held(1)
	if _, f := w.connect(second, ""); !f.ok() || f.advice("multiple-clients") != true || f.advice("interval") != 300.0 {
		t.Errorf("the second: %v", f)
	}
	w.later(other, "")
	w.held(2)
	w.subscribe(first, "/a")
	w.publish("a", 1)
	if r := <-got; len(r) != 2 || r[1].advice("multiple-clients") != nil {
		t.Errorf("the first: %v", r)
	}
	w.held(1)
	w.later(second, "")
	w.held(2)
}

// Service channels reach handlers alone.
func TestServices(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{MaxQueue: 3})
	var full error
	w.handler.HandleService("/service/echo", func(c *bayeux.Call) {
		if err := c.Reply(map[string]any{"echo": json.RawMessage(c.Data)}); err != nil {
			full = err
		}
	})
	w.handler.HandleService("/service/all/**", func(c *bayeux.Call) { _ = c.Reply(c.Channel) })
	id := w.one(fayeHandshake).text("clientId")
	f := w.one(`[{"channel":"/meta/subscribe","clientId":"` + id + `","subscription":"/service/echo"}]`)
	if !f.ok() {
		t.Errorf("subscribe: %v", f)
	}
	got := w.later(id, "")
	w.held(1)
	if f := w.one(`[{"channel":"/service/echo","id":"e","clientId":"` + id + `","data":"ü"}]`); !f.ok() {
		t.Errorf("call: %v", f)
	}
	r := <-got
	if !same(r[0], fields{"channel": "/service/echo", "id": "e", "data": fields{"echo": "ü"}}) {
		t.Errorf("reply: %v", r)
	}
	for range 4 {
		w.one(`[{"channel":"/service/echo","clientId":"` + id + `","data":1}]`)
	}
	if full == nil {
		t.Error("the queue has no bound")
	}
	// They come again until they have arrived, and count for as long.
	for range 2 {
		w.http.CloseIdleConnections()
		if messages, _ := w.connect(id, `,"id":"x"`); len(messages) != 2 {
			t.Errorf("the queue: %v", messages)
		}
	}
	if messages, _ := w.connect(id, `,"id":"y","advice":{"timeout":100}`); len(messages) != 0 {
		t.Errorf("after that: %v", messages)
	}
	// Without a handshake, replies come with the answer.
	if all := w.post(`[{"channel":"/service/all/a/b","data":1}]`); len(all) != 2 || all[1]["data"] != "/service/all/a/b" {
		t.Errorf("%v", all)
	}
	if end := w.hub.End(); end.Seq != 0 {
		t.Errorf("they are in the log: %v", end)
	}
}

// Binary data of the extension binary are bytes for others, and the other way
// round.
func TestBinary(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/b")
	// The test case of ZeroMQ RFC 32.
	w.one(`[{"channel":"/b","clientId":"` + id + `","data":{"data":"HelloWorld","last":true,"meta":{"name":"x"}},"ext":{"binary":{}}}]`)
	page, err := w.hub.Read(t.Context(), halley.Query{Channels: []string{"b"}, Limit: 1})
	if want := "\x86\x4f\xd2\x6f\xb5\x59\xf7\x5b"; err != nil || string(page.Messages[0].Data) != want {
		t.Errorf("in the log: %v %v", page, err)
	}
	for _, b := range []string{"", "\x00", "ab", "abc", "abcd", "\xff\xff\xff\xff\xff"} {
		if _, err := w.hub.Publish(t.Context(), halley.Message{Channel: "b", ContentType: "image/png", Data: []byte(b)}); err != nil {
			t.Fatal(err)
		}
	}
	messages, _ := w.connect(id, soon)
	if len(messages) != 7 || !same(messages[0]["data"], fields{"data": "HelloWorld", "last": true, "meta": fields{"name": "x"}}) || messages[0]["ext"] == nil {
		t.Fatalf("%v", messages)
	}
	for i, want := range []string{"", "00", "vpx", "vp#s", "vp#sc"} { // by CometD's own encoder, but for the second to the last
		got := messages[i+1]["data"].(map[string]any)["data"].(string)
		if i == 0 && got != want || len(got) != len(want) && i != 0 {
			t.Errorf("%d bytes are %q", i, got)
		}
	}
}

// The events of a WebSocket: several sessions, what is held, and what is lost
// with it.
func TestWebSocket(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{MaxBody: 10_000})
	c := w.dial()
	c.say(`[{"channel":"/meta/handshake","id":1,"version":"1.0","supportedConnectionTypes":["websocket"]}]`)
	id := c.hear()[0].text("clientId")
	c.say(`[{"channel":"/meta/connect","id":2,"clientId":"` + id + `","connectionType":"websocket","advice":{"timeout":0}}]`)
	if r := c.hear(); !r[0].ok() || r[0]["id"] != 2.0 {
		t.Fatalf("%v", r)
	}
	c.say(`[{"channel":"/meta/subscribe","id":3,"clientId":"` + id + `","subscription":"/a"}]`)
	c.hear()
	c.say(`[{"channel":"/meta/connect","id":4,"clientId":"` + id + `","connectionType":"websocket"}]`)
	w.held(1)
	w.publish("a", 1)
	if r := c.hear(); len(r) != 2 || !same(r[0]["data"], 1) {
		t.Fatalf("%v", r)
	}
	c.say(`[{"channel":"/meta/connect","id":5,"clientId":"` + id + `","connectionType":"websocket"}]`)
	w.held(1)
	w.publish("a", 2)
	if r := c.hear(); len(r) != 2 {
		t.Fatalf("%v", r)
	}
	_ = c.conn.Close() // before another connect
	for w.handler.Session(id) == nil || !lost(w, id) {
		time.Sleep(time.Millisecond)
	}
	w.publish("a", 3)
	if messages, _ := w.connect(id, ""); !same(data(messages), []any{2, 3}) && !same(data(messages), []any{3}) {
		t.Errorf("%v", messages)
	}
	d := w.dial()
	d.say(`nonsense`)
	if r := d.hear(); r[0].ok() || !strings.HasPrefix(r[0].text("error"), "400::") {
		t.Errorf("%v", r)
	}
	d.say(`[{"channel":"/a","data":9}]`)
	if r := d.hear(); !r[0].ok() {
		t.Errorf("%v", r)
	}
	d.say(`[{"channel":"/a","data":"` + strings.Repeat("x", 20_000) + `"}]`)
	if _, err := wsutil.ReadServerText(d.conn); err == nil {
		t.Error("a large message was taken")
	}
}

// lost tells whether the socket of a session is gone: its server has noticed.
func lost(w *world, _ string) bool { return w.hub.Connections() == 0 }

type socket struct {
	t    *testing.T
	conn net.Conn
	from io.ReadWriter
}

func (w *world) dial(headers ...string) *socket {
	w.t.Helper()
	h := http.Header{}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		h.Add(name, value)
	}
	c, early, _, err := ws.Dialer{Header: ws.HandshakeHeaderHTTP(h)}.Dial(w.t.Context(), strings.Replace(w.mount, "http", "ws", 1))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	s := &socket{w.t, c, c}
	if early != nil {
		s.from = struct {
			io.Reader
			io.Writer
		}{io.MultiReader(early, c), c}
	}
	return s
}

func (s *socket) say(text string) {
	s.t.Helper()
	if err := wsutil.WriteClientText(s.conn, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *socket) hear() (replies []fields) {
	s.t.Helper()
	_ = s.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := wsutil.ReadServerText(s.from)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &replies); err != nil {
		s.t.Fatalf("%s: %v", b, err)
	}
	return replies
}

// Faye's EventSource has what is delivered; a connect by XHR has nothing.
func TestEventSource(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a")
	w.publish("a", 0)
	r, err := http.NewRequestWithContext(t.Context(), "GET", w.mount+"/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := w.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() (messages []fields) {
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(text), &messages); err != nil {
					t.Fatal(err)
				}
				return messages
			}
		}
		t.Fatal("the stream has ended")
		return nil
	}
	if got := next(); !same(data(got), []any{0}) {
		t.Errorf("%v", got)
	}
	w.held(1)
	f := w.one(`[{"channel":"/meta/connect","clientId":"` + id + `","connectionType":"eventsource"}]`)
	if !f.ok() || f.advice("interval") != 30000.0 || f.advice("timeout") != 0.0 {
		t.Errorf("%v", f)
	}
	// A connect that does not wait leaves the stream as it is.
	if r := w.post(`[{"channel":"/meta/connect","clientId":"` + id + `","connectionType":"long-polling","advice":{"timeout":0}},{"channel":"/meta/subscribe","clientId":"` + id + `","subscription":"/b"}]`); len(r) != 2 || !r[0].ok() || !r[1].ok() {
		t.Errorf("%v", r)
	}
	w.publish("b", 1)
	w.publish("a", 2)
	var got []any
	for len(got) < 2 {
		got = append(got, data(next())...)
	}
	if !same(got, []any{1, 2}) {
		t.Errorf("%v", got)
	}
	r.URL.Path = "/bayeux/nobody"
	if resp, err := w.http.Do(r); err != nil || resp.StatusCode != 404 {
		t.Errorf("nobody's: %v %v", resp, err)
	}
}

// A stream that was cut goes on after what its client had at last, wherever the
// server believed it to be, and a subscription does so from its own start.
func TestEventSourceCut(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a")
	w.publish("b", "before the subscription")
	var next func() (id string, values []any)
	// open begins a stream, after the one before was left.
	leave := func() {}
	open := func(last string) {
		t.Helper()
		leave()
		var ctx context.Context
		ctx, leave = context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, "GET", w.mount+"/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		resp, err := w.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		lines := bufio.NewScanner(resp.Body)
		next = func() (id string, values []any) {
			for lines.Scan() {
				if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
					id = text
				}
				if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
					var messages []fields
					if err := json.Unmarshal([]byte(text), &messages); err != nil {
						t.Fatal(err)
					}
					return id, data(messages)
				}
			}
			t.Fatal("the stream has ended")
			return "", nil
		}
	}
	defer func() { leave() }()
	expect := func(want ...any) (last string) {
		t.Helper()
		var got []any
		for len(got) < len(want) {
			id, values := next()
			last, got = id, append(got, values...)
		}
		if !same(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
		return last
	}
	// What is read here is what has been sent. Nothing of the first stream
	// arrives.
	open("")
	w.publish("a", 1)
	expect(1)
	w.publish("a", 2)
	expect(2)
	open("")
	expect(1, 2)
	// Of that which follows, only a part does.
	w.subscribe(id, "/b")
	w.publish("a", 3)
	had := expect(3)
	w.publish("b", 4)
	expect(4)
	w.subscribe(id, "/c")
	w.publish("c", 5)
	w.publish("a", 6)
	expect(5, 6)
	open(had)
	had = expect(4, 5, 6)
	open(had)
	w.publish("a", 7)
	had = expect(7)
	// Nor can anybody have what was before a subscription.
	open(had[:strings.LastIndexByte(had, '-')] + "-0,0")
	expect(1, 2, 3, 4, 5, 6, 7)
	open("nonsense")
	w.publish("a", 8)
	expect(8)
	leave()
	w.noStreams()
	// Long polling goes on where the stream was, and a stream where that was.
	w.publish("a", 9)
	if messages, _ := w.connect(id, ""); len(messages) == 0 || messages[len(messages)-1]["data"] != 9.0 {
		t.Errorf("%v", messages)
	}
	w.connect(id, `,"id":"x","advice":{"timeout":10}`)
	open("")
	w.publish("a", 10)
	expect(10)
}

// A slowStream is the response of a stream, of which each event waits until the
// test takes it.
type slowStream struct {
	header http.Header
	events chan string
}

func newSlowStream() *slowStream { return &slowStream{http.Header{}, make(chan string)} }

func (s *slowStream) Header() http.Header               { return s.header }
func (s *slowStream) WriteHeader(int)                   {}
func (s *slowStream) Flush()                            {}
func (s *slowStream) SetReadDeadline(time.Time) error   { return nil }
func (s *slowStream) SetWriteDeadline(time.Time) error  { return nil }
func (s *slowStream) Write(b []byte) (n int, err error) { s.events <- string(b); return len(b), nil }

// A stream that its client has left, and that notices late, does not take the
// session from what has come in its place.
func TestEventSourceLate(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a")
	open := func() (s *slowStream, ended chan struct{}) {
		s, ended = newSlowStream(), make(chan struct{})
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/bayeux/"+id, nil)
		r.Header.Set("Accept", "text/event-stream")
		go func() {
			defer close(ended)
			w.handler.ServeHTTP(s, r)
		}()
		if first := <-s.events; !strings.HasPrefix(first, "retry:") {
			t.Fatalf("a stream begins with %q", first)
		}
		return s, ended
	}
	left, ended := open()
	w.held(1)
	w.publish("a", 1)
	w.held(0) // its answer is there, and on its way
	next, over := open()
	if event := <-next.events; !strings.Contains(event, `"data":1`) {
		t.Errorf("the second stream has %q", event)
	}
	w.held(1)
	if event := <-left.events; !strings.Contains(event, `"data":1`) {
		t.Errorf("the first stream has %q", event)
	}
	<-ended
	w.publish("a", 2)
	select {
	case event := <-next.events:
		if !strings.Contains(event, `"data":2`) {
			t.Errorf("the second stream has %q", event)
		}
	case <-over:
		t.Error("the second stream was ended by the first")
	}
	// Nor from a connect.
	w.held(1)
	w.publish("a", 3)
	w.held(0)
	got := w.later(id, "")
	w.held(1)
	if event := <-next.events; !strings.Contains(event, `"data":3`) {
		t.Errorf("the second stream has %q", event)
	}
	<-over
	w.publish("a", 4)
	if messages := <-got; messages[0]["data"] != 4.0 {
		t.Errorf("the connect has %v", messages)
	}
}

// Rights are those of the native protocol, and a client ID is one user's.
func TestRights(t *testing.T) {
	w := newWorld(t, halley.Options{Authorizer: halley.AuthorizerFunc(func(_ context.Context, c halley.Credentials) (*halley.Grant, error) {
		switch {
		case c.Token == "":
			return &halley.Grant{Subscribe: []string{"open/**"}}, nil
		case strings.HasPrefix(c.Token, "bad"):
			return nil, fmt.Errorf("%w: a bad token", halley.ErrUnauthorized)
		}
		return &halley.Grant{User: c.Token, Issued: time.Now().Add(-time.Hour), Subscribe: []string{c.Token + "/**"}, Publish: []string{c.Token + "/**"}}, nil
	})}, bayeux.Options{})
	const shake = `[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]%s}]`
	if f := w.one(fmt.Sprintf(shake, `,"ext":{"token":"bad"}`)); f.ok() || !strings.HasPrefix(f.text("error"), "401:") || f.advice("reconnect") != "none" {
		t.Errorf("a bad token: %v", f)
	}
	if f := w.one(fmt.Sprintf(shake, ""), "Authorization: Bearer bad"); f.ok() || !strings.HasPrefix(f.text("error"), "401:") {
		t.Errorf("a bad header: %v", f)
	}
	byExt, byHeader := w.handshake(`{"authentication":{"token":"ann"}}`), w.handshake("", "Authorization: Bearer ann")
	subscribe := func(id, channel string, headers ...string) fields {
		return w.one(`[{"channel":"/meta/subscribe","clientId":"`+id+`","subscription":"`+channel+`"}]`, headers...)
	}
	for _, c := range []struct {
		what string
		f    fields
		want string
	}{
		{"by ext", subscribe(byExt, "/ann/x"), ""},
		{"by ext, another's channel", subscribe(byExt, "/bob/x"), "403:/bob/x:"},
		{"by ext, everything", subscribe(byExt, "/**"), "403:/**:"},
		{"by ext, with another's token", subscribe(byExt, "/ann/x", "Authorization: Bearer bob"), "403:"},
		{"by header", subscribe(byHeader, "/ann/**", "Authorization: Bearer ann"), ""},
		{"by header, without a token", subscribe(byHeader, "/ann/x"), "403:"},
		{"by header, with another's token", subscribe(byHeader, "/bob/x", "Authorization: Bearer bob"), "403:"},
		{"by header, with a bad token", subscribe(byHeader, "/ann/x", "Authorization: Bearer bad"), "401:"},
		{"nobody", subscribe(w.handshake(""), "/ann/x"), "403:"},
		{"nobody in the open", subscribe(w.handshake(""), "/open/x"), ""},
		{"publishing", w.one(`[{"channel":"/ann/x","clientId":"` + byExt + `","data":1}]`), ""},
		{"publishing to another's", w.one(`[{"channel":"/bob/x","clientId":"` + byExt + `","data":1}]`), "403:/bob/x:"},
		{"publishing without a handshake", w.one(`[{"channel":"/ann/x","data":1}]`), "403:/ann/x:"},
		{"publishing with a token alone", w.one(`[{"channel":"/ann/x","data":1}]`, "Authorization: Bearer ann"), ""},
	} {
		if e := c.f.text("error"); c.f.ok() != (c.want == "") || !strings.HasPrefix(e, c.want) {
			t.Errorf("%s: %v, want %q", c.what, c.f, c.want)
		}
	}
	got := w.later(byExt, `,"id":"1"`)
	if r := <-got; len(r) != 3 {
		t.Errorf("delivered %v", r)
	}
	got = w.later(byExt, `,"id":"2"`)
	w.held(1)
	if _, err := w.hub.Revoke(halley.Revocation{User: "ann"}); err != nil {
		t.Errorf("revoke: %v", err)
	}
	if r := <-got; len(r) != 1 || r[0].ok() || !strings.HasPrefix(r[0].text("error"), "401:") || r[0].advice("reconnect") != "handshake" {
		t.Errorf("after it: %v", r)
	}
	if f := w.one(`[{"channel":"/ann/x","clientId":"` + byHeader + `","data":1}]`); f.ok() {
		t.Errorf("publishing after it: %v", f)
	}
}

// Messages that retention took are told.
func TestGap(t *testing.T) {
	w := newWorldOn(t, memory.Options{Retention: engine.Retention{Count: 3}}, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a")
	for i := range 10 {
		w.publish("a", i)
	}
	messages, f := w.connect(id, now)
	if !same(data(messages), []any{7, 8, 9}) || !same(f["ext"], fields{"gap": true}) {
		t.Errorf("%v %v", messages, f)
	}
}

// Pages of strangers get nowhere, and those of others can read.
func TestOrigins(t *testing.T) {
	w := newWorld(t, halley.Options{Origins: []string{"https://app.example"}}, bayeux.Options{})
	do := func(method, origin string) *http.Response {
		r, err := http.NewRequest(method, w.mount, strings.NewReader(`[{"channel":"/a","data":1}]`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", origin)
		resp, err := w.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp
	}
	if r := do("POST", "https://evil.example"); r.StatusCode != 403 || r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("a stranger: %s", r.Status)
	}
	if r := do("POST", "https://app.example"); r.StatusCode != 200 || r.Header.Get("Access-Control-Allow-Origin") != "https://app.example" || r.Header.Get("Access-Control-Allow-Credentials") != "true" {
		t.Errorf("a page: %s %v", r.Status, r.Header)
	}
	// What Front reads is answered alike.
	id := w.handshake("")
	for i := range 3 {
		r, err := http.NewRequest("POST", w.mount, strings.NewReader(connectBody(id, now)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "https://app.example")
		resp, err := w.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if h := resp.Header; h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("connect %d: %v", i, h)
		}
	}
	if r := do("OPTIONS", "https://app.example"); r.StatusCode != 204 || !strings.Contains(r.Header.Get("Access-Control-Allow-Headers"), "Pragma") || r.Header.Get("Access-Control-Allow-Credentials") != "true" {
		t.Errorf("a preflight: %s %v", r.Status, r.Header)
	}
	if r := do("PUT", "https://app.example"); r.StatusCode != 405 {
		t.Errorf("another method: %s", r.Status)
	}
	if end := w.hub.End(); end.Seq != 1 {
		t.Errorf("a stranger's message was stored: %v", end)
	}
}

// The extension timesync.
func TestTimesync(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{Timestamp: true})
	tc := time.Now().UnixMilli() - 5000
	f := w.one(fmt.Sprintf(`[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"],"ext":{"timesync":{"tc":%d,"l":0,"o":0}}}]`, tc))
	ext, _ := f["ext"].(map[string]any)
	sync, _ := ext["timesync"].(map[string]any)
	if ts, _ := sync["ts"].(float64); sync["tc"] != float64(tc) || ts < float64(tc)+4000 || sync["p"] == nil || sync["a"] == nil {
		t.Errorf("%v", f)
	}
	if _, err := http.ParseTime(f.text("timestamp")); err != nil {
		t.Errorf("%v: %v", f, err)
	}
}
