package bayeux_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/bayeux"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/natstest"
	"github.com/halley-comet/halley/internal/sharetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	natstest.Remove()
	os.Exit(code)
}

// A member is a node of a cluster.
type member struct {
	*world
	kill func() // has it do no more for others than one that was killed
}

// newCluster returns nodes on one log in memory.
func newCluster(t *testing.T, n int, ho halley.Options, bo bayeux.Options) ([]*member, *sharetest.Tables) {
	t.Helper()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	tables := sharetest.New()
	var all []*member
	for range n {
		node := tables.Node(log)
		w := newWorldWith(t, node, ho, bo)
		all = append(all, &member{w, func() {
			node.Cut()
			_ = w.handler.Close()
		}})
	}
	return all, tables
}

// newNATSCluster returns nodes on a real NATS server.
func newNATSCluster(t *testing.T, n int, ho halley.Options, bo bayeux.Options) []*member {
	t.Helper()
	server := natstest.Start(t, t.TempDir(), "")
	ho.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	var all []*member
	for range n {
		log := sharetest.OpenNATS(t, server, ho.Logger)
		all = append(all, &member{newWorldWith(t, log, ho, bo), func() { log.Close() }})
	}
	return all
}

// brief is how long a connect is held: one that asks to be answered at once may be
// that of a CometD client that has missed a reply.
const brief = `,"advice":{"timeout":1}`

// A wanderer is a client whose requests go to whichever node.
type wanderer struct {
	t    *testing.T
	kind string // how it tells what it has had: ack, cometd, faye
	id   string
	ack  string
	n    int // connects
}

// arrives makes a session at a node.
func (c *wanderer) arrives(w *member) {
	c.t.Helper()
	types, ext := `["long-polling"]`, `{}`
	switch c.kind {
	case "ack":
		ext = `{"ack":true}`
	case "faye":
		types = `["long-polling","cross-origin-long-polling"]`
	}
	f := w.one(`[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":` + types + `,"ext":` + ext + `}]`)
	if !f.ok() {
		c.t.Fatalf("handshake: %v", f)
	}
	c.id, c.ack = f.text("clientId"), "-1"
}

// connects returns the data that a connect brings. A client that failed to read
// a reply comes with what it knew before.
func (c *wanderer) connects(w *member, fails bool) []any {
	c.t.Helper()
	c.n++
	messages, reply := w.connect(c.id, fmt.Sprintf(`,"id":"%d","ext":{"ack":%s}`, c.n, c.ack)+brief)
	if !reply.ok() {
		c.t.Fatalf("connect: %v", reply)
	}
	if ext, _ := reply["ext"].(map[string]any); ext["ack"] != nil && !fails {
		c.ack = fmt.Sprintf("%.0f", ext["ack"])
	}
	if ext, _ := reply["ext"].(map[string]any); ext["gap"] != nil {
		c.t.Errorf("a gap: %v", reply)
	}
	if fails && c.kind == "faye" {
		c.n-- // it repeats the connect
	}
	return data(messages)
}

func (c *wanderer) want(what string, got []any, want ...any) {
	c.t.Helper()
	if !same(got, append([]any{}, want...)) {
		c.t.Errorf("%s, %s: got %v, want %v", c.kind, what, got, want)
	}
}

// wantLast is want for what may come after messages that came before.
func (c *wanderer) wantLast(what string, got []any, want ...any) {
	c.t.Helper()
	if c.kind == "ack" {
		c.want(what, got, want...)
		return
	}
	if len(got) < len(want) || !same(got[len(got)-len(want):], want) {
		c.t.Errorf("%s, %s: got %v, want %v at its end", c.kind, what, got, want)
	}
	last := -1.0
	for _, d := range got {
		if d.(float64) <= last {
			c.t.Errorf("%s, %s: %v is out of order", c.kind, what, got)
		}
		last = d.(float64)
	}
}

// A client goes on at another node, without a handshake: from where it was, if
// the node before is there to say so, or if it acknowledges; others get messages
// again. Nothing is lost.
func TestMoves(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		testMoves(t, func(t *testing.T) []*member {
			all, _ := newCluster(t, 3, halley.Options{}, bayeux.Options{})
			return all
		})
	})
	t.Run("nats", func(t *testing.T) {
		testMoves(t, func(t *testing.T) []*member { return newNATSCluster(t, 3, halley.Options{}, bayeux.Options{}) })
	})
}

