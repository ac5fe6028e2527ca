package bayeux

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/bayeux"
	"github.com/halley-comet/halley/comet"
)

// What a CometD client does, by each transport of Node, with and without the
// extension ack.
const cometdBody = `
	const { cometd, sleep, until } = suite;
	const a = cometd(url, { transport, with: [...names, "timesync", "binary"] });
	// Callbacks of two clients on one page would have the same names.
	const b = cometd(url, { transport: transport === "callback-polling" ? "websocket" : transport, with: ["timesync", "binary"] });
	await a.open();
	await b.open();
	if (a.transport !== transport) throw new Error("by " + a.transport);

	// Subscriptions of one channel, by its name and a pattern, that come and go.
	const got = [], again = [], wide = [];
	const first = await a.subscribe(root + "/room", (m) => got.push(m.data));
	const second = await a.subscribe(root + "/room", (m) => again.push(m.data));
	const deep = await a.subscribe(root + "/**", (m) => wide.push(m.data));
	for (let n = 0; n < 10; n++) await b.publish(root + "/room", { n, text: "ü € 😀 \u2028 </script>" });
	await until(() => got.length >= 10 && again.length >= 10 && wide.length >= 10);
	await a.unsubscribe(second);
	await a.unsubscribe(deep);
	await b.publish(root + "/room", { n: 10 });
	await until(() => got.length >= 11);
	await a.unsubscribe(first);
	await b.publish(root + "/room", { n: "nobody has it" });
	await sleep(100);
	const third = await a.subscribe(root + "/room", (m) => got.push(m.data));
	await b.publish(root + "/room", { n: 11 });
	await until(() => got.length >= 12);
	await sleep(100);

	// A batch is one request, in order.
	const batch = [];
	await a.subscribe(root + "/batch", (m) => batch.push(m.data));
	let done = 0;
	b.client.batch(() => {
		for (let n = 0; n < 50; n++) b.client.publish(root + "/batch", n, (m) => (done += m.successful ? 1 : 0));
	});
	await until(() => batch.length >= 50 && done >= 50);

	// Bytes.
	const bytes = [];
	await a.subscribe(root + "/bytes", (m) => bytes.push([Array.from(new Uint8Array(m.data.data)), m.data.last, m.data.meta]));
	const sent = Array.from({ length: 260 }, (_, i) => i & 255);
	await new Promise((resolve) => b.client.publishBinary(root + "/bytes", new Uint8Array(sent), true, { name: "x" }, resolve));
	await until(() => bytes.length >= 1);

	// A service answers to its caller alone.
	const echoes = [], others = [];
	a.client.addListener("/service/echo", (m) => echoes.push(m.data));
	b.client.addListener("/service/echo", (m) => m.data !== undefined && others.push(m.data));
	await a.publish("/service/echo", { a: 1 });
	await until(() => echoes.some((e) => e?.a === 1));
	await sleep(50);

	// What is not allowed is said.
	let refused;
	await a.publish(root + "/*", 1).catch((error) => (refused = JSON.parse(error.message).error));
	await a.close();
	await b.close();
	const same = (x, y) => JSON.stringify(x) === JSON.stringify(y);
	return {
		got: got.map((d) => d.n), again: again.length, wide: wide.length, text: got[0].text, batch, refused, others: others.length,
		bytes: same(bytes, [[sent, true, { name: "x" }]]), echoes: echoes.filter((e) => e !== undefined).length,
		offset: a.client.getExtension("timesync").getTimeOffset(), events: a.events, status: a.client.getStatus(),
	};`

func TestCometD(t *testing.T) {
	// The clients of a Node share their cookies.
	s := serve(t, bayeux.Options{MaxSessionsPerBrowser: -1})
	js := inNode(t)
	for _, transport := range []string{"long-polling", "websocket"} {
		for _, names := range [][]string{{}, {"ack"}} {
			t.Run(strings.Join(append([]string{transport}, names...), " "), func(t *testing.T) {
				testCometD(t, js.in(t), s, transport, names)
			})
		}
	}
	s.sessions(0)
}

