package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/halley-comet/halley/e2e/browser"
)

// sizes are those of a desktop's window and of a telephone.
var sizes = []struct {
	name          string
	width, height int
}{{"desktop", 1280, 1080}, {"phone", 390, 844}}

// Two tabs talk by the demo page. One of them blocks its transports, and the
// page shows the ladder going down and up; nothing is lost, nothing comes twice.
func TestDemo(t *testing.T) {
	each(t, func(t *testing.T, other *page) {
		s := serve(t)
		b, err := engines[other.engine].Browser()
		if err != nil {
			t.Fatal(err)
		}
		other.visitChat(s.url("/"), "Maria")
		p := newPage(t, b) // in front of the other
		p.step(func(ctx context.Context) error { return p.tab.Resize(ctx, sizes[0].width, sizes[0].height) })
		p.visitChat(s.url("/"), "Edmond")
		p.await(`document.querySelector("#here").textContent.includes("Maria")`)

		other.say("Can you see it?")
		p.await(`said("Maria", "Can you see it?")`)
		p.say("Above the roofs.")
		other.await(`said("Edmond", "Above the roofs.")`)
		// From now on there is always something on its way.
		other.click("#auto")
		p.click("#auto")

		p.click("[data-rung=websocket] .block")
		p.await(`by("fetch") && event("transport", "WebSocket → fetch: WebSocket was cut")`)
		p.await(`document.querySelector("[data-rung=websocket]").dataset.state === "blocked"`)
		p.click("[name=how][value=hold]")
		p.click("[data-rung=fetch] .block")
		p.await(`by("sse") && event("transport", "fetch → EventSource: fetch let nothing through")`)
		_, shot := p.screenshot()
		p.keep("chat-blocked", shot)
		for _, rung := range []string{"sse", "iframe", "long-polling"} {
			p.click("[data-rung=" + rung + "] .block")
		}
		p.await(`by("jsonp")`)
		p.click("#free")
		p.await(`by("websocket") && event("transport", "JSONP → WebSocket: a better one works again")`)

		p.click("[name=how][value=refuse]")
		p.click("#everything")
		p.await(`event("waiting", "the server cannot be reached")`)
		p.say("Where has everybody gone?")
		p.await(`[...document.querySelectorAll(".pending")].some((li) => li.textContent.includes("Where has everybody gone?"))`)
		p.click("#everything")
		other.await(`said("Edmond", "Where has everybody gone?")`)
		p.await(`by("websocket") && said("Edmond", "Where has everybody gone?")`)

		// All have all, in the same order.
		other.click("#auto")
		p.click("#auto")
		p.await(`!document.querySelector(".pending")`)
		other.await(`!document.querySelector(".pending")`)
		p.say("Good night.")
		for _, page := range []*page{p, other} {
			page.await(`said("Edmond", "Good night.")`)
		}
		p.await(`!document.querySelector(".pending")`)
		var lists [2][]string
		for i, page := range []*page{p, other} {
			page.eval(`return [...document.querySelectorAll("#messages li")].map((li) => li.dataset.id + " " + li.querySelector(".text").textContent);`, &lists[i])
			var account string
			page.eval(`return ["#lost", "#doubled"].map((id) => document.querySelector(id).textContent).join();`, &account)
			if account != "0,0" {
				t.Errorf("lost and doubled are %s, want none", account)
			}
		}
		var refused []string
		p.eval(`return refused;`, &refused)
		if len(refused) > 0 {
			t.Errorf("the page's policy refuses %q", refused)
		}
		if !slices.Equal(lists[0], lists[1]) {
			t.Errorf("one tab shows\n%q, the other\n%q", lists[0], lists[1])
		}

		// Who comes later sees what was said.
		for _, size := range sizes {
			p.step(func(ctx context.Context) error { return p.tab.Resize(ctx, size.width, size.height) })
			p.visitChat(s.url("/"), "Edmond")
			p.await(fmt.Sprintf(`document.querySelectorAll("#messages li").length === %d`, min(len(lists[0]), 100)))
			p.fits()
			_, shot := p.screenshot()
			path := p.keep("chat-"+size.name, shot)
			if uniform, err := browser.Uniform(shot); err != nil || uniform {
				t.Errorf("the screenshot %s is uniform: %v, error %v", path, uniform, err)
			}
		}

		// Who leaves is seen to leave.
		p.await(`document.querySelector("#here").textContent.includes("Maria")`)
		other.navigate("about:blank")
		p.await(`document.querySelector("#here").textContent === "You are alone here so far"`)

		// A hundred are shown also where there is just one more.
		s = serve(t)
		for _, text := range numbers(101) {
			s.publishText("demo/chat", text)
		}
		p.visitChat(s.url("/"), "Edmond")
		p.await(`said("somebody", "100")`)
		var shown int
		p.eval(`return document.querySelectorAll("#messages li").length;`, &shown)
		if shown != 100 {
			t.Errorf("%d messages are shown of 101, want 100", shown)
		}
	})
}

