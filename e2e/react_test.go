package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// reactPage is the script of client/test/react, with React's development
// build, which alone has a strict mode.
var reactPage = sync.OnceValues(func() ([]byte, error) {
	folder, err := filepath.Abs("../client")
	if err != nil {
		return nil, err
	}
	return esbuild(folder, filepath.Join(folder, "test", "react", "page.tsx"),
		"--bundle", "--format=iife", "--target=es2022", "--jsx=automatic", "--log-level=warning",
		`--define:process.env.NODE_ENV="development"`)
})

// visitReact goes to the React page, which hydrates what a server has rendered
// and uses s from another origin.
func (p *page) visitReact(s *server) {
	p.t.Helper()
	script, err := reactPage()
	if err != nil {
		p.t.Fatal(err)
	}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/page.js" {
			w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
			_, _ = w.Write(script)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, `<!doctype html><title>React</title><div id="root"></div><script src="/page.js"></script>`)
	}))
	p.t.Cleanup(site.Close)
	p.navigate(site.URL + "/?" + url.Values{"mount": {s.mount()}}.Encode())
}

// shows waits until the list on the page is what is wanted.
func (p *page) shows(want ...string) {
	p.t.Helper()
	if len(want) > 0 {
		p.eval(fmt.Sprintf(`await page.until(() => page.list().at(-1) === %s);`, quote(want[len(want)-1])), nil)
	}
	var got []string
	p.eval(`return page.list();`, &got)
	if !slices.Equal(got, want) {
		p.t.Errorf("the page shows %q, want %q", got, want)
	}
}

// subscribes waits until the page's streams, which are WebSockets, are one for
// each of the given channels; ~ is the client's, for none.
func (p *page) subscribes(channels ...string) {
	p.t.Helper()
	p.eval(fmt.Sprintf(`await page.until(() => page.streams().join() === %s);`, quote(strings.Join(channels, ","))), nil)
}

func of(channel string, from, to int) (items []string) {
	for i := from; i <= to; i++ {
		items = append(items, fmt.Sprintf("%s:%d", channel, i))
	}
	return items
}

// In strict mode React mounts everything twice: messages come once and in
// order all the same, from where they are asked for, and nothing stays open.
func TestReact(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		const first, second = "first", "second"
		say := func(channel string, from, to int) {
			for i := from; i <= to; i++ {
				s.publishText(channel, fmt.Sprint(i))
			}
		}
		say(first, 0, 9)
		p.visitReact(s)

		var rendered string
		p.eval(`return page.rendered;`, &rendered)
		if !strings.Contains(rendered, "connecting") {
			t.Errorf("a server renders %q, want it connecting", rendered)
		}
		p.shows(of(first, 0, 9)...)
		p.eval(`await page.until(() => page.status().startsWith("open "));`, nil)
		p.subscribes(first)
		var requests []string
		p.eval(`return page.requests();`, &requests)
		if slices.Sort(requests); !slices.Equal(requests, []string{"/comet/history", "/comet/info"}) {
			t.Errorf("the first connection made the requests %q: there is another", requests)
		}

		p.eval(`await page.publish(10);`, nil)
		p.shows(of(first, 0, 10)...)
		say(first, 11, 12)
		p.shows(of(first, 0, 12)...)

		// Hidden it holds nothing, and then goes on where it was.
		p.eval(`page.change({ hidden: true });`, nil)
		p.subscribes("~")
		say(first, 13, 19)
		p.eval(`page.change({ hidden: false });`, nil)
		p.shows(of(first, 0, 19)...)

		// Another channel begins anew, with messages that are there already.
		say(second, 0, 299)
		p.eval(`page.change({ name: "second", keep: 300 });`, nil)
		p.shows(of(second, 0, 299)...)
		// Only so many are kept, also if they become fewer.
		p.eval(`page.change({ keep: 5 });`, nil)
		p.eval(`await page.until(() => page.list().length === 5);`, nil)
		p.shows(of(second, 295, 299)...)
		say(second, 300, 302)
		p.shows(of(second, 298, 302)...)

		// What comes at once is shown at once, though a WebSocket brings each
		// message in a task of its own; in strict mode a render counts twice.
		var before, after int
		p.eval(`return page.renders();`, &before)
		p.eval(`await page.publishAll(Array.from({ length: 500 }, (_, i) => 303 + i));`, nil)
		p.shows(of(second, 798, 802)...)
		p.eval(`return page.renders();`, &after)
		t.Logf("%d renders of 500 messages", (after-before)/2)
		if n := (after - before) / 2; n > 250 {
			t.Errorf("%d renders of 500 messages that came at once", n)
		}

		// Another start begins anew, too.
		p.eval(`const asked = page.requests().length;
			page.change({ from: "now", keep: undefined });
			await page.until(() => page.list().length === 0);
			// Then the client knows which moment that is.
			await page.until(() => page.requests().slice(asked).includes("/comet/info"));`, nil)
		p.eval(`await page.publish(803);`, nil)
		p.shows(of(second, 803, 803)...)
		p.eval(`page.change({ name: null });`, nil)
		p.eval(`await page.until(() => page.list().length === 0);`, nil)
		p.eval(`page.change({ name: "**", from: "earliest", keep: 2 });`, nil)
		p.shows(of(second, 802, 803)...)

		// A subscription ends with its component, and the connection with its own.
		p.eval(`page.change({ shown: false, name: "first", from: "now" });
			await page.until(() => page.status() === "gone");`, nil)
		p.subscribes("~")
		say(first, 20, 20)
		p.eval(`page.change({ shown: true });
			await page.until(() => page.status().startsWith("open "));`, nil)
		p.shows()
		p.eval(`page.unmount();
			await page.until(() => page.state() === "closed");`, nil)
		p.subscribes()
		var told []string
		p.eval(`return page.errors;`, &told)
		if len(told) > 0 {
			t.Errorf("React complains: %q", told)
		}
	})
}
