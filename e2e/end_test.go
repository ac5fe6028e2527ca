package e2e

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A server that is told to end says so on every stream, with the time after
// which to come back, then ends the stream, and itself with success.
func TestServerEnds(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		p.visit(s.mount())
		cursor := s.cursor()
		streams := make(map[string]stream)
		// The poll comes first since nothing tells that the server has it, and
		// under another name, since six connections are all that browsers
		// make to a host.
		poll := p.open(find(t, "long-polling"), strings.Replace(s.mount(), "127.0.0.1", "localhost", 1), cursor)
		for _, name := range []string{"iframe", "multipart", "xhr", "fetch", "sse", "websocket"} {
			if w := find(t, name); w.absent[p.engine] == "" {
				streams[name] = p.open(w, s.mount(), cursor)
			}
		}
		s.process.Signal(syscall.SIGTERM)
		for name, st := range streams {
			st.until(`s.events.some((e) => e !== "open")`)
			var last envelope
			st.get(`s.controls.at(-1)`, &last)
			if last.Control != "reconnect" || last.Delay <= 0 {
				t.Errorf("%s: the last word was %+v, want reconnect with a delay", name, last)
			}
			end := map[string]string{"iframe": "load", "multipart": "end", "xhr": "load", "fetch": "end", "sse": "error 0"}[name]
			events := slices.DeleteFunc(st.events(), func(e string) bool { return e == "open" })
			if name == "websocket" {
				if !strings.HasPrefix(events[0], "close 1") || events[0] == "close 1006" {
					t.Errorf("websocket: the browser said %q, want a close with a code", events)
				}
			} else if events[0] != end {
				t.Errorf("%s: the browser said %q, want %q", name, events, end)
			}
		}
		poll.until(`s.requests > 1`) // the first was answered
		select {
		case <-s.process.Done():
			if err := s.process.Err(); err != nil {
				t.Errorf("the server ended: %v, want success", err)
			}
		case <-time.After(patience):
			t.Error("the server goes on")
		}
	})
}
