package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// A page whose stream is cut goes on in any other way with the cursor it
// holds, and has every message once and in order. Each way is cut, and each
// takes over from another.
func TestResumeElsewhere(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		r := newRelay(t, s.address)
		mount := "http://" + r.address() + "/comet"
		p.visit(mount)

		const half = 10
		published := 0
		publish := func() {
			for range half {
				s.publish(text(fmt.Sprint(published)))
				published++
			}
		}
		publish()
		var got []string
		cursor := "earliest"
		for _, w := range append(ways, ways[0]) {
			if w.absent[p.engine] != "" {
				continue
			}
			// The first half of these went out before the last cut, the
			// page may have seen some of them; the second half after it.
			publish()
			stream := p.open(w, mount, cursor)
			stream.until(fmt.Sprintf(`s.messages.length >= %d`, published-len(got)))
			publish()
			stream.until(fmt.Sprintf(`s.messages.length >= %d`, published-half/2-len(got)))
			r.reset()
			stream.close() // what comes later doesn't count
			var seen []string
			stream.get(`s.messages.map((m) => m.data)`, &seen)
			got = append(got, seen...)
			var gap bool
			if stream.get(`s.has("gap")`, &gap); gap {
				t.Errorf("%s: a gap after %s", w.name, cursor)
			}
			cursor = stream.cursor()
		}
		last := p.open(find(t, "fetch"), mount, cursor)
		last.until(fmt.Sprintf(`s.messages.length >= %d`, published-len(got)))
		var seen []string
		last.get(`s.messages.map((m) => m.data)`, &seen)
		got = append(got, seen...)

		var want []string
		for i := range published {
			want = append(want, fmt.Sprint(i))
		}
		if got, want := strings.Join(got, " "), strings.Join(want, " "); got != want {
			t.Errorf("the page has\n%s\nwant\n%s", got, want)
		}
	})
}

// An EventSource needs no help: it comes back by itself and names the last id.
func TestEventSourceResumes(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		r := newRelay(t, s.address)
		mount := "http://" + r.address() + "/comet"
		p.visit(mount)
		cursor := s.cursor()
		streams := []stream{p.open(find(t, "sse"), mount, cursor), p.open(find(t, "sse-raw"), mount, cursor)}
		for i := range 20 {
			s.publish(text(fmt.Sprint(i)))
			if i == 9 {
				for _, st := range streams {
					st.message(4)
				}
				r.reset()
			}
		}
		for _, st := range streams {
			st.message(19)
			s.publish(text("live"))
		}
		for _, st := range streams {
			st.message(21)
			var got []string
			st.get(`s.messages.map((m) => m.data)`, &got)
			if want := "[0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 live live]"; fmt.Sprint(got) != want {
				t.Errorf("the page has %v, want %s", got, want)
			}
		}
	})
}
