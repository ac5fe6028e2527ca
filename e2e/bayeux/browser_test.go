package bayeux

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/bayeux"
	"github.com/halley-comet/halley/e2e/browser"
	"github.com/halley-comet/halley/e2e/process"
	"github.com/halley-comet/halley/internal/natstest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	defer natstest.Remove()
	defer func() {
		for _, e := range engines {
			e.Close()
		}
	}()
	return m.Run()
}

// engines are the browsers of this run, each started by the first test that
// wants it and shared by those that follow.
var engines = browser.SharedEngines()

// inBrowsers runs test in every engine, one after the other: two at once are
// too slow for what clients take for a lost connection.
func inBrowsers(t *testing.T, test func(t *testing.T, open func(url string) *place)) {
	needed(t)
	for _, name := range browser.Engines {
		t.Run(name, func(t *testing.T) {
			b, err := engines[name].Browser()
			if err != nil {
				t.Fatal(err)
			}
			test(t, func(url string) *place {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				tab, err := b.NewTab(ctx)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					_ = tab.Close(ctx) // it may be closed
				})
				p := &place{t, name, tab}
				p.visit(url)
				return p
			})
		})
	}
}

// visit goes to a page, and waits for its modules.
func (p *place) visit(url string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := p.js.(browser.Tab).Navigate(ctx, url); err != nil {
		p.t.Fatal(err)
	}
	p.eval(`for (let i = 0; !window.suite; i++) { if (i > 1000) throw new Error("no modules"); await new Promise((yes) => setTimeout(yes, 10)); }`, nil)
}

// pages serves a page with the clients as npm has installed them.
func pages() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/npm/", http.StripPrefix("/npm/", http.FileServer(http.Dir("node_modules"))))
	mux.Handle("/test/", http.StripPrefix("/test/", http.FileServer(http.Dir("."))))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, `<!doctype html><title>clients</title>
<script type="importmap">{"imports": {"cometd": "/npm/cometd/cometd.js", "cometd/": "/npm/cometd/"}}</script>
<script src="/npm/faye/client/faye-browser-min.js"></script>
<script type="module" src="/test/page.mjs"></script>`)
	})
	return mux
}

// Every transport that browsers have, on a page of the server's own origin and
// on one of another.
func TestBrowserTransports(t *testing.T) {
	inBrowsers(t, func(t *testing.T, open func(url string) *place) {
		s := serve(t, bayeux.Options{MaxSessionsPerBrowser: -1})
		s.show(pages())
		elsewhere := httptest.NewServer(pages())
		defer elsewhere.Close()
		for _, page := range []struct {
			name, url string
			faye      []string
		}{
			{"own origin", "http://" + s.address + "/", []string{"websocket", "eventsource", "long-polling", "callback-polling"}},
			{"other origin", strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1) + "/", []string{"websocket", "cross-origin-long-polling", "callback-polling"}},
		} {
			p := open(page.url)
			for _, transport := range []string{"long-polling", "websocket", "callback-polling"} {
				t.Run(page.name+"/cometd "+transport, func(t *testing.T) {
					p := p.in(t)
					p.name += page.name[:3]
					testCometD(t, p, s, transport, []string{"ack"})
				})
			}
			for _, transport := range page.faye {
				t.Run(page.name+"/faye "+transport, func(t *testing.T) {
					p := p.in(t)
					p.name += page.name[:3]
					testFaye(t, p, s, transport)
				})
			}
		}
		s.sessions(0)
	})
}

// With the extensions reload and ack a page that is loaded again goes on with
// its session, and no message is lost or comes twice.
func TestBrowserReload(t *testing.T) {
	inBrowsers(t, func(t *testing.T, open func(url string) *place) {
		s := serve(t, bayeux.Options{})
		s.show(pages())
		url := "http://" + s.address + "/"
		p := open(url)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		published := make(chan int, 1)
		var got []int
		var id string
		const reloads = 4
		for round := range reloads + 1 {
			var now string
			p.eval(`
				const { cometd, kept } = suite;
				const c = (kept.c = cometd("/bayeux", { transport: "long-polling", with: ["ack", "reload"] }));
				kept.got = [];
				await c.open();
				c.client.addListener("/x", () => {});
				await c.subscribe("/reload", (m) => kept.got.push(m.data.n));
				return c.client.getClientId();`, &now)
			if id == "" {
				id = now
				go func() {
					n := 0
					for ; ctx.Err() == nil; n++ {
						s.publish("reload", n, 1)
						time.Sleep(60 * time.Millisecond)
					}
					published <- n
				}()
			}
			if now != id {
				t.Errorf("session %s, want %s", now, id)
			}
			time.Sleep(300 * time.Millisecond)
			var part []int
			if round == reloads {
				cancel()
				n := <-published
				p.eval(fmt.Sprintf(`const { kept, until } = suite; await until(() => kept.got.at(-1) === %d, () => kept.got); await kept.c.close(); return kept.got;`, n-1), &part)
				got = append(got, part...)
				if !slices.Equal(got, numbers(n)) {
					t.Errorf("%v, want 0 to %d", got, n-1)
				}
				break
			}
			// Just after a message, when the next connect is on its way.
			p.eval(`
				const { kept, until, sleep } = suite;
				const had = kept.got.length;
				await until(() => kept.got.length > had);
				await sleep(25);
				kept.c.client.reload();
				return kept.got;`, &part)
			got = append(got, part...)
			p.visit(url)
		}
		s.sessions(0)
	})
}