func testCometD(t *testing.T, p *place, s *server, transport string, names []string) {
	root := fmt.Sprintf("/%s/%d/%s", p.name, len(names), transport)
	var r struct {
		Got, Batch                  []int
		Again, Wide, Others, Echoes int
		Text, Refused, Status       string
		Bytes                       bool
		Offset                      float64
		Events                      []string
	}
	p.eval(fmt.Sprintf(`const url = %s, transport = %s, names = %s, root = %s;`, quote(s.mount()), quote(transport), quote(names), quote(root))+cometdBody, &r)
	if want := numbers(12); !slices.Equal(r.Got, want) || r.Again != 10 || r.Wide != 10 || r.Text != "ü € 😀 \u2028 </script>" {
		t.Errorf("got %v %d %d %q, want %v 10 10", r.Got, r.Again, r.Wide, r.Text, want)
	}
	if !slices.Equal(r.Batch, numbers(50)) {
		t.Errorf("batch: %v", r.Batch)
	}
	if !r.Bytes || r.Echoes != 1 || r.Others != 0 || !strings.HasPrefix(r.Refused, "400:") || r.Offset < -100 || r.Offset > 100 || r.Status != "disconnected" {
		t.Errorf("%+v", r)
	}
	if want := []string{"/meta/handshake true ", "/meta/disconnect true "}; !slices.Equal(r.Events, want) {
		t.Errorf("events: %q, want %q", r.Events, want)
	}
}

func numbers(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// What a Faye client does, by each transport that there is.
const fayeBody = `
	const { faye, sleep, until } = suite;
	const a = faye(url, { transport, extension: { incoming: (m, done) => { if (m.data !== undefined) arrived.push([m.id, m.ext]); done(m); } } });
	const b = faye(url, { transport, extension: { outgoing: (m, done) => { if (m.data !== undefined) { m.ext = { colour: "red" }; sent.push(m.id); } done(m); } } });
	const arrived = [], sent = [], got = [], deep = [];
	const first = await a.subscribe(root + "/room", (m) => got.push(m.n));
	await a.subscribe(root + "/**", (m) => deep.push(m.n ?? m));
	for (let n = 0; n < 10; n++) await b.publish(root + "/room", { n });
	await until(() => got.length >= 10 && deep.length >= 10);
	await a.unsubscribe(first);
	await sleep(100);
	await b.publish(root + "/room", { n: 10 });
	await until(() => deep.length >= 11);
	await sleep(100);
	const heard = [];
	await a.subscribe(root + "/room", (m) => { heard.push(m.n); if (m.n < 40) a.publish(root + "/room", { n: m.n + 1 }); });
	await b.publish(root + "/room", { n: 20 });
	await until(() => heard.length >= 21);
	await sleep(100);
	let refused;
	await a.client.publish(root + "/room", undefined).then(() => {}, (error) => (refused = String(error.code)));
	const by = [a.transport, b.transport], events = [...a.events];
	await a.close();
	await b.close();
	return { got, deep: deep.length, heard, arrived: arrived.slice(0, 10), sent: sent.slice(0, 10), by, events, refused };`

func TestFaye(t *testing.T) {
	s := serve(t, bayeux.Options{})
	js := inNode(t)
	for _, transport := range []string{"long-polling", "websocket"} {
		t.Run(transport, func(t *testing.T) { testFaye(t, js.in(t), s, transport) })
	}
	s.sessions(0)
}

func testFaye(t *testing.T, p *place, s *server, transport string) {
	var r struct {
		Got, Heard []int
		Deep       int
		Arrived    [][2]any
		Sent       []string
		By, Events []string
		Refused    string
	}
	p.eval(fmt.Sprintf(`const url = %s, transport = %s, root = %s;`, quote(s.mount()), quote(transport), quote("/"+p.name+"/faye/"+transport))+fayeBody, &r)
	if !slices.Equal(r.By, []string{transport, transport}) {
		t.Errorf("by %v", r.By)
	}
	var heard []int
	for n := 20; n <= 40; n++ {
		heard = append(heard, n)
	}
	if !slices.Equal(r.Got, numbers(10)) || r.Deep != 32 || !slices.Equal(r.Heard, heard) {
		t.Errorf("got %v, %d by the pattern, then %v", r.Got, r.Deep, r.Heard)
	}
	for i, m := range r.Arrived {
		if m[0] != r.Sent[i] || quote(m[1]) != `{"colour":"red"}` {
			t.Errorf("message %d: id and ext %v, want %q and the sender's", i, m, r.Sent[i])
		}
	}
	if len(r.Arrived) != 10 || r.Refused != "400" || slices.Contains(r.Events, "down") {
		t.Errorf("%+v", r)
	}
}

// One channel has one order, whoever publishes and whoever listens: CometD and
// Faye clients, EventSource, and package comet.
func TestOneWorld(t *testing.T) {
	s := serve(t, bayeux.Options{MaxSessionsPerBrowser: -1})
	p := inNode(t)
	const each = 40
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	native := &comet.Client{URL: "http://" + s.address + "/comet"}
	heard, opened := make(chan []string, 1), make(chan struct{})
	go func() {
		var texts []string
		for event, err := range native.Subscribe(ctx, comet.Options{Channels: []string{"world/*"}}) {
			if err != nil {
				break
			}
			if event.Control == comet.Open {
				close(opened)
			}
			if event.Control == "" {
				texts = append(texts, string(event.Message.Bytes()))
			}
			if len(texts) == 4*each {
				break
			}
		}
		heard <- texts
	}()
	<-opened
	p.eval(fmt.Sprintf(`
		const { cometd, faye, until, kept } = suite;
		const url = %s;
		const all = (kept.all = {});
		const list = (name) => { const l = (all[name] = []); return (m) => l.push(JSON.stringify("data" in m ? m.data : m)); };
		for (const transport of ["long-polling", "websocket"]) {
			for (const names of [[], ["ack"]]) {
				const c = cometd(url, { transport, with: names });
				await c.open();
				await c.subscribe("/world/one", list("cometd " + transport + names));
				kept.cometd = c;
			}
			const f = faye(url, { transport });
			await f.subscribe("/world/*", list("faye " + transport));
			kept.faye = f;
		}
		const source = new suite.EventSource(url.replace("bayeux", "comet") + "/subscribe?channel=world/one");
		const hear = list("EventSource");
		source.onmessage = (event) => hear({ data: JSON.parse(event.data) });
		await new Promise((resolve) => (source.onopen = resolve));
		kept.source = source;`, quote(s.mount())), nil)
	go func() {
		for n := range each {
			if _, err := native.Publish(ctx, comet.Publication{Channel: "world/one", ContentType: "application/json", Data: fmt.Appendf(nil, `{"go":%d}`, n)}); err != nil {
				t.Error(err)
			}
		}
	}()
	var all map[string][]string
	p.eval(fmt.Sprintf(`
		const { kept, until } = suite;
		const each = %d;
		await Promise.all([
			(async () => { for (let n = 0; n < each; n++) await kept.cometd.publish("/world/one", { cometd: n }); })(),
			(async () => { for (let n = 0; n < each; n++) await kept.faye.publish("/world/one", { faye: n }); })(),
			(async () => {
				for (let n = 0; n < each; n++) {
					await fetch(%s + "/publish?channel=world/one", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ native: n }) });
				}
			})(),
		]);
		await until(() => Object.values(kept.all).every((l) => l.length >= 4 * each), () => JSON.stringify(Object.entries(kept.all).map(([k, l]) => [k, l.length])));
		kept.source.close();
		return kept.all;`, each, quote("http://"+s.address+"/comet")), &all)
	all["package comet"] = <-heard
	want := s.history("world/one")
	if len(want) != 4*each || len(all) != 8 {
		t.Fatalf("%d messages of %d, %d listeners", len(want), 4*each, len(all))
	}
	for name, got := range all {
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want the log's %v", name, got, want)
		}
	}
}

