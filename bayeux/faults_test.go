package bayeux_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/bayeux"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
)

// tokens is an Authorizer who wants a token: the first three letters of it are
// the user, and what ends with -weak may read little.
func tokens(expires time.Time) halley.AuthorizerFunc {
	return func(_ context.Context, c halley.Credentials) (*halley.Grant, error) {
		if c.Token == "" {
			return nil, fmt.Errorf("%w: no token", halley.ErrUnauthorized)
		}
		g := &halley.Grant{
			ID: c.Token, User: c.Token[:3], Issued: time.Now().Add(-time.Hour), Expires: expires,
			Subscribe: []string{"**"}, Publish: []string{"**"},
		}
		if strings.HasSuffix(c.Token, "-weak") {
			g.Subscribe = []string{"public/**"}
		}
		return g, nil
	}
}

// A token that a message brings in ext is for the server alone.
func TestTokensStay(t *testing.T) {
	w := newWorld(t, halley.Options{Authorizer: tokens(time.Time{})}, bayeux.Options{})
	const auth = "Authorization: Bearer bob"
	id := w.handshake("", auth)
	w.one(`[{"channel":"/meta/subscribe","clientId":"`+id+`","subscription":"/a"}]`, auth)
	for _, ext := range []string{`{"authentication":{"token":"ann-secret"}}`, `{"token":"ann-secret"}`} {
		if f := w.one(`[{"channel":"/a","data":1,"ext":` + ext + `}]`); !f.ok() {
			t.Fatal(f)
		}
	}
	for _, m := range w.post(connectBody(id, now), auth) {
		if strings.Contains(fmt.Sprint(m), "ann-secret") {
			t.Errorf("bob gets ann's token: %v", m)
		}
	}
}

// Where a token is needed, a session stands for that of its handshake.
func TestTokenByHandshake(t *testing.T) {
	w := newWorld(t, halley.Options{Authorizer: tokens(time.Time{})}, bayeux.Options{})
	id := w.handshake(`{"authentication":{"token":"ann"}}`)
	if _, f := w.connect(id, now); !f.ok() {
		t.Errorf("connect of a session with ext.authentication: %v", f)
	}
}

// Nor is a service called for a token that was revoked.
func TestServicesOfRevoked(t *testing.T) {
	w := newWorld(t, halley.Options{Authorizer: halley.AuthorizerFunc(func(_ context.Context, c halley.Credentials) (*halley.Grant, error) {
		if c.Token == "" {
			return &halley.Grant{}, nil
		}
		return &halley.Grant{User: c.Token, Issued: time.Now().Add(-time.Hour), Subscribe: []string{"**"}}, nil
	})}, bayeux.Options{})
	calls := 0
	w.handler.HandleService("/service/pay", func(c *bayeux.Call) { calls++ })
	id := w.handshake(`{"token":"ann"}`)
	if _, err := w.hub.Revoke(halley.Revocation{User: "ann"}); err != nil {
		t.Fatal(err)
	}
	f := w.one(`[{"channel":"/service/pay","clientId":"` + id + `","data":1}]`)
	if calls != 0 || f.ok() {
		t.Errorf("called: %v", f)
	}
}

// A session has no more rights than the token that it goes on with.
func TestWeakerToken(t *testing.T) {
	w := newWorld(t, halley.Options{Authorizer: tokens(time.Time{})}, bayeux.Options{})
	id := w.handshake("", "Authorization: Bearer ann-strong")
	if f := w.one(`[{"channel":"/meta/subscribe","clientId":"`+id+`","subscription":"/secret/x"}]`, "Authorization: Bearer ann-strong"); !f.ok() {
		t.Fatal(f)
	}
	if _, err := w.hub.Revoke(halley.Revocation{ID: "ann-strong"}); err != nil {
		t.Fatal(err)
	}
	if f := w.one(`[{"channel":"/meta/subscribe","clientId":"`+id+`","subscription":"/secret/x"}]`, "Authorization: Bearer ann-weak"); f.ok() {
		t.Fatal(f)
	}
	w.publish("secret/x", "secret")
	r := w.post(connectBody(id, soon), "Authorization: Bearer ann-weak")
	if len(r) != 1 {
		t.Errorf("a token without the right got %v", r)
	}
}