// visitChat goes to the demo page as somebody, and waits for its connection.
func (p *page) visitChat(url, name string) {
	p.t.Helper()
	p.navigate(url)
	p.eval(`
		window.by = (transport) => document.querySelector("#state").dataset.transport === transport;
		window.event = (type, text) => [...document.querySelectorAll("#events [data-type=" + type + "]")].some((li) => li.textContent.includes(text));
		window.said = (name, text) => [...document.querySelectorAll("#messages [data-id]")].some((li) =>
			li.querySelector(".name").textContent === name && li.querySelector(".text").textContent === text);
		window.refused = [];
		addEventListener("securitypolicyviolation", (event) => refused.push(event.violatedDirective + " " + event.blockedURI));`, nil)
	p.await(`by("websocket") && document.querySelector("#here").textContent`)
	p.eval(fmt.Sprintf(`
		const name = document.querySelector("#name");
		name.value = %s;
		name.dispatchEvent(new Event("change"));`, quote(name)), nil)
}

func (p *page) say(text string) {
	p.t.Helper()
	p.eval(fmt.Sprintf(`
		document.querySelector("#text").value = %s;
		document.querySelector("#say button").click();`, quote(text)), nil)
}

func (p *page) click(selector string) {
	p.t.Helper()
	p.eval(fmt.Sprintf(`document.querySelector(%s).click();`, quote(selector)), nil)
}

// await waits until an expression holds in the demo page.
func (p *page) await(condition string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	err := p.tab.Eval(ctx, fmt.Sprintf(`while (!(%s)) await new Promise((look) => setTimeout(look, 30));`, condition), nil)
	if err != nil {
		var events []string
		p.eval(`return [...document.querySelectorAll("#events li")].map((li) => li.innerText).concat(document.querySelector("#state").innerText, refused);`, &events)
		_, shot := p.screenshot()
		p.t.Fatalf("waiting for %s: %v; the page tells of %q; see %s", condition, err, events, p.keep("stuck", shot))
	}
}

// fits tells whether the page is no wider than the screen, and fetches nothing
// from elsewhere.
func (p *page) fits() {
	p.t.Helper()
	var overflow int
	p.eval(`return document.documentElement.scrollWidth - innerWidth;`, &overflow)
	if overflow > 0 {
		p.t.Errorf("the page is %d pixels wider than the screen", overflow)
	}
	var strange []string
	p.eval(`return performance.getEntriesByType("resource").map((r) => new URL(r.name).hostname)
		.filter((host) => !/^(127\.0\.0\.1|(.+\.)?localhost|)$/.test(host));`, &strange)
	if len(strange) > 0 {
		p.t.Errorf("the page fetches from %q", strange)
	}
}

// The page of all transports holds all seven at once, fits a desktop and a
// telephone, and fetches nothing from elsewhere.
func TestDemoTransports(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		for _, size := range []struct {
			name          string
			width, height int
			live          int // transports that the page holds open; few on a telephone, which has a picture too
		}{
			{"desktop", 1280, 900, 7},
			{"phone", 390, 844, 3},
		} {
			t.Run(size.name, func(t *testing.T) {
				p := p.in(t)
				p.step(func(ctx context.Context) error { return p.tab.Resize(ctx, size.width, size.height) })
				p.visitDemo(s.url("/transports"), size.live)

				var panes []struct{ Transport, Lost, Doubled string }
				p.eval(`return [...document.querySelectorAll("[data-transport]")].map((p) => ({ ...p.dataset }));`, &panes)
				if len(panes) != 7 {
					t.Errorf("%d transports on the page, want 7", len(panes))
				}
				for _, pane := range panes {
					if pane.Lost+pane.Doubled != "00" {
						t.Errorf("%+v, want none lost and none doubled", pane)
					}
				}
				p.fits()
				_, shot := p.screenshot()
				path := p.keep("demo-"+size.name, shot)
				if uniform, err := browser.Uniform(shot); err != nil || uniform {
					t.Errorf("the screenshot %s is uniform: %v, error %v", path, uniform, err)
				}
			})
		}
	})
}

// visitDemo goes to the page of all transports and waits until so many of its panes hold
// their stream open and have received something. A pane that an engine has no use for is adopted by
// the picture. On a busy machine the page may have found that the names which
// it spreads its streams over don't answer in time: then it is loaded again.
func (p *page) visitDemo(url string, n int) {
	p.t.Helper()
	const wait = `
		const panes = () => [...document.querySelectorAll("[data-transport][data-state=open]")];
		const live = (p) => p.dataset.received > 0 || p.matches(".adopted");
		while (panes().filter(live).length < %d) await new Promise((look) => setTimeout(look, 50));`
	var err error
	for range 3 {
		p.navigate(url)
		ctx, cancel := context.WithTimeout(p.t.Context(), patience)
		err = p.tab.Eval(ctx, fmt.Sprintf(wait, n), nil)
		cancel()
		if err == nil {
			return
		}
	}
	var states map[string]string
	p.eval(`return Object.fromEntries([...document.querySelectorAll("[data-transport]")]
		.map((p) => [p.dataset.transport, p.dataset.state]));`, &states)
	_, shot := p.screenshot()
	p.t.Fatalf("waiting for %d live transports: %v; the panes are %v; see %s", n, err, states, p.keep("dead", shot))
}