func testMoves(t *testing.T, newNodes func(*testing.T) []*member) {
	nodes := newNodes(t)
	a, b, c := nodes[0], nodes[1], nodes[2]
	var all []*wanderer
	for _, kind := range []string{"ack", "cometd", "faye"} {
		all = append(all, &wanderer{t: t, kind: kind})
	}
	first := 0
	publish := func(w *member, channel string) any {
		first++
		w.publish(channel, first)
		return first
	}
	for _, one := range all {
		one.arrives(a)
		a.subscribe(one.id, "/a")
	}
	m1, m2 := publish(a, "a"), publish(b, "a")
	for _, one := range all {
		a.await(m2)
		one.want("at its node", one.connects(a, false), m1, m2)
	}
	m3 := publish(a, "a")
	for _, one := range all {
		b.await(m3)
		one.want("at another node", one.connects(b, false), m3)
		a.subscribe(one.id, "/b") // which takes it back
	}
	m4, m5 := publish(a, "b"), publish(a, "a")
	for _, one := range all {
		c.await(m5)
		one.want("at a third one", one.connects(c, true), m4, m5)
	}
	for _, one := range all {
		if one.kind == "cometd" {
			one.connects(c, false) // nothing tells of a reply that was lost
			continue
		}
		one.want("once more, as the reply was lost", one.connects(a, false), m4, m5)
	}
	m6 := publish(b, "b")
	for _, one := range all {
		a.await(m6)
		one.want("before a node dies", one.connects(a, false), m6)
	}
	m7 := publish(b, "a")
	a.kill()
	m8 := publish(b, "b")
	for _, one := range all {
		b.await(m8)
		one.wantLast("after its node has died", one.connects(b, false), m7, m8)
		one.want("and then", one.connects(b, false))
		b.subscribe(one.id, "/c")
	}
	m9 := publish(c, "c")
	_ = b.handler.Close() // which has a last word
	m10 := publish(c, "a")
	for _, one := range all {
		one.want("after its node has ended", one.connects(c, false), m9, m10)
		if n := c.handler.Sessions(); n == 0 {
			t.Error("the session is nowhere")
		}
		if f := c.one(`[{"channel":"/meta/disconnect","clientId":"` + one.id + `"}]`); !f.ok() {
			t.Errorf("disconnect: %v", f)
		}
		if f := c.one(connectBody(one.id, now)); f.ok() || f.advice("reconnect") != "handshake" {
			t.Errorf("after a disconnect: %v", f)
		}
	}
}

// await waits until the node has a message.
func (w *member) await(n any) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		page, err := w.hub.Read(w.t.Context(), halley.Query{Channels: []string{"**"}, Limit: 1000})
		if err != nil {
			w.t.Fatal(err)
		}
		if k := len(page.Messages); k > 0 && string(page.Messages[k-1].Data) == fmt.Sprint(n) {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("the node has not got %v", n)
		}
	}
}

// What a client has had is recorded after a while, and does not come again if its
// node dies then.
func TestRecorded(t *testing.T) {
	nodes, tables := newCluster(t, 2, halley.Options{}, bayeux.Options{})
	a, b := nodes[0], nodes[1]
	all := []*wanderer{{t: t, kind: "cometd"}, {t: t, kind: "faye"}}
	for _, one := range all {
		one.arrives(a)
		a.subscribe(one.id, "/a")
	}
	begun := map[string]uint64{}
	for _, e := range tables.Entries("sessions") {
		begun[e.Key] = e.Version
	}
	a.publish("a", 1)
	for _, one := range all {
		one.want("at its node", one.connects(a, false), 1)
		one.want("which it has had", one.connects(a, false))
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		written := 0
		for _, e := range tables.Entries("sessions") {
			if e.Version != begun[e.Key] {
				written++
			}
		}
		if written == len(all) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d sessions were recorded", written, len(all))
		}
	}
	a.kill()
	b.publish("a", 2)
	for _, one := range all {
		one.want("after its node has died", one.connects(b, false), 2)
	}
}