// A WebSocket whose token was revoked is of no use, and its client is told to
// stay away: it would handshake without end.
func TestRevokedSocket(t *testing.T) {
	w := newWorld(t, halley.Options{Authorizer: tokens(time.Time{})}, bayeux.Options{})
	calls := make(chan bool, 1)
	w.handler.HandleService("/service/pay", func(c *bayeux.Call) { calls <- true })
	c := w.dial("Authorization: Bearer ann")
	c.say(`[{"channel":"/meta/handshake","id":1,"version":"1.0","supportedConnectionTypes":["websocket"]}]`)
	id := c.hear()[0].text("clientId")
	if _, err := w.hub.Revoke(halley.Revocation{User: "ann"}); err != nil {
		t.Fatal(err)
	}
	c.say(`[{"channel":"/service/pay","id":3,"clientId":"` + id + `","data":1}]`)
	if r := c.hear(); len(calls) != 0 || r[0].ok() {
		t.Errorf("a service was called by who was revoked: %v", r)
	}
	c.say(`[{"channel":"/meta/handshake","id":1,"version":"1.0","supportedConnectionTypes":["websocket"]}]`)
	if r := c.hear()[0]; r.ok() || !strings.HasPrefix(r.text("error"), "401:") || r.advice("reconnect") != "none" {
		t.Errorf("a handshake: %v", r)
	}
}

// What is published after a token has run out is not for its session.
func TestExpiredSession(t *testing.T) {
	end := time.Now().Add(1500 * time.Millisecond)
	f := tokens(end)
	w := newWorld(t, halley.Options{Authorizer: halley.AuthorizerFunc(func(ctx context.Context, c halley.Credentials) (*halley.Grant, error) {
		if c.Token == "" {
			return &halley.Grant{}, nil
		}
		return f(ctx, c)
	})}, bayeux.Options{})
	var ids []string
	for range 50 {
		id := w.handshake(`{"token":"ann"}`)
		w.subscribe(id, "/a")
		ids = append(ids, id)
	}
	time.Sleep(time.Until(end) + 200*time.Millisecond)
	w.publish("a", "late")
	got := 0
	for _, id := range ids {
		if messages, _ := w.connect(id, soon); len(messages) > 0 {
			got++
		}
	}
	if got > 0 {
		t.Errorf("%d of %d sessions got a message that was published after their token had run out", got, len(ids))
	}
}

// At a limit of one a connect takes the place of the one before.
func TestReplaceAtLimit(t *testing.T) {
	w := newWorld(t, halley.Options{Authorizer: tokens(time.Time{}), MaxConnectionsPerUser: 1}, bayeux.Options{})
	const auth = "Authorization: Bearer ann"
	id := w.handshake("", auth)
	go func() { _, _ = w.try(context.Background(), connectBody(id, `,"id":"1"`), auth) }()
	w.held(1)
	if r := w.post(connectBody(id, `,"id":"2","advice":{"timeout":200}`), auth); !r[len(r)-1].ok() {
		t.Errorf("%v", r)
	}
}

// A replay of more than a page leaves other channels where they are.
func TestLongReplay(t *testing.T) {
	w := newWorldOn(t, memory.Options{Retention: engine.Retention{Count: 100000}}, halley.Options{}, bayeux.Options{})
	id := w.handshake(`{"replay":true}`)
	w.subscribe(id, "/a")
	for i := range 1500 {
		w.publish("b", map[string]any{"n": i})
	}
	for i := range 20 {
		w.publish("a", map[string]any{"a": i})
	}
	for i := range 600 {
		w.publish("b", map[string]any{"n": 1500 + i})
	}
	n := 0
	seen := map[string]int{}
	take := func(i int) {
		messages, _ := w.connect(id, fmt.Sprintf(`,"id":"%d","advice":{"timeout":100}`, i))
		for _, m := range messages {
			b, _ := json.Marshal(m["channel"])
			d, _ := json.Marshal(m["data"])
			seen[string(b)+string(d)]++
			n++
		}
	}
	take(1)
	if n != 20 {
		t.Fatalf("%d", n)
	}
	f := w.one(`[{"channel":"/meta/subscribe","clientId":"` + id + `","subscription":"/b","ext":{"replay":{"/b":-2}}}]`)
	if !f.ok() {
		t.Fatal(f)
	}
	for i := range 6 {
		take(2 + i)
	}
	dup := 0
	for k, c := range seen {
		if c > 1 {
			dup++
			if dup < 4 {
				t.Errorf("%s delivered %d times", k, c)
			}
		}
	}
	if len(seen) != 2120 {
		t.Errorf("%d different messages", len(seen))
	}
}

// A gap is told beside a replay of all of another channel.
func TestGapBesideReplay(t *testing.T) {
	for _, replay := range []bool{false, true} {
		w := newWorldOn(t, memory.Options{Retention: engine.Retention{Count: 3}}, halley.Options{}, bayeux.Options{})
		id := w.handshake(`{"replay":true}`)
		w.subscribe(id, "/a")
		w.publish("b", 0)
		for i := range 10 {
			w.publish("a", i)
		}
		if replay {
			w.one(`[{"channel":"/meta/subscribe","clientId":"` + id + `","subscription":"/b","ext":{"replay":{"/b":-2}}}]`)
		}
		messages, f := w.connect(id, now)
		if !same(f["ext"], fields{"gap": true}) {
			t.Errorf("replay of /b %v: /a lost 7 messages, and nothing is said: %v %v", replay, data(messages), f)
		}
	}
}

