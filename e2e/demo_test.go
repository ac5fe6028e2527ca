package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/halley-comet/halley/e2e/browser"
)

// The demo page holds all seven transports at once, fits a desktop and a
// telephone, and fetches nothing from elsewhere.
func TestDemo(t *testing.T) {
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
				p.visitDemo(s.url("/"), size.live)

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
				var overflow int
				p.eval(`return document.documentElement.scrollWidth - innerWidth;`, &overflow)
				if overflow > 0 {
					t.Errorf("the page is %d pixels wider than the screen", overflow)
				}
				var strange []string
				p.eval(`return performance.getEntriesByType("resource").map((r) => new URL(r.name).hostname)
					.filter((host) => !/^(127\.0\.0\.1|(.+\.)?localhost|)$/.test(host));`, &strange)
				if len(strange) > 0 {
					t.Errorf("the page fetches from %q", strange)
				}

				_, shot := p.screenshot()
				path := p.keep("demo-"+size.name, shot)
				if uniform, err := browser.Uniform(shot); err != nil || uniform {
					t.Errorf("the screenshot %s is uniform: %v, error %v", path, uniform, err)
				}
			})
		}
	})
}

// visitDemo goes to the demo page and waits until so many of its panes hold
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
