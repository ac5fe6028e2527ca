package conformance

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

var seamCases = func() (all []testCase) {
	for _, k := range kinds {
		all = append(all, testCase{
			"seam/" + k.name, "8.10",
			"a client may lose its connection at any byte, come back over another transport, and go on exactly where it was",
			func(t tb, s *server) { seam(t, s, k) },
		})
	}
	return append(all, testCase{"seam/live", "8.10",
		"In order, no loss, no duplicate, over any mix of transports and reconnects: each retained message once, in log order", seamLive})
}()

// seam cuts a kind's response after every byte, takes what was complete by
// then, and goes on over the other kinds in turn; where a cut leaves a cursor
// that none left before, over all of them.
func seam(t tb, s *server, k kind) {
	ch := s.channel()
	before := s.text(t, ch, "before")[0]
	want := []*publication{
		{channel: ch, typ: "said", contentType: "application/json", data: `{"n":1.0e5}`},
		{channel: ch, contentType: "text/plain", data: "two\nlines é </script>"},
		{channel: ch, contentType: "image/png", data: "\xff\x00"},
		{channel: ch, typ: "é", contentType: "text/plain", data: "data: x\n\n"},
		{channel: ch, contentType: "text/plain", data: "last"},
	}
	s.publish(t, want...)
	start := on(ch, before.id)
	start.extra = []string{"padding", "0"} // of an iframe: most cuts would be in it
	whole := s.record(t, k, start, len(want))

	step := 1
	if s.o.Quick {
		step = 31
	}
	others := slices.DeleteFunc(slices.Clone(kinds), func(other kind) bool { return other == k })
	seen := map[string]bool{}
	for cut := 0; cut <= whole; cut += step {
		got, cursor := s.cut(t, k, start, cut)
		targets := others[cut/step%len(others):][:1]
		if !seen[cursor] {
			seen[cursor] = true
			targets = others
		}
		for _, other := range targets {
			what := fmt.Sprintf("%s cut at byte %d of %d, resumed by %s from %s", k.name, cut, whole, other.name, cursor)
			r := s.receive(t, other, len(want)-len(got), on(ch, cursor))
			isAll(t, what, append(slices.Clone(got), r.messages...), want)
			if r.gap {
				t.Errorf("%s: a gap", what)
			}
		}
	}
}

// record returns how many bytes of a kind's body hold n messages.
func (s *server) record(t tb, k kind, q subscription, n int) int {
	t.Helper()
	if k.polls {
		return len(s.subscribeOnce(t, k, q).body)
	}
	st := s.open(t, k, q)
	defer st.close()
	st.next()
	for range n {
		st.nextMessage()
	}
	return st.pos
}

// cut subscribes and closes the connection when n bytes of the body are there.
// It returns the messages that were complete in them and the cursor to go on
// from.
func (s *server) cut(t tb, k kind, q subscription, n int) ([]event, string) {
	t.Helper()
	st := s.connect(t, k, q)
	var body []byte
	st.wait(fmt.Sprintf("%d bytes", n), func(data []byte, _ error) bool {
		body = data[:min(n, len(data))]
		return len(data) >= n
	})
	st.close()
	if k.polls {
		// Nothing is complete but the whole.
		if k.transport == "jsonp" {
			body, _ = unwrap(body)
		}
		if p, err := parsePage(body); err == nil {
			return p.messages, p.cursor
		}
		return nil, q.cursor
	}
	r, err := newReader(k, st.header)
	if err != nil {
		t.Fatalf("%s: %v", k.name, err)
	}
	messages, cursor := complete(t, r, body)
	if cursor == "" {
		cursor = q.cursor
	}
	return messages, cursor
}

// complete returns the messages that are complete in a part of a stream, and
// the last position; empty if there is none.
func complete(t tb, r reader, b []byte) (messages []event, cursor string) {
	t.Helper()
	for {
		e, n, err := r.next(b)
		if err != nil {
			t.Fatalf("in %q: %v", clip(b), err)
		}
		if n == 0 {
			return messages, cursor
		}
		b = b[n:]
		if e == nil {
			continue
		}
		if cursor = e.id; e.control == "" {
			messages = append(messages, *e)
		}
	}
}

// seamLive follows a channel that is published to, over one transport after the
// other, each cut at some byte of what came.
func seamLive(t tb, s *server) {
	const n = 200
	ch := s.channel()
	cursor := s.text(t, ch, "before")[0].id
	published := make(chan []*publication, 1)
	go func() {
		var all []*publication
		for i := range n {
			p := &publication{channel: ch, contentType: "text/plain", data: fmt.Sprint(i)}
			r, err := s.send(t.Context(), "POST", "/publish?"+query("channel", ch), p.data, "Content-Type", "text/plain")
			if err != nil {
				break // the loop below misses it
			}
			var a struct{ ID string }
			json.Unmarshal(r.body, &a)
			p.id = a.ID
			all = append(all, p)
		}
		published <- all
	}()
	var got []event
	for deadline := time.Now().Add(2 * patience); len(got) < n && time.Now().Before(deadline); {
		k := kinds[rand.IntN(len(kinds))]
		q := on(ch, cursor)
		if k.polls {
			q.extra = []string{"timeout", "0"}
			p := s.pollOnce(t, k, q)
			if p.gap {
				t.Errorf("%s from %s: a gap", k.name, cursor)
			}
			got, cursor = append(got, p.messages...), p.cursor
			continue
		}
		st := s.open(t, k, q)
		if e := st.next(); e.control != "open" || e.id != cursor {
			t.Errorf("%s: got %v, want open at %s", k.name, e, cursor)
		}
		st.more(5 * time.Millisecond)
		rest := st.got()[st.pos:]
		st.close()
		messages, last := complete(t, st.reader, rest[:rand.IntN(len(rest)+1)])
		if got = append(got, messages...); last != "" {
			cursor = last
		}
	}
	isAll(t, "over all transports", got, <-published)
}