// A server that has forgotten a session is asked for a new one by the client
// itself, which subscribes again and goes on.
func TestServerRestart(t *testing.T) {
	for _, transport := range []string{"long-polling", "websocket"} {
		t.Run(transport, func(t *testing.T) {
			s := serve(t, bayeux.Options{Timeout: 2 * time.Second})
			p := inNode(t)
			p.eval(fmt.Sprintf(`
				const { cometd, faye, kept, until } = suite;
				const c = (kept.c = cometd(%s, { transport: %s, with: ["ack"], backoffIncrement: 100 }));
				kept.got = [];
				let handshakes = 0;
				c.client.addListener("/meta/handshake", (m) => {
					if (m.successful && handshakes++) c.client.resubscribe(kept.subscription);
				});
				await c.open();
				kept.subscription = await c.subscribe("/a", (m) => kept.got.push(m.data.n));
				kept.handshakes = () => handshakes;
				const f = faye(%[1]s, { transport: %[2]s, retry: 0.2 });
				kept.faye = [];
				await f.subscribe("/a", (m) => kept.faye.push(m.n));`, quote(s.mount()), quote(transport)), nil)
			s.publish("a", 0, 3)
			p.eval(`await suite.until(() => suite.kept.got.length >= 3 && suite.kept.faye.length >= 3);`, nil)
			for round := range 2 {
				s.stop()
				time.Sleep(300 * time.Millisecond)
				s.start()
				s.sessions(2)
				p.eval(fmt.Sprintf(`await suite.until(() => suite.kept.handshakes() >= %d);`, 2+round), nil)
				time.Sleep(500 * time.Millisecond) // for what they subscribe to
				s.publish("a", 3*(round+1), 3)
				p.eval(fmt.Sprintf(`await suite.until(() => suite.kept.got.length >= %d && suite.kept.faye.length >= %[1]d);`, 3*(round+2)), nil)
			}
			var got struct{ Got, Faye []int }
			p.eval(`
				const { kept, until } = suite;
				await until(() => kept.got.length >= 9 && kept.faye.length >= 9, () => JSON.stringify([kept.got, kept.faye, kept.c.events]));
				return { got: kept.got, faye: kept.faye };`, &got)
			if !slices.Equal(got.Got, numbers(9)) || !slices.Equal(got.Faye, numbers(9)) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A client whose WebSocket is refused, or dies and is refused then, goes on by
// long polling in the same session.
func TestFallback(t *testing.T) {
	s := serve(t, bayeux.Options{Timeout: 2 * time.Second})
	p := inNode(t)
	r := newRelay(t, s.address, 1)
	r.refuseUpgrades.Store(true)
	p.eval(fmt.Sprintf(`
		const { cometd, faye, kept, until, sleep } = suite;
		const url = %s;
		const c = (kept.c = cometd(url, { backoffIncrement: 100 }));
		await c.opens();
		kept.got = [];
		await c.subscribe("/a", (m) => kept.got.push(m.data.n));
		const f = (kept.f = faye(url, { retry: 0.2 }));
		kept.faye = [];
		await f.subscribe("/a", (m) => kept.faye.push(m.n));
		if (c.transport !== "long-polling" || f.transport !== "long-polling") throw new Error(c.transport + " " + f.transport);`, quote(r.mount())), nil)
	s.publish("a", 0, 5)
	p.eval(`await suite.until(() => suite.kept.got.length >= 5 && suite.kept.faye.length >= 5);`, nil)
	r.refuseUpgrades.Store(false)

	// It dies, and no other is let in. CometD sticks to what once worked
	// unless it is told not to.
	p.eval(fmt.Sprintf(`
		const { cometd, kept } = suite;
		const d = (kept.d = cometd(%s, { transport: "websocket", fallback: true, backoffIncrement: 100, stickyReconnect: false, with: ["ack"] }));
		let handshakes = 0;
		kept.late = [];
		d.client.addListener("/meta/handshake", (m) => {
			if (m.successful && handshakes++) d.client.resubscribe(kept.subscription);
		});
		await d.open();
		kept.subscription = await d.subscribe("/b", (m) => kept.late.push(m.data.n));
		if (d.transport !== "websocket") throw new Error(d.transport);`, quote(r.mount())), nil)
	s.publish("b", 0, 5)
	p.eval(`await suite.until(() => suite.kept.late.length >= 5);`, nil)
	r.refuseUpgrades.Store(true)
	r.reset()
	p.eval(`await suite.until(() => suite.kept.d.transport === "long-polling");`, nil)
	time.Sleep(time.Second)
	s.publish("b", 5, 5)
	var late []int
	p.eval(`
		const { kept, until } = suite;
		await until(() => kept.late.length >= 10, () => JSON.stringify([kept.late, kept.d.events]));
		return kept.late;`, &late)
	if !slices.Equal(late, numbers(10)) {
		t.Errorf("%v", late)
	}
}

// Clients of Salesforce find positions, and go on from the last that they saw.
func TestSalesforce(t *testing.T) {
	s := serve(t, bayeux.Options{})
	p := inNode(t)
	s.publish("event/Order__e", 0, 5)
	s.publish("event/Other__e", 0, 5)
	var r struct{ All, After, Fresh, Rest []int }
	p.eval(fmt.Sprintf(`
		const { cometd, until, Replay, kept } = suite;
		const channel = "/event/Order__e";
		const open = async (from, transport) => {
			const replay = new Replay({ [channel]: from });
			const c = cometd(%s, { transport, with: [replay] });
			await c.open();
			const got = [];
			await c.subscribe(channel, (m) => got.push(m.data));
			return { c, got, replay };
		};
		const all = await open(-2, "long-polling");
		await until(() => all.got.length >= 5);
		const after = await open(all.got[1].event.replayId, "websocket");
		const fresh = await open(-1, "websocket");
		await until(() => after.got.length >= 3);
		await all.c.publish(channel, { n: 5 });
		await until(() => [all, after, fresh].every(({ got }) => got.at(-1)?.n === 5));
		// The same client again, in another session.
		await all.c.close();
		await after.c.publish(channel, { n: 6 });
		const before = all.got.length;
		await all.c.open();
		await all.c.subscribe(channel, (m) => all.got.push(m.data));
		await until(() => all.got.length > before);
		const n = ({ got }) => got.map((d) => d.n);
		return { all: n(all).slice(0, before), after: n(after), fresh: n(fresh), rest: n(all).slice(before) };`, quote(s.mount())), &r)
	for _, c := range []struct{ got, want []int }{
		{r.All, numbers(6)}, {r.After, []int{2, 3, 4, 5, 6}}, {r.Fresh, []int{5, 6}}, {r.Rest, []int{6}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("got %v, want %v", c.got, c.want)
		}
	}
}

// recorded is what a recorder of clients.mjs says.
type recorded struct {
	Next, Received, Doubled, Missing int
	Faults                           []string
}

func (r recorded) String() string {
	b, _ := json.Marshal(r) // it always can
	return string(b)
}
