package bayeux

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/halley-comet/halley/bayeux"
)

// Connections are cut at any byte, in either direction, and some are never
// answered. A CometD client with the extension ack has every message once and
// in order; the others have every message, and maybe one again whose reply may
// not have arrived. The seed of the cuts is HALLEY_CHAOS_SEED; what they meet
// is a matter of time.
func TestCuts(t *testing.T) {
	seed := rand.Uint64()
	if given := os.Getenv("HALLEY_CHAOS_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	messages, pace := 2000, 20*time.Millisecond // for a batch
	if os.Getenv("HALLEY_CHAOS") == "full" {
		messages = 10_000
	}
	t.Logf("HALLEY_CHAOS_SEED=%d", seed)
	s := serve(t, bayeux.Options{
		Timeout: 700 * time.Millisecond, MaxInterval: time.Minute,
		MaxSessionsPerBrowser: -1, // the CometD clients of a Node share their cookies
	})
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
	}
	relays := make([]*relay, len(clients))
	for i, c := range clients {
		relays[i] = newRelay(t, s.address, seed+uint64(i))
		p.eval(fmt.Sprintf(`
			const name = %s, url = %s;
			const options = { backoffIncrement: 20, maxBackoff: 100, maxNetworkDelay: 600, connectTimeout: 500 };
			const c = %s;
			const r = suite.recorder();
			suite.kept[name] = { c, r };
			await c.open?.();
			await c.subscribe("/cut", (m) => r.take(m.data ?? m));`, quote(c.name), quote(relays[i].mount()), c.make), nil)
	}
	for _, r := range relays {
		r.cutting.Store(true)
		r.reset()
	}
	begin := time.Now()
	const batch = 4
	for n := 0; n < messages; n += batch {
		s.publish("cut", n, batch)
		time.Sleep(pace)
	}
	published := time.Since(begin)
	// The rest comes while connections are cut as well.
	wait := func(limit time.Duration) {
		for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			var behind int
			p.eval(fmt.Sprintf(`return Object.values(suite.kept).filter(({ r }) => r.state.next < %d).length;`, messages), &behind)
			if behind == 0 {
				return
			}
		}
	}
	wait(patience)
	for _, r := range relays {
		r.cutting.Store(false)
		r.reset()
	}
	wait(patience)
	time.Sleep(1500 * time.Millisecond) // what comes twice may come late
	for i, c := range clients {
		var got struct {
			State  recorded
			Events []string
		}
		p.eval(fmt.Sprintf(`const { r, c } = suite.kept[%s]; return { state: r.state, events: c.events.slice(-20) };`, quote(c.name)), &got)
		r := relays[i]
		t.Logf("%-24s %d messages in %v, %d again; %d resets, %d ends, %d never answered", c.name, got.State.Received,
			published.Round(time.Millisecond), got.State.Doubled, r.resets, r.ends, r.holes)
		if got.State.Next != messages || got.State.Missing != 0 || c.once && (got.State.Doubled > 0 || len(got.State.Faults) > 0) {
			t.Errorf("%s: want %d messages, has %v\nlast events: %q", c.name, messages, got.State, got.Events)
		}
		for _, fault := range got.State.Faults {
			var n, at int
			if k, _ := fmt.Sscanf(fault, "%d in place of %d", &n, &at); k == 2 {
				t.Errorf("%s: order: %s", c.name, fault)
			}
		}
	}
	s.sessions(len(clients))
}
