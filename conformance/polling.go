package conformance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

var longPollingCases = []testCase{
	{"long-polling/body", "9.5", `{"cursor":C,"messages":[envelope,…]}: C is the last message's id`, pollBody},
	{"long-polling/at-once", "9.3", "timeout: 0 answers at once; C is, when there is none, the log's end", pollAtOnce},
	{"long-polling/held", "9.2", "held until there is something or the time is over", pollHeld},
	{"long-polling/held-from-now", "9.6", "A first poll without a cursor is held from now", pollHeldFromNow},
	{"long-polling/wakes", "9.2", "held until there is something", pollWakes},
	{"long-polling/1000-messages", "9.4", "At most 1,000 messages", pollThousand},
	{"long-polling/1-mib", "9.4", "or 1 MiB", pollMebibyte},
	{"long-polling/gap", "9.1", `with "gap":true where one is due`, pollGap},
}

func pollBody(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two", "three")
	p := s.pollOnce(t, kindLongPolling, on(ch, want[0].id))
	isAll(t, "poll", p.messages, want[1:])
	if p.cursor != want[2].id || p.gap {
		t.Errorf("got the cursor %s and gap %t, want %s and none", p.cursor, p.gap, want[2].id)
	}
}

func pollAtOnce(t tb, s *server) {
	ch := s.channel()
	one := s.text(t, ch, "one")[0]
	end := s.text(t, s.channel(), "elsewhere")[0]
	q := on(ch, one.id)
	q.extra = []string{"timeout", "0"}
	start := time.Now()
	p := s.pollOnce(t, kindLongPolling, q)
	if took := time.Since(start); took > patience/2 {
		t.Errorf("took %v", took)
	}
	if len(p.messages) > 0 || position(t, p.cursor) < position(t, end.id) {
		t.Errorf("got %d messages and the cursor %s, want none and the log's end, %s at least", len(p.messages), p.cursor, end.id)
	}
	// That cursor is as good as any.
	two := s.text(t, ch, "two")
	isAll(t, "from the end", s.pollOnce(t, kindLongPolling, on(ch, p.cursor)).messages, two)
}

func pollHeld(t tb, s *server) {
	for _, k := range []kind{kindLongPolling, kindJSONP} {
		q := on(s.channel(), s.end(t))
		q.extra = []string{"timeout", "0.4"}
		start := time.Now()
		p := s.pollOnce(t, k, q)
		if took := time.Since(start); took < 380*time.Millisecond || took > patience/2 || len(p.messages) > 0 || p.gap {
			t.Errorf("%s with timeout=0.4: took %v for %d messages, want 0.4 s and none", k.name, took, len(p.messages))
		}
	}
}

func pollHeldFromNow(t tb, s *server) {
	ch := s.channel()
	s.text(t, ch, "old")
	answered := make(chan *response, 1)
	go func() {
		r, _ := s.send(t.Context(), "GET", "/subscribe?"+query("channel", ch, "timeout", "20"), "")
		answered <- r
	}()
	// Only the server knows when the poll is held: so there is something now
	// and then, until it is answered.
	var published []*publication
	for i := 0; ; i++ {
		select {
		case r := <-answered:
			if r == nil {
				t.Fatalf("no answer")
			}
			p := r.page(t)
			if len(p.messages) == 0 || !slices.ContainsFunc(published, func(want *publication) bool { return p.messages[0].is(want) == nil }) {
				t.Errorf("got %s, want one of the new messages first", r)
			}
			return
		case <-time.After(20 * time.Millisecond):
			published = append(published, s.text(t, ch, fmt.Sprint("new", i))...)
		}
	}
}

func pollWakes(t tb, s *server) {
	for _, k := range []kind{kindLongPolling, kindJSONP} {
		for range 3 {
			ch := s.channel()
			q := on(ch, s.end(t))
			q.extra = []string{"timeout", "30"}
			polled := make(chan error, 1)
			sent := time.Now()
			go func() {
				_, err := s.send(t.Context(), "GET", "/subscribe?"+q.query(k), "")
				polled <- err
			}()
			s.text(t, s.channel(), "elsewhere")
			s.text(t, ch, "wake")
			select {
			case err := <-polled:
				if took := time.Since(sent); err != nil || took > patience {
					t.Errorf("%s: answered after %v: %v", k.name, took, err)
				}
			case <-time.After(patience):
				t.Fatalf("%s: a poll was not answered %v after a message", k.name, patience)
			}
		}
	}
}