// Faye's EventSource, cut within messages, has each once and in order.
func TestBrowserEventSourceCuts(t *testing.T) {
	inBrowsers(t, func(t *testing.T, open func(url string) *place) {
		s := serve(t, bayeux.Options{Timeout: 2 * time.Second, MaxInterval: time.Minute})
		s.show(pages())
		const seed, messages = 11, 600
		r := newRelay(t, s.address, seed)
		p := open(strings.TrimSuffix(r.mount(), "bayeux"))
		p.eval(`
			const { faye, recorder, kept } = suite;
			kept.f = faye("/bayeux", { transport: "eventsource", retry: 0.2 });
			kept.r = recorder();
			await kept.f.subscribe("/cut", (m) => kept.r.take(m));
			await suite.until(() => kept.f.transport === "eventsource");`, nil)
		for n := 0; n < messages; n += 3 {
			s.publish("cut", n, 3)
			time.Sleep(20 * time.Millisecond)
			if n%90 == 60 {
				r.cutIn(30 + n%7*100)
			}
		}
		var got recorded
		p.eval(fmt.Sprintf(`
			const { kept, until, sleep } = suite;
			await until(() => kept.r.state.next >= %d, () => JSON.stringify([kept.r.state, kept.f.events]));
			await sleep(300);
			kept.f.close();
			return kept.r.state;`, messages), &got)
		if got.Received != messages || got.Doubled != 0 || got.Missing != 0 || len(got.Faults) > 0 {
			t.Errorf("want %d messages, has %v", messages, got)
		}
		t.Logf("%d messages, %d again; %d resets, %d ends", got.Received, got.Doubled, r.resets, r.ends)
	})
}

// The example is what a stranger starts with: npm ci and go run, and all three
// clients show what each of them says, in one order.
func TestBrowserExample(t *testing.T) {
	needed(t)
	const folder = "../../examples/bayeux"
	if err := install(folder); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "example")
	if output, err := exec.Command("go", "build", "-o", program, folder).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	run := exec.Command(program, "-listen", "127.0.0.1:0")
	run.Dir = folder
	p, err := process.Start(run)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	url, err := p.Await(ctx, regexp.MustCompile(`http://127\.0\.0\.1:[1-9]\d*/`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := engines["chromium"].Browser()
	if err != nil {
		t.Fatal(err)
	}
	tab, err := b.NewTab(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tab.Close(context.Background())
	if err := tab.Navigate(ctx, url[0]); err != nil {
		t.Fatal(err)
	}
	var shown [][]string
	err = tab.Eval(ctx, `
		const panes = ["cometd", "faye", "halley"].map((id) => document.getElementById(id));
		const shown = () => panes.map((pane) => [...pane.querySelectorAll("li")].map((item) => item.textContent));
		const until = async (condition) => {
			for (const end = Date.now() + 10000; !condition(); await new Promise((yes) => setTimeout(yes, 20))) {
				if (Date.now() > end) throw new Error("never " + condition + ": " + document.body.innerText);
			}
		};
		await until(() => panes.every((pane) => pane.querySelector("small").textContent) && document.getElementById("count").textContent);
		await new Promise((yes) => setTimeout(yes, 300));
		for (let n = 0; n < 5; n++) {
			for (const pane of panes) {
				pane.querySelector("input").value = "number " + n;
				pane.querySelector("form").requestSubmit();
			}
		}
		await until(() => shown().every((list) => list.length >= 15));
		await new Promise((yes) => setTimeout(yes, 200));
		return shown();`, &shown)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range shown {
		if len(list) != 15 || !slices.Equal(list, shown[0]) {
			t.Errorf("shown are %q", shown)
		}
	}
}
