package e2e

import (
	"slices"
	"syscall"
	"testing"
)

// deaths are the ways in which a connection ends without a word of the server.
var deaths = []struct {
	name string
	do   func(s *server, r *relay)
}{
	{"reset", func(_ *server, r *relay) { r.reset() }},
	{"finish", func(_ *server, r *relay) { r.finish() }},
	{"silence", func(_ *server, r *relay) { r.silence() }},
	{"kill", func(s *server, _ *relay) { s.process.Signal(syscall.SIGKILL) }},
}

// A page learns of every death: by its watchdog whatever the transport, within
// two heartbeats, and in most cases sooner from the browser. What the browsers
// say differs, and where they say nothing or call it an end.
func TestDeath(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		for _, death := range deaths {
			t.Run(death.name, func(t *testing.T) {
				s := serve(t, "--heartbeat", "500ms")
				r := newRelay(t, s.address)
				mount := "http://" + r.address() + "/comet"
				p := p.in(t)
				p.visit(mount)
				cursor := s.cursor()
				// No more than five: browsers have six connections for a
				// host, and some count WebSockets.
				streams := make(map[string]stream)
				for _, name := range []string{"iframe", "multipart", "xhr", "fetch", "sse", "websocket"} {
					if w := find(t, name); w.absent[p.engine] == "" {
						streams[name] = p.open(w, mount, cursor)
					}
				}
				for _, st := range streams {
					st.until(`s.controls.filter((c) => c.control === "heartbeat").length >= 2 && !s.dead()`)
					checkOpen(t, st)
				}

				death.do(s, r)
				for name, st := range streams {
					// EventSource comes back by itself, and then it lives.
					if name != "sse" || death.name == "silence" {
						st.until(`s.dead()`)
					}
					switch want := signal(p.engine, death.name, name); want {
					case "":
						if got := st.events(); len(got) > 0 && got[0] != "open" {
							t.Errorf("%s: the browser said %q, want nothing", name, got)
						}
					default:
						st.until("s.events.includes(" + quote(want) + ")")
					}
					st.close()
				}
			})
		}
	})
}

// signal is what a browser says of a death, "" where that is nothing. WebKitGTK
// takes a response for whole that ends without its last chunk.
func signal(engine, death, way string) string {
	switch {
	case death == "silence":
		return ""
	case death != "reset" && engine == "webkit":
		return map[string]string{"iframe": "load", "xhr": "load", "fetch": "end", "sse": "error 0", "websocket": "close 1006"}[way]
	}
	return map[string]string{"multipart": "error", "xhr": "error", "fetch": "error", "sse": "error 0", "websocket": "close 1006"}[way]
}

func find(t *testing.T, name string) way {
	t.Helper()
	i := slices.IndexFunc(ways, func(w way) bool { return w.name == name })
	if i < 0 {
		t.Fatalf("no way is called %q", name)
	}
	return ways[i]
}
