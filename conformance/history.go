package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

var historyCases = []testCase{
	{"history/ascending", "17.4", "cursor (default earliest), ascending, limit", historyAscending},
	{"history/default-limit", "17.1", "limit 100 by default and 1,000 at most", historyLimit},
	{"history/until", "17.1", "until=C stops at C, inclusive", historyUntil},
	{"history/before", "17.5", "before=C gives the newest limit messages before C, exclusive, still in ascending order; cursor is the first message's id, to be the next before", historyBefore},
	{"history/bounds", "17.7", "limit: more than 1,000 is taken for 1,000; 0, or not a decimal number, is 400; until and before take now (everything) and earliest (nothing)", historyBounds},
	{"history/empty", "17.4", "long-polling's body …, never held: C is, when there is none, the log's end", historyEmpty},
	{"history/several-channels", "17.1", "Patterns (subscribing, history and rights only)", historySeveral},
}

func (s *server) page(t tb, pairs ...string) page {
	t.Helper()
	p := s.get(t, "/history?"+query(pairs...)).page(t)
	if p.more == nil {
		t.Fatalf("history: no member more")
	}
	return p
}

func numbered(n int) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprint(i))
	}
	return texts
}

func historyAscending(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, numbered(7)...)
	cursor := "earliest"
	for at := 0; at < 7; at += 3 {
		p := s.page(t, "channel", ch, "cursor", cursor, "limit", "3")
		to := min(7, at+3)
		isAll(t, "from "+cursor, p.messages, want[at:to])
		// The last page may have read on past its last message.
		if p.cursor != want[to-1].id && (to < 7 || position(t, p.cursor) < position(t, want[to-1].id)) || *p.more != (to < 7) || p.gap {
			t.Errorf("from %s: got the cursor %s, more %t, gap %t; want %s, %t and no gap", cursor, p.cursor, *p.more, p.gap, want[to-1].id, to < 7)
		}
		cursor = p.cursor
	}
	eighth := s.text(t, ch, "eighth")
	isAll(t, "from the last page's cursor", s.page(t, "channel", ch, "cursor", cursor).messages, eighth)
	want = append(want, eighth...)
	isAll(t, "without a cursor", s.page(t, "channel", ch).messages, want)
	// A page that is full and the last.
	if p := s.page(t, "channel", ch, "limit", "8"); *p.more {
		t.Errorf("all 8 of 8: got more")
	}
	isAll(t, "after the last", s.page(t, "channel", ch, "cursor", want[7].id).messages, nil)
}

func historyLimit(t tb, s *server) {
	ch := s.channel()
	var body []byte
	for i := range 150 {
		body = fmt.Appendf(body, `{"channel":%q,"data":%d}`+"\n", ch, i)
	}
	s.publishedAll(t, s.batch(t, "", string(body)), 150)
	if p := s.page(t, "channel", ch); len(p.messages) != 100 || !*p.more {
		t.Errorf("without a limit: got %d messages and more %t, want 100 and more", len(p.messages), *p.more)
	}
	if p := s.page(t, "channel", ch, "limit", "1000"); len(p.messages) != 150 || *p.more {
		t.Errorf("with limit=1000: got %d messages and more %t, want 150 and no more", len(p.messages), *p.more)
	}
	if p := s.page(t, "channel", ch, "before", s.end(t)); len(p.messages) != 100 || !*p.more {
		t.Errorf("backwards without a limit: got %d messages and more %t, want 100 and more", len(p.messages), *p.more)
	}
}

func historyUntil(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, numbered(5)...)
	isAll(t, "until", s.page(t, "channel", ch, "until", want[2].id).messages, want[:3])
	isAll(t, "cursor and until", s.page(t, "channel", ch, "cursor", want[0].id, "until", want[3].id).messages, want[1:4])
	isAll(t, "an empty range", s.page(t, "channel", ch, "cursor", want[2].id, "until", want[2].id).messages, nil)
	// A page of the channel until a position of another one.
	other := s.text(t, s.channel(), "x")[0]
	isAll(t, "until another channel's", s.page(t, "channel", ch, "until", other.id).messages, want)
}

func historyBefore(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, numbered(7)...)
	before := s.text(t, s.channel(), "later")[0].id
	for to := 7; to > 0; to -= 3 {
		from := max(0, to-3)
		p := s.page(t, "channel", ch, "before", before, "limit", "3")
		isAll(t, "before "+before, p.messages, want[from:to])
		if p.cursor != want[from].id || *p.more != (from > 0) {
			t.Errorf("before %s: got the cursor %s and more %t, want %s and %t", before, p.cursor, *p.more, want[from].id, from > 0)
		}
		before = p.cursor
	}
	if p := s.page(t, "channel", ch, "before", want[0].id); len(p.messages) > 0 || *p.more {
		t.Errorf("before the first: got %d messages and more %t", len(p.messages), *p.more)
	}
	isAll(t, "exclusive", s.page(t, "channel", ch, "before", want[3].id).messages, want[:3])
}