// What is held at a node whose session is taken is answered at once, as if there
// were no news; publishing takes nothing.
func TestHeldElsewhere(t *testing.T) {
	nodes, _ := newCluster(t, 2, halley.Options{}, bayeux.Options{Timeout: time.Minute})
	a, b := nodes[0], nodes[1]
	id := a.handshake("")
	a.subscribe(id, "/a")
	a.connect(id, now)
	type reply struct {
		messages []fields
		err      error
	}
	held := make(chan reply, 1)
	hold := func() {
		a.held(0) // the one before may still be counted
		go func() {
			m, err := a.try(t.Context(), connectBody(id, ""))
			held <- reply{m, err}
		}()
		for a.hub.Connections() == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	hold()
	if f := b.one(`[{"channel":"/other","clientId":"` + id + `","data":1}]`); !f.ok() {
		t.Errorf("publish at another node: %v", f)
	}
	select {
	case r := <-held:
		t.Fatalf("publishing at another node has ended the connect: %v", r)
	default:
	}
	b.subscribe(id, "/b")
	r := <-held
	if r.err != nil || len(r.messages) != 1 || !r.messages[0].ok() || r.messages[0].advice("reconnect") != "retry" {
		t.Errorf("the connect that was held: %v", r)
	}
	if a.handler.Sessions() != 0 || b.handler.Sessions() != 1 {
		t.Errorf("%d sessions at the node before, %d at the other", a.handler.Sessions(), b.handler.Sessions())
	}
	hold() // which takes it back
	b.publish("b", 1)
	if r := <-held; r.err != nil || !same(data(r.messages[:1]), []any{1}) {
		t.Errorf("back at the first: %v", r)
	}
}

// A client connects at one node while another takes its session over: one of them
// has it then, with all that was subscribed.
func TestBackAtOnce(t *testing.T) {
	nodes, _ := newCluster(t, 2, halley.Options{}, bayeux.Options{Timeout: 100 * time.Millisecond})
	a, b := nodes[0], nodes[1]
	id := a.handshake("")
	a.subscribe(id, "/a")
	a.connect(id, now)
	for i := range 40 {
		channel := fmt.Sprint("c", i)
		first := a.later(id, "")
		b.subscribe(id, "/"+channel)
		replies := <-first
		second := a.later(id, "")
		b.publish(channel, i)
		replies = append(replies, <-second...)
		messages, _ := a.connect(id, now) // if it was published after that was answered
		if !strings.Contains(fmt.Sprint(append(replies, messages...)), fmt.Sprintf("channel:/%s data:%d]", channel, i)) {
			t.Fatalf("round %d: the client has %v and %v; %d sessions at its node, %d at the other", i, replies, messages, a.handler.Sessions(), b.handler.Sessions())
		}
	}
	if n := a.handler.Sessions() + b.handler.Sessions(); n != 1 {
		t.Errorf("the nodes have %d sessions, want 1", n)
	}
}

// A client ID is no more at another node than it is at its own.
func TestRightsElsewhere(t *testing.T) {
	nodes, tables := newCluster(t, 2, halley.Options{Authorizer: tokens(time.Time{})}, bayeux.Options{})
	a, b := nodes[0], nodes[1]
	const ann, bob = "Authorization: Bearer ann", "Authorization: Bearer bob"
	bound := a.handshake("", ann)
	for _, headers := range [][]string{{bob}, {}} {
		if f := b.one(connectBody(bound, now), headers...); f.ok() {
			t.Errorf("connect with %q: %v", headers, f)
		}
	}
	if a.handler.Session(bound) == nil {
		t.Error("another user has taken the session from its node")
	}
	if f := b.one(connectBody(bound, now), ann); !f.ok() {
		t.Errorf("connect: %v", f)
	}
	// One that stands for a token is as good as that is there.
	id := a.handshake(`{"token":"ann-7"}`)
	if f := b.one(connectBody(id, now)); !f.ok() {
		t.Errorf("connect of a session that stands for its token: %v", f)
	}
	if f := b.one(connectBody(id, now), bob); f.ok() {
		t.Errorf("with another's token: %v", f)
	}
	for _, e := range tables.Entries("sessions") {
		if s := e.Key + string(e.Value); strings.Contains(s, "ann") || strings.Contains(s, id) || strings.Contains(s, bound) {
			t.Errorf("who reads the table reads tokens and client IDs: %q", s)
		}
	}
	if _, err := b.hub.Revoke(halley.Revocation{ID: "ann-7"}); err != nil {
		t.Fatal(err)
	}
	for a.one(`[{"channel":"/x","data":1}]`, "Authorization: Bearer ann-7").ok() { // until that node knows it
		time.Sleep(time.Millisecond)
	}
	if f := a.one(connectBody(id, now)); f.ok() || f.advice("reconnect") != "handshake" {
		t.Errorf("after it was revoked: %v", f)
	}
}

// Where the table is away, nobody is told what another node may not know.
func TestSessionsAway(t *testing.T) {
	nodes, tables := newCluster(t, 2, halley.Options{}, bayeux.Options{})
	a, b := nodes[0], nodes[1]
	id := a.handshake("")
	a.subscribe(id, "/a")
	a.connect(id, now)
	tables.SetAway(true)
	if f := a.one(`[{"channel":"/meta/subscribe","clientId":"` + id + `","subscription":"/b"}]`); f.ok() || !strings.HasPrefix(f.text("error"), "503") {
		t.Errorf("subscribe: %v", f)
	}
	if f := a.one(`[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}]`); f.ok() || f.advice("reconnect") != "handshake" {
		t.Errorf("handshake: %v", f)
	}
	if f := b.one(connectBody(id, now)); f.ok() || !strings.HasPrefix(f.text("error"), "503") || f.advice("reconnect") != "retry" {
		t.Errorf("connect at another node: %v", f)
	}
	a.publish("a", 1)
	a.publish("b", 2)
	if messages, f := a.connect(id, now); !f.ok() || !same(data(messages), []any{1}) {
		t.Errorf("connect at its own node: %v, %v", messages, f)
	}
	tables.SetAway(false)
	a.publish("a", 3)
	if messages, f := b.connect(id, brief); !f.ok() || !same(data(messages), []any{3}) {
		t.Errorf("connect at another node, later: %v, %v", messages, f)
	}
	for _, unknown := range []string{strings.Repeat("A", len(id)), "short"} {
		if f := b.one(connectBody(unknown, now)); f.ok() || !strings.HasPrefix(f.text("error"), "402") || f.advice("reconnect") != "handshake" {
			t.Errorf("%s: %v", unknown, f)
		}
	}
}

// A node whose log is another tells a gap: its positions mean something else.
func TestOtherLog(t *testing.T) {
	tables := sharetest.New()
	var nodes []*world
	for range 2 {
		log, err := memory.New(memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() })
		nodes = append(nodes, newWorldWith(t, tables.Node(log), halley.Options{}, bayeux.Options{}))
	}
	a, b := nodes[0], nodes[1]
	id := a.handshake(`{"ack":true}`)
	a.subscribe(id, "/a")
	a.publish("a", 1)
	_, reply := a.connect(id, brief)
	ack := fmt.Sprintf("%.0f", reply["ext"].(map[string]any)["ack"])
	for n := range 3 {
		b.publish("a", n)
	}
	messages, reply := b.connect(id, `,"ext":{"ack":`+ack+`}`+brief)
	if ext, _ := reply["ext"].(map[string]any); ext["gap"] != true || !same(data(messages), []any{0, 1, 2}) {
		t.Errorf("on another log: %v, %v", messages, reply)
	}
}