// A reply with nothing but a gap is made again too.
func TestGapAgain(t *testing.T) {
	w := newWorldOn(t, memory.Options{Retention: engine.Retention{Age: 300 * time.Millisecond}}, halley.Options{}, bayeux.Options{})
	id := w.handshake(`{"ack":true}`)
	w.subscribe(id, "/a")
	w.publish("a", 1)
	time.Sleep(1500 * time.Millisecond)
	w.publish("b", 1)
	messages, f := w.connect(id, `,"id":"1","advice":{"timeout":100},"ext":{"ack":-1}`)
	ext, _ := f["ext"].(map[string]any)
	if ext["gap"] != true || len(messages) != 0 {
		t.Fatalf("no gap: %v %v", messages, f)
	}
	w.http.CloseIdleConnections()
	if _, f := w.connect(id, `,"id":"1","advice":{"timeout":0},"ext":{"ack":-1}`); !strings.Contains(fmt.Sprint(f["ext"]), "gap") {
		t.Errorf("the connect again, as its reply was lost: %v", f["ext"])
	}
}

// Ids of messages need not be unique but for Faye.
func TestSameID(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a")
	for range 3 {
		if f := w.one(`[{"channel":"/a","id":"4","clientId":"` + id + `","data":{"cmd":"up"}}]`); !f.ok() {
			t.Fatal(f)
		}
	}
	if messages, _ := w.connect(id, `,"id":"c"`); len(messages) != 3 {
		t.Errorf("3 publishes, all successful, are %d messages", len(messages))
	}
	faye := w.one(fayeHandshake).text("clientId")
	for _, ext := range []string{`{"to":"x"}`, `{"to":"y"}`, `{"to":"x"}`} { // the last is a repeat
		if f := w.one(`[{"channel":"/a","id":"4","clientId":"` + faye + `","data":1,"ext":` + ext + `}]`); !f.ok() {
			t.Fatal(f)
		}
	}
	if messages, _ := w.connect(id, `,"id":"d"`); len(messages) != 2 {
		t.Errorf("Faye's: %v", messages)
	}
}

// What a publisher says of positions is not delivered for the message's own.
func TestPositionsAreOurs(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake(`{"replay":true}`)
	w.subscribe(id, "/a")
	w.one(`[{"channel":"/a","data":{"event":{"replayId":1000000}},"ext":{"replay":999999}}]`)
	messages, _ := w.connect(id, now)
	ext, _ := messages[0]["ext"].(map[string]any)
	event, _ := messages[0]["data"].(map[string]any)["event"].(map[string]any)
	if ext["replay"] != 1.0 || event["replayId"] != 1.0 {
		t.Errorf("position 1 is delivered as %v", messages[0])
	}
}

// Connects over a WebSocket take each other's places in their order.
func TestSocketOrder(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	wrong := 0
	for range 50 {
		c := w.dial()
		c.say(`[{"channel":"/meta/handshake","id":1,"version":"1.0","supportedConnectionTypes":["websocket"]}]`)
		id := c.hear()[0].text("clientId")
		c.say(`[{"channel":"/meta/connect","id":"first","clientId":"` + id + `","connectionType":"websocket"}]`)
		c.say(`[{"channel":"/meta/connect","id":"second","clientId":"` + id + `","connectionType":"websocket"}]`)
		if r := c.hear(); r[0].text("id") != "first" {
			wrong++
		}
		_ = c.conn.Close()
	}
	if wrong > 0 {
		t.Errorf("%d of 50 times the first took the place of the second", wrong)
	}
}

// A session lasts for as long as its client is told to wait.
func TestToldToWait(t *testing.T) {
	w := newWorld(t, halley.Options{MaxConnections: 1}, bayeux.Options{MaxInterval: 1500 * time.Millisecond})
	one, two := w.handshake(""), w.handshake("")
	w.later(one, "")
	w.held(1)
	_, f := w.connect(two, "")
	interval, _ := f.advice("interval").(float64)
	if f.ok() || f.advice("reconnect") != "retry" {
		t.Fatal(f)
	}
	time.Sleep(time.Duration(interval) * time.Millisecond)
	if _, g := w.connect(two, now); strings.HasPrefix(g.text("error"), "402:") {
		t.Errorf("told to retry in %v ms (%v), and then: %v", interval, f, g)
	}
}

// wrapped is the header of requests whose responses newWrapped's handler wraps.
const wrapped = "X-Wrapped: 1"