func historyBounds(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, numbered(3)...)
	for _, bad := range []string{"0", "-1", "x", "1.5", "99999999999"} {
		problem(t, s.get(t, "/history?"+query("channel", ch, "limit", bad)), http.StatusBadRequest)
	}
	isAll(t, "limit=5000", s.page(t, "channel", ch, "limit", "5000").messages, want)
	for _, name := range []string{"until", "before"} {
		isAll(t, name+"=now", s.page(t, "channel", ch, name, "now").messages, want)
		isAll(t, name+"=earliest", s.page(t, "channel", ch, name, "earliest").messages, nil)
		beyond := s.page(t, "channel", ch, name, s.beyond(t))
		if isAll(t, name+" beyond the end", beyond.messages, want); beyond.gap {
			t.Errorf("%s beyond the end: a gap", name)
		}
		foreign := s.page(t, "channel", ch, name, s.foreign(t))
		if isAll(t, name+" of another epoch", foreign.messages, want); !foreign.gap {
			t.Errorf("%s of another epoch: no gap", name)
		}
	}
	isAll(t, "cursor=now", s.page(t, "channel", ch, "cursor", "now").messages, nil)
	isAll(t, "both", s.page(t, "channel", ch, "until", want[1].id, "before", want[1].id).messages, want[:1])
	isAll(t, "before, from a cursor", s.page(t, "channel", ch, "cursor", want[0].id, "before", want[2].id).messages, want[1:2])
}

func historyEmpty(t tb, s *server) {
	elsewhere := s.text(t, s.channel(), "x")[0]
	ch := s.channel()
	p := s.page(t, "channel", ch)
	if len(p.messages) > 0 || *p.more || p.gap || position(t, p.cursor) < position(t, elsewhere.id) {
		t.Errorf("got %d messages, more %t, gap %t and the cursor %s; want none and the log's end, %s at least", len(p.messages), *p.more, p.gap, p.cursor, elsewhere.id)
	}
	next := s.text(t, ch, "next")
	isAll(t, "from there", s.page(t, "channel", ch, "cursor", p.cursor).messages, next)
	problem(t, s.get(t, "/history"), http.StatusBadRequest)
}

func historySeveral(t tb, s *server) {
	a, b := s.channel(), s.channel()
	var want []*publication
	for i := range 3 {
		want = append(want, s.text(t, a, fmt.Sprint("a", i))...)
		want = append(want, s.text(t, b+"/x", fmt.Sprint("b", i))...)
		s.text(t, b, "not this")
	}
	isAll(t, "two channels", s.page(t, "channel", a, "channel", b+"/*").messages, want)
	p := s.page(t, "channel", a, "channel", b+"/**", "limit", "4")
	isAll(t, "a part", p.messages, want[:4])
	isAll(t, "backwards", s.page(t, "channel", a, "channel", b+"/**", "before", want[5].id, "limit", "2").messages, want[3:5])
}

var infoCases = []testCase{
	{"info/members", "18.1", `{"protocol":1,"version":…,"transports":[…],"heartbeat":25,"hosts":[…],"cursor":C}`, infoMembers},
	{"info/cursor", "18.2", "the cursor is the log's end now, for a page that renders a snapshot and then subscribes from it", infoCursor},
	{"info/client.js", "4.9", "GET /comet/client.js and client.mjs: the browser client, which is asked for again at each use, or 404", infoClient},
}

func infoMembers(t tb, s *server) {
	r := s.get(t, "/info")
	checkMedia(t, "info", r.header, "application/json")
	var info struct {
		Protocol   any
		Version    any
		Transports []string
		Heartbeat  any
		Hosts      []string
		Cursor     string
	}
	if err := json.Unmarshal(r.body, &info); err != nil {
		t.Fatalf("got %s: %v", r, err)
	}
	if info.Protocol != 1.0 {
		t.Errorf("got %s, want the protocol 1", r)
	}
	if v, ok := info.Version.(string); !ok || v == "" {
		t.Errorf("got %s, want a version", r)
	}
	if h, ok := info.Heartbeat.(float64); !ok || h <= 0 {
		t.Errorf("got %s, want a heartbeat above 0", r)
	}
	if info.Hosts == nil {
		t.Errorf("got %s, want a list of hosts", r)
	}
	for _, k := range kinds {
		if !slices.Contains(info.Transports, k.transport) {
			t.Errorf("got %s, want the transport %s", r, k.transport)
		}
	}
	position(t, info.Cursor)
}

func infoCursor(t tb, s *server) {
	ch := s.channel()
	one := s.text(t, ch, "one")[0]
	end := s.end(t)
	if position(t, end) < position(t, one.id) {
		t.Errorf("got the cursor %s, before the message %s", end, one.id)
	}
	two := s.text(t, ch, "two")
	if position(t, end) >= position(t, two[0].id) {
		t.Errorf("got the cursor %s, and the next message was %s", end, two[0].id)
	}
	for _, k := range kinds {
		isAll(t, k.name, s.receive(t, k, 1, on(ch, end)).messages, two)
	}
}

func infoClient(t tb, s *server) {
	for _, path := range []string{"/client.js", "/client.mjs"} {
		r, err := s.send(t.Context(), "GET", path, "")
		if err != nil {
			t.Fatalf("GET %s: %v", path, err)
		}
		if r.status == http.StatusNotFound {
			t.Skipf("the server has no browser client: %s", r)
		}
		if r.status != http.StatusOK || len(r.body) == 0 {
			t.Errorf("got %s, want 200 and a script", r)
		}
		checkMedia(t, path, r.header, "text/javascript")
		checkCommonHeader(t, path, r.header)
		if !hasToken(r.header, "Cache-Control", "no-cache") || hasToken(r.header, "Cache-Control", "no-store") {
			t.Errorf("%s: got Cache-Control %q, want no-cache", path, r.header.Values("Cache-Control"))
		}
		again, err := s.send(t.Context(), "GET", path, "", "If-None-Match", r.header.Get("ETag"))
		if err != nil {
			t.Fatalf("GET %s: %v", path, err)
		}
		if again.status != http.StatusNotModified || len(again.body) > 0 {
			t.Errorf("with the ETag %q: got %s, want 304", r.header.Get("ETag"), again)
		}
	}
}