func pollThousand(t tb, s *server) {
	ch := s.channel()
	var want []*publication
	for range 2 {
		var b strings.Builder
		var batch []*publication
		for range 600 {
			p := &publication{channel: ch, contentType: "application/json", data: fmt.Sprint(len(want) + len(batch))}
			fmt.Fprintf(&b, `{"channel":%q,"data":%s}`+"\n", ch, p.data)
			batch = append(batch, p)
		}
		r := s.do(t, "POST", "/publish", b.String(), "Content-Type", "application/x-ndjson")
		for i, id := range s.publishedAll(t, r, 600) {
			batch[i].id = id
		}
		want = append(want, batch...)
	}
	for _, k := range []kind{kindLongPolling, kindJSONP} {
		p := s.pollOnce(t, k, on(ch, "earliest"))
		if len(p.messages) == 0 || len(p.messages) > 1000 {
			t.Fatalf("%s: got %d messages, want at most 1,000", k.name, len(p.messages))
		}
		got := p.messages
		for len(got) < len(want) {
			if p = s.pollOnce(t, k, on(ch, p.cursor)); len(p.messages) == 0 {
				break
			}
			got = append(got, p.messages...)
		}
		isAll(t, k.name, got, want)
	}
	for _, k := range []kind{kindXHRStreaming, kindSSERaw} {
		isAll(t, k.name, s.receive(t, k, len(want), on(ch, "earliest")).messages, want)
	}
}

func pollMebibyte(t tb, s *server) {
	ch := s.channel()
	size := min(400<<10, s.o.MaxMessage)
	n := 2<<20/size + 1
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprint(i)+strings.Repeat("x", size-10))
	}
	want := s.text(t, ch, texts...)
	// The message that crosses the bound may be the last of the answer.
	limit := 1<<20 + size
	var got []event
	cursor := "earliest"
	for len(got) < n {
		p := s.pollOnce(t, kindLongPolling, on(ch, cursor))
		sum := 0
		for _, m := range p.messages {
			sum += len(m.Data)
		}
		if sum == 0 || sum > limit {
			t.Fatalf("got %d messages of %d bytes in all, want about 1 MiB at most", len(p.messages), sum)
		}
		got, cursor = append(got, p.messages...), p.cursor
	}
	isAll(t, "polls", got, want)
}

func pollGap(t tb, s *server) {
	ch := s.channel()
	q := on(ch, s.foreign(t))
	q.extra = []string{"timeout", "0"}
	for _, k := range []kind{kindLongPolling, kindJSONP} {
		p := s.pollOnce(t, k, q)
		if !p.gap || len(p.messages) > 0 {
			t.Errorf("%s: got gap %t and %d messages, want a gap and none", k.name, p.gap, len(p.messages))
		}
		next := q
		next.cursor = p.cursor
		if p = s.pollOnce(t, k, next); p.gap {
			t.Errorf("%s: a gap again from the cursor after it", k.name)
		}
	}
}

var jsonpCases = []testCase{
	{"jsonp/body", "10.1", `/**/callback({"cursor":C,"messages":[…]});`, jsonpBody},
	{"jsonp/callback", "10.2", `callback: ^[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*$, at most 64 bytes; else 400`, jsonpCallback},
	{"jsonp/errors", "10.3", `Errors other than the callback's own: 200 and /**/callback({"control":"error",…});`, jsonpErrors},
}

func jsonpBody(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "</script>\u2028")
	r := s.subscribeOnce(t, kindJSONP, on(ch, "earliest"))
	if _, err := unwrap(r.body); err != nil {
		t.Errorf("%v", err)
	}
	isAll(t, "jsonp", s.pollOnce(t, kindJSONP, on(ch, "earliest")).messages, want)
	checkMedia(t, "jsonp", r.header, "text/javascript")
}

var (
	goodCallbacks = []string{"cb", "_", "$", "a.b.c", "jQuery123_456", "$.cb", "A1", strings.Repeat("a", 64)}
	badCallbacks  = []string{"", "1a", "a.", ".a", "a..b", "a-b", "a b", "a(b)", "alert(1)//", "a[0]", "a['b']", "é", "a\u2028b", "a\n", "a;b", "a=b",
		"</script>", "a.1", "a%00", "a\x00", "*/cb/*", strings.Repeat("a", 65)}
)

func jsonpCallback(t tb, s *server) {
	poll := []string{"channel", s.channel(), "transport", "jsonp", "timeout", "0"}
	for _, name := range goodCallbacks {
		r := s.get(t, "/subscribe?"+query(append(poll, "callback", name)...))
		body := string(r.body)
		if r.status != http.StatusOK || !strings.HasPrefix(body, "/**/"+name+"({") || !strings.HasSuffix(body, "});") {
			t.Errorf("callback %q: got %s, want it called", name, r)
		}
	}
	s.badCallbacks(t, "jsonp")
}

func (s *server) badCallbacks(t tb, transport string) {
	t.Helper()
	poll := []string{"channel", s.channel(), "transport", transport, "timeout", "0"}
	for _, name := range badCallbacks {
		problem(t, s.get(t, "/subscribe?"+query(append(poll, "callback", name)...)), http.StatusBadRequest)
	}
	problem(t, s.get(t, "/subscribe?"+query(poll...)), http.StatusBadRequest)
	// Where two things are wrong no error can be shown by such a callback.
	problem(t, s.get(t, "/subscribe?"+query("channel", "a//b", "transport", transport, "callback", "a b")), http.StatusBadRequest)
}

func jsonpErrors(t tb, s *server) {
	ch := s.channel()
	for _, q := range []subscription{
		{}, {channels: []string{"a//b"}}, {channels: []string{ch}, cursor: "malformed"}, {channels: []string{ch}, extra: []string{"format", "raw"}},
	} {
		s.refused(t, kindJSONP, q, http.StatusBadRequest)
	}
}