// newWrapped is a world with a handler around that puts something between some
// requests and their responses.
func newWrapped(t *testing.T, wrap func(http.ResponseWriter) http.ResponseWriter) *world {
	t.Helper()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := halley.New(log, nil)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := bayeux.New(hub, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Wrapped") != "" {
			w = wrap(w)
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { _ = handler.Close(); hub.Close(); server.CloseClientConnections(); server.Close() })
	return &world{t: t, hub: hub, handler: handler, mount: server.URL}
}

// brokenWriter is a response that cannot be parked, nor written.
type brokenWriter struct{ w http.ResponseWriter }

func (b brokenWriter) Header() http.Header     { return b.w.Header() }
func (b brokenWriter) WriteHeader(status int)  { b.w.WriteHeader(status) }
func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("connection reset") }

// A reply that could not be written is made again, where it was not parked too.
func TestWriteFails(t *testing.T) {
	w := newWrapped(t, func(w http.ResponseWriter) http.ResponseWriter { return brokenWriter{w} })
	id := w.handshake("")
	w.subscribe(id, "/a")
	w.publish("a", 1)
	if _, err := w.try(t.Context(), connectBody(id, `,"id":"1"`), wrapped); err == nil {
		t.Fatal("it was written")
	}
	if messages, _ := w.connect(id, `,"id":"2","advice":{"timeout":300}`); !same(data(messages), []any{1}) {
		t.Errorf("after a write that failed: %v", messages)
	}
}

// slowHijack stops in the middle of being taken over.
type slowHijack struct {
	http.ResponseWriter
	entered, goOn chan bool
}

func (s slowHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	s.entered <- true
	<-s.goOn
	return s.ResponseWriter.(http.Hijacker).Hijack()
}

// The hub can be closed while a connect is taken over.
func TestCloseWhileHolding(t *testing.T) {
	entered, goOn := make(chan bool), make(chan bool)
	w := newWrapped(t, func(w http.ResponseWriter) http.ResponseWriter { return slowHijack{w, entered, goOn} })
	id := w.handshake("")
	w.subscribe(id, "/a")
	go func() { _, _ = w.try(context.Background(), connectBody(id, ""), wrapped) }()
	<-entered
	subscribed := make(chan bool)
	go func() {
		_, _ = w.try(context.Background(), `[{"channel":"/meta/subscribe","clientId":"`+id+`","subscription":"/b"}]`)
		close(subscribed)
	}()
	time.Sleep(100 * time.Millisecond) // it waits for Poll.mu and has Session.mu
	closed := make(chan bool)
	go func() { w.hub.Close(); close(closed) }()
	time.Sleep(100 * time.Millisecond)
	goOn <- true
	for name, c := range map[string]chan bool{"hub.Close": closed, "subscribe": subscribed} {
		select {
		case <-c:
		case <-time.After(5 * time.Second):
			t.Errorf("%s does not return", name)
		}
	}
}

// What a Go program has put into headers may be anything.
func TestOddHeaders(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake(`{"replay":true}`)
	w.subscribe(id, "/a")
	for _, name := range []string{"bayeux-ext", "bayeux-id", "bayeux-binary"} {
		for _, value := range []string{"", "{", "[", "{}", "7", "null", `{"a":}`} {
			if _, err := w.hub.Publish(t.Context(), halley.Message{Channel: "a", ContentType: "image/png", Data: []byte("x"), Headers: map[string]string{name: value}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if messages, _ := w.connect(id, soon); len(messages) != 21 {
		t.Errorf("%d messages: %v", len(messages), messages)
	}
}

// Subscriptions that overlap deliver once, also where one comes and goes while
// messages flow.
func TestOverlapWhileFlowing(t *testing.T) {
	w := newWorld(t, halley.Options{}, bayeux.Options{})
	id := w.handshake("")
	w.subscribe(id, "/a/x")
	stop := make(chan bool)
	for _, work := range []func(i int){
		func(i int) {
			_, _ = w.hub.Publish(context.Background(), halley.Message{Channel: "a/x", ContentType: "application/json", Data: fmt.Append(nil, i)})
			if i%4 == 0 {
				time.Sleep(50 * time.Microsecond)
			}
		},
		func(int) {
			for _, what := range []string{"subscribe", "unsubscribe"} {
				_, _ = w.try(context.Background(), `[{"channel":"/meta/`+what+`","clientId":"`+id+`","subscription":"/a/**"}]`)
			}
		},
	} {
		go func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					work(i)
				}
			}
		}()
	}
	defer close(stop)
	last := -1.0
	for i, end := 0, time.Now().Add(3*time.Second); time.Now().Before(end); i++ {
		messages, _ := w.connect(id, fmt.Sprintf(`,"id":"%d"`, i))
		for _, m := range messages {
			if n := m["data"].(float64); n != last+1 {
				t.Fatalf("%v after %v", n, last)
			}
			last++
		}
	}
}