// Who tries client IDs is not let near the table without end.
func TestGuesses(t *testing.T) {
	nodes, _ := newCluster(t, 1, halley.Options{TrustedProxies: []string{"127.0.0.1"}}, bayeux.Options{})
	guess := connectBody(strings.Repeat("A", 26), now)
	for n := 0; ; n++ {
		f := nodes[0].one(guess, "X-Forwarded-For: 203.0.113.7")
		if strings.HasPrefix(f.text("error"), "503") {
			break
		}
		if n > 2000 {
			t.Fatalf("so often: %v", f)
		}
	}
	if f := nodes[0].one(guess, "X-Forwarded-For: 203.0.113.8"); !strings.HasPrefix(f.text("error"), "402") {
		t.Errorf("another client: %v", f)
	}
}

// A session goes from one node's WebSocket to another's, and from EventSource to
// EventSource, whose client says how far it is.
func TestStreamsElsewhere(t *testing.T) {
	nodes, _ := newCluster(t, 2, halley.Options{}, bayeux.Options{})
	a, b := nodes[0], nodes[1]
	id := a.handshake(`{"ack":true}`)
	a.subscribe(id, "/a")
	socket := a.dial()
	socket.say(connectBody(id, now))
	socket.hear()
	a.publish("a", 1)
	socket.say(connectBody(id, `,"ext":{"ack":-1}`))
	got := socket.hear()
	ack := fmt.Sprintf("%.0f", got[1]["ext"].(map[string]any)["ack"])
	a.kill()
	a.publish("a", 2)
	socket = b.dial()
	socket.say(connectBody(id, `,"ext":{"ack":`+ack+`}`))
	if got = socket.hear(); !same(data(got[:1]), []any{2}) {
		t.Errorf("over another node's WebSocket: %v", got)
	}

	nodes, _ = newCluster(t, 2, halley.Options{}, bayeux.Options{})
	a, b = nodes[0], nodes[1]
	id = a.handshake("")
	a.subscribe(id, "/a")
	last := ""
	event := func(w *member, n int) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, _ := http.NewRequestWithContext(ctx, "GET", w.mount+"/"+id, nil)
		r.Header.Set("Accept", "text/event-stream")
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		resp, err := w.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				last = text
			}
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if want := fmt.Sprintf(`[{"channel":"/a","data":%d}]`, n); text != want {
					t.Errorf("got %s, want %s", text, want)
				}
				return
			}
		}
		t.Fatalf("the stream has ended: %s", resp.Status)
	}
	a.publish("a", 1)
	event(a, 1)
	a.publish("a", 2)
	event(a, 2)
	a.kill()
	a.publish("a", 3)
	event(b, 3)
}
