package conformance

import (
	"bytes"
	"net/http"
	"time"
)

var parameterCases = []testCase{
	{"parameters/malformed-query", "4.6", "A query that cannot be parsed (a broken % escape, a ; that is not escaped) is 400, for every transport", parameterQuery},
	{"parameters/first-value", "1.7", "Where a parameter that has one value is given several times, the first one counts", parameterFirst},
	{"parameters/empty", "1.8", "An empty parameter is as if it were left out", parameterEmpty},
	{"parameters/padding", "8.6", "padding is a decimal number from 0 to 65,536; above that, or not a number, 400", parameterPadding},
	{"parameters/timeout", "9.3", "decimal seconds: digits, and optionally a point and digits. Anything else is 400", parameterTimeout},
}

func parameterQuery(t tb, s *server) {
	ch := query("channel", s.channel())
	for _, bad := range []string{"&x=%zz", "&x=%2", "&x=1;y=2"} {
		problem(t, s.get(t, "/history?"+ch+bad), http.StatusBadRequest)
		problem(t, s.do(t, "POST", "/publish?"+ch+bad, "x", "Content-Type", "text/plain"), http.StatusBadRequest)
		for _, transport := range []string{"long-polling", "sse", "jsonp", "iframe", "multipart"} {
			problem(t, s.get(t, "/subscribe?"+ch+"&callback=cb&transport="+transport+bad), http.StatusBadRequest)
		}
	}
}

func parameterFirst(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two", "three")
	p := s.get(t, "/subscribe?"+query("channel", ch)+"&transport=long-polling&transport=bogus&cursor="+want[0].id+"&cursor=bogus&timeout=0&timeout=x").page(t)
	isAll(t, "subscribe", p.messages, want[1:])
	p = s.get(t, "/history?"+query("channel", ch)+"&limit=1&limit=x&cursor="+want[0].id+"&cursor=bogus").page(t)
	isAll(t, "history", p.messages, want[1:2])
	r := s.do(t, "POST", "/publish?"+query("channel", ch)+"&type=said&type=open", "x", "Content-Type", "text/plain")
	id := s.published(t, r)
	isAll(t, "publish", s.history(t, "channel", ch, "cursor", want[2].id).messages, []*publication{{channel: ch, typ: "said", contentType: "text/plain", data: "x", id: id}})
	// The query's values come before those of the form.
	r = s.do(t, "POST", "/subscribe?"+query("cursor", want[1].id), query("channel", ch, "cursor", want[0].id, "timeout", "0"), "Content-Type", "application/x-www-form-urlencoded")
	if p = r.page(t); len(p.messages) != 2 || p.messages[0].id != want[2].id {
		t.Errorf("POST with a cursor in the query and another in the form: got %s, want what is after the query's", r)
	}
}

func parameterEmpty(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one")
	p := s.get(t, "/subscribe?"+query("channel", ch, "transport", "", "cursor", "earliest", "format", "", "timeout", "", "padding", "", "callback", "", "origin", "", "token", "")).page(t)
	isAll(t, "subscribe", p.messages, want)
	p = s.get(t, "/history?"+query("channel", ch, "cursor", "", "until", "", "before", "", "limit", "")).page(t)
	isAll(t, "history", p.messages, want)
	s.published(t, s.do(t, "POST", "/publish?"+query("channel", ch, "type", ""), "x", "Content-Type", "text/plain"))
	problem(t, s.get(t, "/subscribe?"+query("channel", ch, "channel", "", "timeout", "0")), http.StatusBadRequest)
}

func parameterPadding(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one")
	for _, bad := range []string{"65537", "-1", "x", "1.5", "1e3", "99999999999999999999"} {
		for _, k := range kinds {
			s.refused(t, k, subscription{channels: []string{ch}, extra: []string{"padding", bad, "timeout", "0"}}, http.StatusBadRequest)
		}
	}
	for _, k := range kinds {
		q := on(ch, "earliest")
		q.extra = []string{"padding", "3000"}
		if !k.polls {
			isAll(t, k.name, s.receive(t, k, 1, q).messages, want)
			continue
		}
		// "spaces before the object", "spaces after the /**/".
		r := s.subscribeOnce(t, k, q)
		body := bytes.TrimLeft(bytes.TrimPrefix(r.body, []byte("/**/")), " ")
		if k == kindJSONP {
			body = bytes.TrimSuffix(bytes.TrimPrefix(body, []byte(callback+"(")), []byte(");"))
		}
		p, err := parsePage(body)
		if err != nil || len(r.body) < 3000+len(body) {
			t.Errorf("%s with padding=3000: got %s of %d bytes: %v", k.name, r, len(r.body), err)
		}
		isAll(t, k.name, p.messages, want)
	}
}

func parameterTimeout(t tb, s *server) {
	ch := s.channel()
	for _, bad := range []string{"x", "-1", "1s", "1e1", ".", "1.", ".5", "+1", " 1", "0x1", "NaN", "Inf"} {
		for _, k := range kinds {
			s.refused(t, k, subscription{channels: []string{ch}, extra: []string{"timeout", bad}}, http.StatusBadRequest)
		}
	}
	s.text(t, ch, "one")
	for _, good := range []string{"0", "0.0", "00", "0.000000001", "25", "999999999"} {
		q := on(ch, "earliest")
		q.extra = []string{"timeout", good}
		start := time.Now()
		if p := s.pollOnce(t, kindLongPolling, q); len(p.messages) != 1 || time.Since(start) > patience {
			t.Errorf("timeout=%s: got %d messages after %v, want one at once", good, len(p.messages), time.Since(start))
		}
	}
}
