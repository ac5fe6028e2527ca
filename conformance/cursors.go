package conformance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

var cursorCases = []testCase{
	{"cursors/resume", "8.8", "Everything in my channels after this point; one cursor covers every channel of a subscription", cursorResume},
	{"cursors/earliest", "3.6", "earliest (never a gap)", cursorEarliest},
	{"cursors/now", "3.6", "now; left out = now; an empty cursor is as if left out", cursorNow},
	{"cursors/malformed", "3.7", "A malformed cursor is 400", cursorMalformed},
	{"cursors/last-event-id-wins", "8.5", "Last-Event-ID wins over it on every transport", lastEventIDWins},
	{"cursors/last-event-id-empty", "8.5", "an empty one is ignored", lastEventIDEmpty},
	{"cursors/last-event-id-malformed", "8.5", "a malformed Last-Event-ID is a gap", lastEventIDMalformed},
	{"cursors/foreign-epoch", "3.8", "Another epoch: a gap, then everything from the oldest retained", cursorForeign},
	{"cursors/beyond-the-end", "3.8", "one beyond the end: a gap, then everything from the oldest retained", cursorBeyond},
	{"cursors/past-retention", "3.8", "a position past retention: a gap, then everything from the oldest retained", cursorPastRetention},
}

func cursorResume(t tb, s *server) {
	a, b, other := s.channel(), s.channel(), s.channel()
	var want []*publication
	for i := range 4 {
		want = append(want, s.text(t, a, fmt.Sprint("a", i))...)
		s.text(t, other, "not this")
		want = append(want, s.text(t, b, fmt.Sprint("b", i))...)
	}
	for _, k := range kinds {
		for i := range want {
			q := subscription{channels: []string{a, b}, cursor: want[i].id}
			r := s.receive(t, k, len(want)-1-i, q)
			if r.gap {
				t.Errorf("%s after %s: a gap", k.name, q.cursor)
			}
			if !k.polls && r.open.id != q.cursor {
				t.Errorf("%s after %s: open has the id %s, which is not where it starts", k.name, q.cursor, r.open.id)
			}
			isAll(t, fmt.Sprintf("%s after %s", k.name, q.cursor), r.messages, want[i+1:])
		}
	}
}

func cursorEarliest(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two")
	for _, k := range kinds {
		r := s.receive(t, k, 2, on(ch, "earliest"))
		isAll(t, k.name, r.messages, want)
		if r.gap {
			t.Errorf("%s: a gap", k.name)
		}
		if !k.polls && position(t, r.open.id) >= position(t, want[0].id) {
			t.Errorf("%s: open has the id %s, which is not before the first message %s", k.name, r.open.id, want[0].id)
		}
	}
}

func cursorNow(t tb, s *server) {
	ch := s.channel()
	old := s.text(t, ch, "old")[0]
	for _, k := range kinds {
		for _, q := range []subscription{
			{channels: []string{ch}, cursor: "now"},
			{channels: []string{ch}},
			{channels: []string{ch}, extra: []string{"cursor", ""}},
		} {
			var at string
			if k.polls {
				q.extra = append(q.extra, "timeout", "0")
				p := s.pollOnce(t, k, q)
				if at = p.cursor; len(p.messages) > 0 || p.gap {
					t.Errorf("%s: got %d messages and gap %t, want none", k.name, len(p.messages), p.gap)
				}
			} else {
				st := s.open(t, k, q)
				at = st.next().id
				next := s.text(t, ch, "new")
				isAll(t, k.name, []event{st.nextMessage()}, next)
				if position(t, at) >= position(t, next[0].id) {
					t.Errorf("%s: open at %s, and the message after it is %s", k.name, at, next[0].id)
				}
			}
			if position(t, at) < position(t, old.id) {
				t.Errorf("%s: now is %s, before the message %s that was acknowledged by then", k.name, at, old.id)
			}
		}
	}
}

