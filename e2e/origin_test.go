package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// elsewhere serves a page with the scripts under a loopback name that is not
// the server's.
func elsewhere(t *testing.T) (url string) {
	t.Helper()
	pages := http.NewServeMux()
	pages.Handle("/page/", http.FileServerFS(scripts))
	pages.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<!doctype html><title>elsewhere</title><body>")
		for _, name := range scriptNames() {
			fmt.Fprintf(w, "<script src=%q></script>", "/"+name)
		}
	})
	s := httptest.NewServer(pages)
	t.Cleanup(s.Close)
	return strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
}

// A page of another loopback origin may do all that one of the server's own may.
func TestOtherOrigin(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		p.navigate(elsewhere(t))
		eachWay(t, p, func(t *testing.T, p *page, w way) {
			if w.sameOrigin {
				t.Skip("a frame of another origin can't call its parent's functions")
			}
			stream := p.open(w, s.mount(), s.cursor())
			for i := range 3 {
				id := s.publish(text("</script>"))
				if got := stream.message(i); got.ID != id {
					t.Errorf("id %q, want %q", got.ID, id)
				}
			}
			if w.stream {
				checkOpen(t, stream)
			}
			stream.close()
		})

		stream := p.open(find(t, "sse"), s.mount(), s.cursor())
		t.Run("publish JSON", func(t *testing.T) {
			stream := stream.on(t)
			var id string
			stream.eval(fmt.Sprintf(`
				const response = await fetch(%s, {
					method: "POST", headers: { "Content-Type": "application/json" }, body: '{"n":1}',
				});
				return (await response.json()).id;`, quote(s.mount()+"/publish?channel=news")), &id)
			if got := stream.message(0); got.ID != id || string(got.Data) != `{"n":1}` {
				t.Errorf("id %q, data %s, want %q and what was published", got.ID, got.Data, id)
			}
		})
		t.Run("publish by a form", func(t *testing.T) {
			stream := stream.on(t)
			stream.eval(fmt.Sprintf(`
				document.body.insertAdjacentHTML("beforeend",
					'<form method="post" target="answer"><input name="channel" value="news">' +
					'<textarea name="data">two words &amp; \u2604</textarea></form><iframe name="answer"></iframe>');
				document.forms[0].action = %s;
				document.forms[0].submit();`, quote(s.mount()+"/publish")), nil)
			if got := stream.message(1); string(got.Data) != `"two words & ☄"` {
				t.Errorf("data %s, want the form's", got.Data)
			}
		})
	})
}

// A page of a stranger, here one without an origin of its own, neither reads
// nor publishes.
func TestStrangeOrigin(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		p.navigate(elsewhere(t))
		before := s.cursor()
		var got map[string]string
		p.eval(fmt.Sprintf(`
			const told = new Promise((tell) => addEventListener("message", (event) => tell(event.data)));
			const frame = document.createElement("iframe");
			frame.sandbox = "allow-scripts";
			frame.srcdoc = "<script>(" + async function (base) {
				const outcome = {};
				const stream = base + "/subscribe?channel=news&transport=";
				const settle = (promise) => promise.then(() => "let in", () => "refused");
				outcome.info = await settle(fetch(base + "/info"));
				outcome.polling = await settle(fetch(stream + "long-polling&timeout=0"));
				outcome.sse = await new Promise((tell) => {
					const source = new EventSource(stream + "sse");
					source.onopen = () => tell("let in");
					source.onerror = () => tell("refused");
				});
				outcome.websocket = await new Promise((tell) => {
					const socket = new WebSocket(stream.replace(/^http/, "ws") + "websocket");
					socket.onopen = () => tell("let in");
					socket.onclose = () => tell("refused");
				});
				// The browser hides the answer, not the request.
				await fetch(base + "/publish?channel=news", { method: "POST", mode: "no-cors", body: "from a stranger" });
				parent.postMessage(outcome, "*");
			} + ")(" + %s + ")<\/script>";
			document.body.append(frame);
			return await told;`, quote(quote(s.mount()))), &got)
		for _, what := range []string{"info", "polling", "sse", "websocket"} {
			if got[what] != "refused" {
				t.Errorf("%s: a stranger is %s, want refused", what, got[what])
			}
		}
		if after := s.cursor(); after != before {
			t.Errorf("a stranger has published: the log went from %s to %s", before, after)
		}
	})
}
