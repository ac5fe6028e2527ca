package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// load goes to a document of the server's own origin that is small and does
// nothing, and gives it the browser client and a record of what comes by it.
func (p *page) load(origin string) {
	p.t.Helper()
	p.navigate(origin + "/comet/info")
	p.eval(`
		const script = document.createElement("script");
		script.src = "/comet/client.js";
		await new Promise((resolve, reject) => {
			script.onload = resolve;
			script.onerror = () => reject(new Error("no script"));
			document.body.append(script);
		});
		window.got = {};
		window.events = [];
		window.start = (options) => {
			window.connection = Halley.connect("/comet", options);
			for (const type of ["connecting", "open", "waiting", "closed", "gap", "transport", "error"]) {
				connection.addEventListener(type, ({ detail }) => events.push([type, JSON.parse(JSON.stringify(detail)), Math.round(performance.now())]));
			}
		};
		window.listen = (name, options) => {
			const list = (got[name] ??= []);
			return connection.channel(name).subscribe((message) => list.push(message.data), options);
		};
		window.until = async (condition) => {
			for (const end = performance.now() + 18000; !condition(); ) {
				if (performance.now() > end) throw new Error("never " + condition + " with " + JSON.stringify({ counts: Object.entries(got).map(([name, { length }]) => [name, length]), events, state: connection.state }));
				await new Promise((resolve) => setTimeout(resolve, 10));
			}
		};`, nil)
}

// publishText publishes a text to a channel.
func (s *server) publishText(channel, text string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost,
		s.mount()+"/publish?"+url.Values{"channel": {channel}}.Encode(), strings.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "text/plain")
	var answer struct{ ID string }
	s.do(request, &answer)
}

// received is what a page has got on a channel.
func (p *page) received(channel string) (texts []string) {
	p.t.Helper()
	p.eval(fmt.Sprintf(`return got[%s];`, quote(channel)), &texts)
	return texts
}

func numbers(n int) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprint(i))
	}
	return texts
}

var clientTransports = []string{"websocket", "fetch", "xhr", "sse", "iframe", "long-polling", "jsonp"}

// The client comes as a classic script and as a module.
func TestClientModule(t *testing.T) {
	s := serve(t)
	each(t, func(t *testing.T, p *page) {
		p.load(s.scheme + "://" + s.address)
		var same bool
		p.eval(`
			const classic = typeof Halley.connect === "function" && Halley.isHalleyError(new Halley.HalleyError("", ""));
			const module = await import("/comet/client.mjs");
			return classic && Object.keys(Halley).every((name) => module[name] === Halley[name]);`, &same)
		if !same {
			t.Error("the module does not export what the script defines")
		}
	})
}

// Each transport of the browser client brings every message once, while
// channels come and go.
func TestClientTransports(t *testing.T) {
	s := serve(t, "--heartbeat", "1s")
	each(t, func(t *testing.T, p *page) {
		for _, transport := range clientTransports {
			t.Run(transport, func(t *testing.T) {
				p := p.in(t)
				p.load(s.scheme + "://" + s.address)
				channel := p.engine + "/" + transport
				s.publishText(channel, "0")
				p.eval(fmt.Sprintf(`
					start({ transports: [%s], share: false });
					const name = %s;
					await listen(name, { from: "earliest" }).ready;
					for (let n = 1; n < 40; n++) {
						const ready = n %% 10 ? null : listen(name + "/" + n).ready;
						await connection.publish(name, String(n));
						if (n %% 15 === 0) connection.channel("~other").subscribe(() => {}).unsubscribe();
						await ready;
					}
					await until(() => got[name].length >= 40);
					await connection.publish(name + "/10", "here");
					await until(() => got[name + "/10"].length);`, quote(transport), quote(channel)), nil)
				if texts := p.received(channel); !slices.Equal(texts, numbers(40)) {
					t.Errorf("got %v, want 0 to 39", texts)
				}
				var how struct{ State, Transport string }
				p.eval(`return { state: connection.state, transport: connection.transport };`, &how)
				if how.State != "open" || how.Transport != transport {
					t.Errorf("got %+v, want open by %s", how, transport)
				}
				// Heartbeats: it stays.
				p.eval(`events.length = 0; await new Promise((resolve) => setTimeout(resolve, 3500));`, nil)
				var events []json.RawMessage
				p.eval(`return events;`, &events)
				if len(events) > 0 {
					t.Errorf("got %s while nothing happened", events)
				}
				p.eval(`connection.close();`, nil)
			})
		}
	})
}

// Tabs share one connection, and go on when the one that holds it is closed.
func TestClientTabs(t *testing.T) {
	s := serve(t, "--heartbeat", "1s")
	each(t, func(t *testing.T, first *page) {
		b, err := engines[first.engine].Browser()
		if err != nil {
			t.Fatal(err)
		}
		common, own := first.engine+"/common", func(i int) string { return fmt.Sprintf("%s/own/%d", first.engine, i) }
		tabs := []*page{first, newPage(t, b), newPage(t, b)}
		for i, p := range tabs {
			p.load(s.scheme + "://" + s.address)
			p.eval(fmt.Sprintf(`
				start();
				await Promise.all([listen(%s).ready, listen(%s).ready]);`, quote(common), quote(own(i))), nil)
		}
		published := 0
		publish := func(until func() bool) {
			for !until() {
				s.publishText(common, fmt.Sprint(published))
				for i := range tabs {
					s.publishText(own(i), fmt.Sprint(published))
				}
				published++
				time.Sleep(5 * time.Millisecond)
			}
		}
		publish(func() bool { return published == 50 })
		first.navigate("about:blank")
		left := time.Now()
		publish(func() bool { return time.Since(left) > 2*time.Second })
		// As if it were frozen, the leader says nothing for a while.
		tabs[1].eval(`
			const { postMessage } = BroadcastChannel.prototype;
			BroadcastChannel.prototype.postMessage = () => {};
			setTimeout(() => (BroadcastChannel.prototype.postMessage = postMessage), 2500);`, nil)
		left = time.Now()
		publish(func() bool { return time.Since(left) > 4*time.Second })
		for i, p := range tabs[1:] {
			p.eval(fmt.Sprintf(`await until(() => got[%s].length >= %d && got[%s].length >= %[2]d);`, quote(common), published, quote(own(i+1))), nil)
			for _, channel := range []string{common, own(i + 1)} {
				if texts := p.received(channel); !slices.Equal(texts, numbers(published)) {
					t.Errorf("%s: got %v, want 0 to %d", channel, texts, published-1)
				}
			}
			var events json.RawMessage
			p.eval(`return events;`, &events)
			t.Logf("%s", events)
			p.eval(`connection.close();`, nil)
		}
	})
}
