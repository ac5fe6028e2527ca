package bayeux

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/halley-comet/halley/bayeux"
	"github.com/halley-comet/halley/internal/natstest"
	"github.com/halley-comet/halley/internal/sharetest"
)

// Clients go from node to node while messages come: one node is closed, one
// dies, and at last each connection goes to whichever. A CometD client with the
// extension ack has every message once and in order; the others have every
// message. None of them handshakes again.
func TestNodes(t *testing.T) {
	nat := natstest.Start(t, t.TempDir(), "")
	var nodes []*server
	for range 4 {
		logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
		nodes = append(nodes, serveOn(t, sharetest.OpenNATS(t, nat, logger), bayeux.Options{
			Timeout: 700 * time.Millisecond, MaxInterval: time.Minute,
			MaxSessionsPerBrowser: -1, // the CometD clients of a Node share their cookies
		}))
	}
	p := inNode(t)
	clients := []struct {
		name, make string
		once       bool
	}{
		{"cometd long-polling ack", `suite.cometd(url, { ...options, transport: "long-polling", with: ["ack"] })`, true},
		{"cometd websocket ack", `suite.cometd(url, { ...options, transport: "websocket", with: ["ack"] })`, true},
		{"cometd long-polling", `suite.cometd(url, { ...options, transport: "long-polling" })`, false},
		{"cometd websocket", `suite.cometd(url, { ...options, transport: "websocket" })`, false},
		{"faye long-polling", `suite.faye(url, { retry: 0.1, transport: "long-polling" })`, false},
		{"faye websocket", `suite.faye(url, { retry: 0.1, transport: "websocket" })`, false},
		{"faye eventsource", `suite.faye(url, { retry: 0.1, transport: "eventsource" })`, false},
	}
	relays := make([]*relay, len(clients))
	to := func(s *server) {
		for _, r := range relays {
			r.to(s.address)
			r.reset()
		}
	}
	for i, c := range clients {
		relays[i] = newRelay(t, nodes[0].address, uint64(i))
		p.eval(fmt.Sprintf(`
			const name = %s, url = %s;
			const options = { backoffIncrement: 20, maxBackoff: 100, maxNetworkDelay: 2000, connectTimeout: 1000 };
			const c = %s;
			const r = suite.recorder();
			suite.kept[name] = { c, r };
			await c.open?.();
			await c.subscribe("/move", (m) => r.take(m.data ?? m));`, quote(c.name), quote(relays[i].mount()), c.make), nil)
	}
	published := 0
	publish := func(s *server, n int) {
		for range n {
			s.publish("move", published, 4)
			published += 4
			time.Sleep(10 * time.Millisecond)
		}
	}
	last := nodes[3]
	publish(last, 50)
	t.Log("a node is closed")
	nodes[0].stop()
	to(nodes[1])
	publish(last, 100)
	t.Log("a node dies")
	_ = nodes[1].log.Close() // it can tell nobody
	to(nodes[2])
	publish(last, 100)
	nodes[1].stop()
	t.Log("each connection goes to another node")
	for i := range 20 {
		to(nodes[2+i%2])
		publish(last, 10)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var behind int
		p.eval(fmt.Sprintf(`return Object.values(suite.kept).filter(({ r }) => r.state.next < %d).length;`, published), &behind)
		if behind == 0 {
			break
		}
	}
	for _, c := range clients {
		var got struct {
			State      recorded
			Events     []string
			Handshakes int
		}
		p.eval(fmt.Sprintf(`const { r, c } = suite.kept[%s];
			return { state: r.state, events: c.events.slice(-20), handshakes: c.events.filter((e) => e.startsWith("/meta/handshake")).length };`, quote(c.name)), &got)
		t.Logf("%-24s %d messages, %d again", c.name, got.State.Received, got.State.Doubled)
		if got.State.Next != published || got.State.Missing != 0 || c.once && (got.State.Doubled > 0 || len(got.State.Faults) > 0) || got.Handshakes > 1 {
			t.Errorf("%s: want %d messages, has %v, with %d handshakes\nlast events: %q", c.name, published, got.State, got.Handshakes, got.Events)
		}
		for _, fault := range got.State.Faults {
			var n, at int
			if k, _ := fmt.Sscanf(fault, "%d in place of %d", &n, &at); k == 2 {
				t.Errorf("%s: order: %s", c.name, fault)
			}
		}
	}
}
