package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A page of another origin of the same site makes requests with the cookie that
// holds a user's token, SameSite or not, since cookies know no ports. It can
// neither publish nor read with it: not by a form, not by a script, not by a
// WebSocket, and not by what the browser would let it read. The server's own
// page can.
func TestCookieFromElsewhere(t *testing.T) {
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("drives real browsers: set HALLEY_E2E=1")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("s3cret", 8)), 0o600); err != nil {
		t.Fatal(err)
	}
	program, err := halley()
	if err != nil {
		t.Fatal(err)
	}
	token, err := exec.CommandContext(t.Context(), program, "token", "make", "--secret-file", secret, "--user", "ann", "--subscribe", "**", "--publish", "**").Output()
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, p *page) {
		s := serve(t, "--auth-secret-file", secret)
		p.navigate(s.url("/healthz"))
		var own map[string]string
		p.eval(fmt.Sprintf(attempts+`
			const headers = { Authorization: "Bearer " + %s };
			const { ticket } = await (await fetch(base + "/ticket", { method: "POST", headers })).json();
			await fetch(base + "/subscribe?channel=news&timeout=0&ticket=" + ticket);
			return await attempt(base);`, quote(s.mount()), quote(strings.TrimSpace(string(token)))), &own)
		for what, got := range own {
			if want := what != "jsonp"; (got == "let in") != want {
				t.Errorf("%s: the server's own page is %s", what, got)
			}
		}
		before := s.cursor()
		p.navigate(strings.Replace(elsewhere(t), "localhost", "127.0.0.1", 1))
		var got map[string]string
		p.eval(fmt.Sprintf(attempts+`return await attempt(base);`, quote(s.mount())), &got)
		if len(got) != len(own) || len(own) < 6 {
			t.Errorf("%d attempts, and %d of the own page", len(got), len(own))
		}
		for what, outcome := range got {
			if outcome != "refused" {
				t.Errorf("%s: a page from elsewhere is %s", what, outcome)
			}
		}
		if after := s.cursor(); after != before {
			t.Errorf("a page from elsewhere has published: the log went from %s to %s", before, after)
		}
	})
}

// attempts is a script that tries all that a page can do with a cookie alone.
const attempts = `
	const base = %s;
	const attempt = async (base) => {
		const outcome = {};
		const settle = (promise) => promise.then((response) => response.ok ? "let in" : "refused", () => "refused");
		const stream = base + "/subscribe?channel=news&transport=";
		const credentials = "include";
		outcome.poll = await settle(fetch(stream + "long-polling&timeout=0", { credentials }));
		outcome.history = await settle(fetch(base + "/history?channel=news", { credentials }));
		outcome.sse = await new Promise((tell) => {
			const source = new EventSource(stream + "sse", { withCredentials: true });
			source.onopen = () => (source.close(), tell("let in"));
			source.onerror = () => (source.close(), tell("refused"));
		});
		outcome.websocket = await new Promise((tell) => {
			const socket = new WebSocket(stream.replace(/^http/, "ws") + "websocket");
			socket.onopen = () => (socket.close(), tell("let in"));
			socket.onerror = () => tell("refused");
		});
		outcome.jsonp = await new Promise((tell) => {
			globalThis.got = (answer) => tell(answer.control === "error" ? "refused" : "let in");
			const script = document.createElement("script");
			script.src = stream + "jsonp&timeout=0&callback=got";
			script.onload = script.onerror = () => tell("refused");
			document.body.append(script);
		});
		outcome.publish = await settle(fetch(base + "/publish?channel=news", { method: "POST", credentials, body: "1" }));
		// The browser hides the answers of these from other origins, not the requests.
		await fetch(base + "/publish?channel=news", { method: "POST", mode: "no-cors", credentials, body: "1" }).catch(() => {});
		document.body.insertAdjacentHTML("beforeend", '<form method="post" target="answer"><input name="channel" value="news"><input name="data" value="1"></form><iframe name="answer"></iframe>');
		document.forms[document.forms.length - 1].action = base + "/publish";
		const answered = new Promise((tell) => {
			document.querySelector("iframe[name=answer]").onload = tell;
			setTimeout(tell, 3000); // Firefox saves what is problem+json, and tells of no load
		});
		document.forms[document.forms.length - 1].submit();
		await answered;
		return outcome;
	};`