// badCursors are not of the form <epoch>-<sequence>.
var badCursors = []string{"x", "-", "-1", "abc-", "abc", "1", "ABC-1", "a_b-1", "a.b-1", "abc-x", "abc-1x", "abc--1", "abc-1-1", "abc-1.5", "abc-01", "abc-00", "abc-+1",
	"abc-0x1", "abc- 1", " abc-1", "abc-1 ", "abc-1\n", "é-1", "Earliest", "NOW", "latest", "now-1x", "abc-9223372036854775808",
	"abc-18446744073709551616", strings.Repeat("a", 17) + "-1", "abc-1\x00", "abc-1,abc-2"}

func cursorMalformed(t tb, s *server) {
	ch := s.channel()
	for _, c := range badCursors {
		problem(t, s.get(t, "/subscribe?"+query("channel", ch, "cursor", c, "timeout", "0")), http.StatusBadRequest)
		problem(t, s.get(t, "/subscribe?"+query("channel", ch, "cursor", c, "transport", "sse")), http.StatusBadRequest)
		for _, name := range []string{"cursor", "until", "before"} {
			problem(t, s.get(t, "/history?"+query("channel", ch, name, c)), http.StatusBadRequest)
		}
	}
	for _, k := range kinds {
		s.refused(t, k, on(ch, "abc"), http.StatusBadRequest)
	}
}

