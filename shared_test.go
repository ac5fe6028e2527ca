package halley_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/internal/natstest"
	"github.com/halley-comet/halley/internal/sharetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	natstest.Remove()
	os.Exit(code)
}

// A node is a server of a cluster in a test.
type node struct {
	people *people
	hub    *halley.Hub
	mount  string
}

// newNode serves a hub for people on an engine.
func newNode(t *testing.T, e halley.Engine, o halley.Options) *node {
	t.Helper()
	p := &people{}
	o.Authorizer, o.Heartbeat = p, 200*time.Millisecond
	hub := newHubOn(t, e, o)
	return &node{p, hub, serveHub(t, hub, true)}
}

// ticket gets a ticket of the node.
func (n *node) ticket(t *testing.T, token string) string {
	t.Helper()
	a := ask(t, "POST", n.mount+"ticket", "", bearer(token))
	var got struct{ Ticket string }
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != 200 {
		t.Fatalf("a ticket: %+v, %v", a, err)
	}
	return got.Ticket
}

// A cluster is two nodes on a real NATS server.
func cluster(t *testing.T) (server *natstest.Server, nodes []*node, open func(halley.Options) *node) {
	t.Helper()
	server = natstest.Start(t, t.TempDir(), "")
	open = func(o halley.Options) *node {
		t.Helper()
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
		return newNode(t, sharetest.OpenNATS(t, server, o.Logger), o)
	}
	return server, []*node{open(halley.Options{}), open(halley.Options{})}, open
}

// What a node of a cluster gives or takes back is so on all of them: tickets,
// revocations, renewals.
func TestCluster(t *testing.T) {
	_, nodes, open := cluster(t)
	a, b := nodes[0], nodes[1]

	// Of those who use a ticket at once, wherever, one is served.
	text := a.ticket(t, "ann")
	var mu sync.Mutex
	served := map[string]int{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			got := ask(t, "GET", nodes[i%2].mount+"history?channel=ann/x&ticket="+text, "")
			mu.Lock()
			defer mu.Unlock()
			served[fmt.Sprint(got.status, got.code)]++
		})
	}
	wg.Wait()
	if served["200"] != 1 || served["401invalid-ticket"] != 7 {
		t.Errorf("a ticket was answered with %v", served)
	}
	if got := ask(t, "GET", b.mount+"history?channel=bob/x&ticket="+a.ticket(t, "ann"), ""); got.status != 403 {
		t.Errorf("another's channel with a ticket of ann's: %+v", got)
	}

	// A token is renewed by whichever node.
	lines, _ := dial(t, b.mount+"subscribe?channel=ann/x", bearer("ann#1"))
	strange, _ := dial(t, b.mount+"subscribe?channel=bob/x", bearer("bob#1"))
	held(t, b.hub, 2)
	const form = "Content-Type: application/x-www-form-urlencoded"
	for _, old := range []string{"ann#1", "bob#1"} { // another user's token renews nothing
		if got := ask(t, "POST", a.mount+"renew", "old="+strings.ReplaceAll(old, "#", "%23"), bearer("ann#2"), form); got.body != `{"connections":0}` {
			t.Errorf("renew at another node: %+v", got)
		}
	}
	// Who renews once more is told by the answer that the first has arrived: a
	// connection of ann#2 is renewed here, by the node that holds it.
	eventually(t, "the connection is renewed", func() bool {
		return ask(t, "POST", b.mount+"renew", "old=ann%232", bearer("ann#3"), form).body == `{"connections":1}`
	})

	// What is revoked ends everywhere, and is refused there, now and later.
	if n, err := a.hub.Revoke(halley.Revocation{ID: "1"}); n != 0 || err != nil { // nobody has it any more but bob
		t.Errorf("Revoke: %d, %v", n, err)
	}
	until(t, "bob's stream", strange, "token-revoked")
	if n, err := a.hub.Revoke(halley.Revocation{User: "ann"}); n != 0 || err != nil {
		t.Errorf("Revoke: %d, %v", n, err)
	}
	until(t, "ann's stream, renewed", lines, "token-revoked")
	var kept []halley.Revocation
	later := open(halley.Options{KeepRevocation: func(r halley.Revocation) error {
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, r)
		return nil
	}})
	for name, n := range map[string]*node{"a": a, "b": b, "one that begins later": later} {
		for token, code := range map[string]string{"ann#9": "token-revoked", "eve#1": "token-revoked", "eve#2": ""} {
			user, _, _ := strings.Cut(token, "#")
			if got := ask(t, "GET", n.mount+"history?channel="+user+"/x", "", bearer(token)); got.code != code {
				t.Errorf("%s at %s: %+v, want %q", token, name, got, code)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(kept) != 2 {
		t.Errorf("a node that began later keeps %+v", kept)
	}
}

// Where what nodes share is away, nothing is promised that would hold on one
// node alone.
func TestTablesAway(t *testing.T) {
	tables := sharetest.New()
	var kept []halley.Revocation
	log := newLog(t)
	a, b := newNode(t, tables.Node(log), halley.Options{}), newNode(t, tables.Node(log), halley.Options{
		KeepRevocation: func(r halley.Revocation) error {
			kept = append(kept, r)
			return errors.New("no space left")
		},
	})
	lines, _ := dial(t, b.mount+"subscribe?channel=ann/x", bearer("ann#1"))
	held(t, b.hub, 1)
	text := a.ticket(t, "ann")
	for _, e := range tables.Entries("tickets") {
		if s := e.Key + string(e.Value); strings.Contains(s, "ann") || strings.Contains(s, text) {
			t.Errorf("who reads the tickets reads tokens: %q", s)
		}
	}
	tables.SetAway(true)
	for target, body := range map[string]string{"ticket": "", "revoke?user=ann": "", "renew": "old=ann%231", "history?channel=ann/x&ticket=" + text: "-"} {
		method, token := "POST", "root"
		switch {
		case body == "-":
			method, body, token = "GET", "", ""
		case body != "":
			token = "ann#2"
		}
		headers := []string{"Content-Type: application/x-www-form-urlencoded"}
		if token != "" {
			headers = append(headers, bearer(token))
		}
		if got := ask(t, method, a.mount+target, body, headers...); got.status != 503 || got.code != "engine-unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("%s without tables: %+v", target, got)
		}
	}
	if _, err := b.hub.Revoke(halley.Revocation{User: "ann"}); !errors.Is(err, halley.ErrUnavailable) || b.hub.Connections() != 1 || kept != nil {
		t.Errorf("Revoke: %v, %d connections, kept %v", err, b.hub.Connections(), kept)
	}
	tables.SetAway(false)
	// What was refused has changed nothing.
	if got := ask(t, "GET", a.mount+"history?channel=ann/x&ticket="+text, ""); got.status != 200 {
		t.Errorf("the ticket, later: %+v", got)
	}
	// The tables have it, so a full disk is no reason to let the token be.
	if n, err := b.hub.Revoke(halley.Revocation{User: "ann"}); n != 1 || err != nil || len(kept) != 1 {
		t.Errorf("Revoke: %d, %v, kept %v", n, err, kept)
	}
	until(t, "the token's stream", lines, "token-revoked")
	// Of two of a user the later holds, in whatever order they come.
	early := halley.Revocation{User: "ann", Time: time.Now().Add(-time.Hour)}
	if _, err := a.hub.Revoke(early); err != nil {
		t.Error(err)
	}
	c := newNode(t, tables.Node(log), halley.Options{})
	if got := ask(t, "GET", c.mount+"history?channel=ann/x", "", bearer("ann#3")); got.code != "token-revoked" {
		t.Errorf("at a node that begins later: %+v", got)
	}
}

// A hub that is closed has left nothing behind.
func TestSharedGoroutines(t *testing.T) {
	tables, log := sharetest.New(), newLog(t)
	before := runtime.NumGoroutine()
	for range 20 {
		hub := newHubOn(t, tables.Node(log), halley.Options{Authorizer: &people{}})
		if _, err := hub.Revoke(halley.Revocation{User: "ann"}); err != nil {
			t.Fatal(err)
		}
		_ = hub.Close()
	}
	eventually(t, "the hubs' goroutines are gone", func() bool { return runtime.NumGoroutine() <= before+2 })
}