// refused checks that a subscription is refused with the status, in the way of
// its transport.
func (s *server) refused(t tb, k kind, q subscription, status int) {
	t.Helper()
	st := s.connect(t, k, q)
	what := fmt.Sprintf("%s: %s", k.name, q.query(k))
	if st.status == status && k != kindJSONP && k != kindIframe {
		problem(t, &response{what, st.status, st.header, st.whole()}, status)
		return
	}
	var e event
	switch {
	case k == kindJSONP && st.status == http.StatusOK:
		checkHeader(t, what, st.header)
		checkMedia(t, what, st.header, "text/javascript")
		body, err := unwrap(st.whole())
		if err == nil {
			e, err = parseEnvelope(body)
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case k == kindIframe && st.status == http.StatusOK:
		checkHeader(t, what, st.header)
		checkMedia(t, what, st.header, k.media)
		st.reader = &scripts{}
		e = st.next()
		st.whole()
	case k == kindWebSocket && st.status == http.StatusSwitchingProtocols:
		// A browser shows its page no status, so this is as good.
		if e = st.next(); e.control == "open" {
			e = st.next()
		}
	default:
		t.Errorf("%s: got %d %q, want the error %d", what, st.status, clip(st.whole()), status)
		return
	}
	if e.control != "error" || e.Status != status {
		t.Errorf("%s: got %v, want an error control with the status %d", what, e, status)
	}
}

func lastEventIDWins(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two", "three")
	for _, k := range kinds {
		for _, cursor := range []string{want[0].id, "earliest", "now", s.foreign(t)} {
			q := on(ch, cursor)
			q.header = []string{"Last-Event-ID", want[1].id}
			r := s.receive(t, k, 1, q)
			isAll(t, k.name+" with the cursor "+cursor, r.messages, want[2:])
			if r.gap {
				t.Errorf("%s with the cursor %s: a gap", k.name, cursor)
			}
		}
	}
}

func lastEventIDEmpty(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two")
	for _, k := range kinds {
		q := on(ch, want[0].id)
		q.header = []string{"Last-Event-ID", ""}
		r := s.receive(t, k, 1, q)
		isAll(t, k.name, r.messages, want[1:])
		if r.gap {
			t.Errorf("%s: a gap", k.name)
		}
	}
}

// gap checks that a subscription begins with a gap and then has all of want.
func (s *server) gap(t tb, k kind, q subscription, want []*publication) {
	t.Helper()
	r := s.receive(t, k, len(want), q)
	what := fmt.Sprintf("%s from the cursor %q, Last-Event-ID %q", k.name, q.cursor, q.header)
	isAll(t, what, r.messages, want)
	if !r.gap {
		t.Errorf("%s: no gap", what)
		return
	}
	if k.polls {
		return
	}
	if r.gapID != r.open.id {
		t.Errorf("%s: gap at %s after open at %s, want the same id", what, r.gapID, r.open.id)
	}
	if epoch, _, _ := parseCursor(want[0].id); !strings.HasPrefix(r.gapID, epoch+"-") || position(t, r.gapID) >= position(t, want[0].id) {
		t.Errorf("%s: gap at %s, want a position of the present epoch before the first message %s", what, r.gapID, want[0].id)
	}
	// The gap's own position is a good one.
	if again := s.receive(t, k, len(want), subscription{channels: q.channels, cursor: r.gapID}); again.gap {
		t.Errorf("%s: a gap again from the gap's own id %s", what, r.gapID)
	}
}

func lastEventIDMalformed(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two")
	for _, k := range kinds {
		for _, id := range []string{"42", "x", "abc-", "ABC-1", "abc-9223372036854775808"} {
			q := on(ch, want[0].id)
			q.header = []string{"Last-Event-ID", id}
			s.gap(t, k, q, want)
		}
	}
}

func cursorForeign(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two")
	foreign := s.foreign(t)
	for _, k := range kinds {
		s.gap(t, k, on(ch, foreign), want)
		q := on(ch, want[0].id)
		q.header = []string{"Last-Event-ID", foreign}
		s.gap(t, k, q, want)
		epoch, _, _ := strings.Cut(foreign, "-")
		s.gap(t, k, on(ch, epoch+"-0"), want)
		s.gap(t, k, on(ch, epoch+"-9223372036854775807"), want)
	}
	if p := s.history(t, "channel", ch, "cursor", foreign); !p.gap || len(p.messages) != 2 {
		t.Errorf("history: got gap %t and %d messages, want a gap and 2", p.gap, len(p.messages))
	}
}

func cursorBeyond(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two")
	beyond := s.beyond(t)
	for _, k := range kinds {
		s.gap(t, k, on(ch, beyond), want)
	}
	if p := s.history(t, "channel", ch, "cursor", beyond); !p.gap || len(p.messages) != 2 {
		t.Errorf("history: got gap %t and %d messages, want a gap and 2", p.gap, len(p.messages))
	}
}

func cursorPastRetention(t tb, s *server) {
	if s.o.RetainPrefix == "" {
		t.Skipf("no channels are known that keep few messages")
	}
	n := s.o.RetainCount
	ch := s.o.RetainPrefix + "/" + strings.TrimPrefix(s.channel(), "conformance/")
	var texts []string
	for i := range n + 3 {
		texts = append(texts, fmt.Sprint(i))
	}
	all := s.text(t, ch, texts...)
	want := all[3:]
	// A server may remove in its own time.
	for range 50 {
		if len(s.history(t, "channel", ch).messages) <= n {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, k := range kinds {
		s.gap(t, k, on(ch, all[0].id), want)
		s.gap(t, k, on(ch, all[1].id), want)
		// Of the dropped messages it has seen all: nothing is missing.
		r := s.receive(t, k, n, on(ch, all[2].id))
		isAll(t, k.name, r.messages, want)
		if r = s.receive(t, k, n, on(ch, "earliest")); r.gap {
			t.Errorf("%s: a gap from earliest", k.name)
		}
		isAll(t, k.name+" from earliest", r.messages, want)
	}
	p := s.history(t, "channel", ch, "cursor", all[0].id)
	if isAll(t, "history", p.messages, want); !p.gap {
		t.Errorf("history: no gap")
	}
	if p = s.history(t, "channel", ch); !slices.ContainsFunc(p.messages, func(e event) bool { return e.id == all[3].id }) || p.gap {
		t.Errorf("history from earliest: got gap %t and %d messages, want no gap and %d", p.gap, len(p.messages), n)
	}
}
