package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
)

var iframeCases = []testCase{
	{"iframe/preamble", "11.2", "a preamble that binds _ to the callback or to postMessage, padding as a comment; HTTP/1.1 chunked", iframePreamble},
	{"iframe/escaping", "11.2", `so escaped that no data can leave the script (<, >, &, U+2028, U+2029 as \u….)`, iframeEscaping},
	{"iframe/callback", "10.2", "callback: iframe (required unless origin); else 400", iframeCallback},
	{"iframe/origin", "11.3", "origin: the parent's serialised origin; messages then go by postMessage, also where a callback is given; * and null are 400", iframeOrigin},
	{"iframe/errors", "11.6", "Errors after a valid callback: 200 and an error control", iframeErrors},
}

// preamble returns the bytes of an iframe's response before its first envelope.
func (s *server) preamble(t tb, q subscription) (string, *stream) {
	t.Helper()
	st := s.open(t, kindIframe, q)
	st.next()
	head, _, _ := bytes.Cut(st.got(), []byte("<script>_("))
	return string(head), st
}

func iframePreamble(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one")
	head, st := s.preamble(t, on(ch, "earliest"))
	if !slices.Contains(st.resp.TransferEncoding, "chunked") && st.resp.ProtoMajor == 1 {
		t.Errorf("got Transfer-Encoding %q, want chunked", st.resp.TransferEncoding)
	}
	if _, params, _ := mime.ParseMediaType(st.header.Get("Content-Type")); !strings.EqualFold(params["charset"], "utf-8") {
		t.Errorf("got Content-Type %q, want charset=utf-8", st.header.Get("Content-Type"))
	}
	if !strings.Contains(head, callback) {
		t.Errorf("the preamble %q does not name the callback %s", clip([]byte(head)), callback)
	}
	if !strings.Contains(head, "<!--") || !strings.Contains(head, "-->") {
		t.Errorf("the preamble %q has no comment for padding", clip([]byte(head)))
	}
	isAll(t, "iframe", []event{st.nextMessage()}, want)
}

func iframeEscaping(t tb, s *server) {
	ch := s.channel()
	ps := []*publication{
		{channel: ch, contentType: "text/plain", data: "</script><script>alert(1)</script>"},
		{channel: ch, contentType: "text/plain", data: "<!--<script>"},
		{channel: ch, contentType: "text/plain", data: "a\u2028b\u2029c&amp;]]>"},
		{channel: ch, contentType: "application/json", data: `{"</script>":"<!--","a":"&\u003c` + "\u2028" + `"}`},
		{channel: ch, typ: "</script><img src=x onerror=alert(1)>", contentType: "text/plain", data: `");alert(1);//`},
	}
	s.publish(t, ps...)
	st := s.open(t, kindIframe, on(ch, "earliest"))
	st.next()
	begin := st.pos
	var got []event
	for range ps {
		got = append(got, st.nextMessage())
	}
	isAll(t, "iframe", got, ps)
	// The reader is strict about each; this is about what is between them.
	body := string(st.got()[begin:st.pos])
	if n := strings.Count(body, "<"); n != 2*strings.Count(body, "<script>_(") {
		t.Errorf("got %q, want no < but those of the script tags", clip([]byte(body)))
	}
}

func iframeCallback(t tb, s *server) {
	for _, name := range goodCallbacks {
		q := subscription{channels: []string{s.channel()}, extra: []string{"transport", "iframe", "callback", name}}
		st := s.connect(t, kind{name: "iframe with the callback " + name}, q)
		if st.status != http.StatusOK {
			t.Errorf("callback %q: got %d, want 200", name, st.status)
			continue
		}
		st.wait("the callback's name", func(data []byte, _ error) bool { return bytes.Contains(data, []byte(name)) })
	}
	s.badCallbacks(t, "iframe")
}

func iframeOrigin(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one")
	for _, origin := range []string{"https://app.example.com", "http://localhost:3000", "http://[::1]:8080", "https://app.example.com:8443"} {
		for _, with := range []string{"", callback} {
			extra := []string{"transport", "iframe", "origin", origin}
			if with != "" {
				extra = append(extra, "callback", with)
			}
			st := s.connect(t, kind{name: "iframe"}, subscription{channels: []string{ch}, cursor: "earliest", extra: extra})
			if st.status != http.StatusOK {
				t.Errorf("origin %s, callback %q: got %d, want 200", origin, with, st.status)
				continue
			}
			st.reader = &scripts{}
			st.next()
			isAll(t, "iframe for "+origin, []event{st.nextMessage()}, want)
			head, _, _ := bytes.Cut(st.got(), []byte("<script>_("))
			if !bytes.Contains(head, []byte("postMessage")) || !bytes.Contains(head, []byte(origin)) {
				t.Errorf("origin %s: the preamble %q does not post to it", origin, clip(head))
			}
			if with != "" && bytes.Contains(head, []byte(with)) {
				t.Errorf("origin %s: the preamble %q has the callback, too", origin, clip(head))
			}
		}
	}
	for _, origin := range []string{"*", "null"} {
		for _, with := range []string{"", callback} {
			extra := []string{"channel", ch, "transport", "iframe", "origin", origin}
			if with != "" {
				extra = append(extra, "callback", with)
			}
			r := s.get(t, "/subscribe?"+query(extra...))
			if r.status != http.StatusBadRequest {
				t.Errorf("origin %s: got %s, want 400", origin, r)
			}
		}
	}
	// What is no origin is refused, or at least cannot leave its script.
	for _, origin := range []string{`https://x"</script><script>alert(1)</script>`, "https://x\\\");alert(1)//", "https://x\u2028"} {
		st := s.connect(t, kind{name: "iframe"}, subscription{channels: []string{ch}, cursor: "earliest", extra: []string{"transport", "iframe", "origin", origin}})
		if st.status == http.StatusBadRequest {
			continue
		}
		st.wait("the preamble", func(data []byte, _ error) bool { return bytes.Contains(data, []byte("<script>_(")) })
		if head, _, _ := bytes.Cut(st.got(), []byte("<script>_(")); bytes.Contains(head, []byte(origin)) {
			t.Errorf("origin %q stands in the preamble as it is: %q", origin, clip(head))
		}
	}
}

func iframeErrors(t tb, s *server) {
	ch := s.channel()
	for _, q := range []subscription{
		{}, {channels: []string{"a//b"}}, {channels: []string{ch}, cursor: "malformed"}, {channels: []string{ch}, extra: []string{"format", "raw"}},
	} {
		s.refused(t, kindIframe, q, http.StatusBadRequest)
	}
}

var multipartCases = []testCase{
	{"multipart/raw", "12.6", "nothing until the first message; then --B CRLF Content-Type: T CRLF CRLF data CRLF --B CRLF Content-Type: T CRLF CRLF and so on", multipartRaw},
	{"multipart/raw-no-controls", "12.5", "No ids, no controls, no heartbeat", multipartRawQuiet},
	{"multipart/raw-active-content", "12.7", "HTML and SVG only on channels configured for it", multipartRawActive},
	{"multipart/envelope", "12.3", "each envelope or control a part of application/json with Content-Length, Comet-Id, Comet-Channel; the next --B CRLF follows at once", multipartEnvelope},
	{"multipart/injection", "16.2", "A stranger's content type and channel stay within their header lines", multipartInjection},
}

var kindMultipartRaw = kind{"multipart-raw", "multipart", "raw", "multipart/x-mixed-replace", false}

func (s *server) rawMultipart(t tb, q subscription) (st *stream, boundary string) {
	t.Helper()
	st = s.connect(t, kindMultipartRaw, q)
	if st.status != http.StatusOK {
		t.Fatalf("multipart: got %d %q, want 200", st.status, clip(st.whole()))
	}
	checkHeader(t, "multipart", st.header)
	_, params, err := mime.ParseMediaType(st.header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		t.Fatalf("multipart: got Content-Type %q, want a boundary (%v)", st.header.Get("Content-Type"), err)
	}
	return st, params["boundary"]
}

func multipartRaw(t tb, s *server) {
	ch := s.channel()
	png := func(data string) *publication { return &publication{channel: ch, contentType: "image/png", data: data} }
	ps := []*publication{png("one\r\n--"), png("two"), {channel: ch, contentType: "image/jpeg", data: "three\x00\xff"}, png(""), png("five")}
	s.publish(t, ps[0])
	st, b := s.rawMultipart(t, on(ch, "earliest"))
	announce := func(typ string) string { return "--" + b + "\r\nContent-Type: " + typ + "\r\n\r\n" }
	want := announce("image/png")
	announced := "image/png"
	for i, p := range ps {
		if i > 0 {
			s.publish(t, p) // live, from the second on
		}
		if p.contentType != announced {
			// "another type closes the announced part empty"
			want += "\r\n" + announce(p.contentType)
		}
		want += p.data + "\r\n" + announce(p.contentType)
		announced = p.contentType
		var got []byte
		st.wait("a part and what announces the next", func(data []byte, _ error) bool { got = data; return len(data) >= len(want) })
		if string(got) != want {
			t.Fatalf("after %d messages: got %q\nwant %q", i+1, clip(got), clip([]byte(want)))
		}
	}
}

func multipartRawQuiet(t tb, s *server) {
	ch := s.channel()
	st, b := s.rawMultipart(t, on(ch, s.foreign(t)))
	p := &publication{channel: ch, contentType: "image/png", data: "first"}
	s.publish(t, p)
	want := "--" + b + "\r\nContent-Type: image/png\r\n\r\nfirst\r\n--" + b + "\r\nContent-Type: image/png\r\n\r\n"
	var got []byte
	st.wait("the first part", func(data []byte, _ error) bool { got = data; return len(data) >= len(want) })
	if string(got) != want {
		t.Errorf("got %q, want %q", clip(got), want)
	}
}

func multipartRawActive(t tb, s *server) {
	ch := s.channel()
	st, b := s.rawMultipart(t, on(ch, "now"))
	last := &publication{channel: ch, contentType: "image/png", data: "the last one"}
	s.publish(t,
		&publication{channel: ch, contentType: "text/html", data: "<script>alert(1)</script>"},
		&publication{channel: ch, contentType: "Text/HTML; charset=utf-8", data: "<script>alert(2)</script>"},
		&publication{channel: ch, contentType: "image/svg+xml", data: "<svg onload='alert(3)'/>"})
	// A stream that begins now may miss those, one from the start does not.
	st2, b2 := s.rawMultipart(t, on(ch, "earliest"))
	s.publish(t, last)
	for st, b := range map[*stream]string{st: b, st2: b2} {
		var got []byte
		st.wait("the part that may be shown", func(data []byte, _ error) bool { got = data; return bytes.Contains(data, []byte(last.data)) })
		for part := range strings.SplitSeq(string(got), "--"+b+"\r\n") {
			head, _, _ := strings.Cut(part, "\r\n\r\n")
			for _, active := range []string{"text/html", "image/svg"} {
				if strings.Contains(strings.ToLower(head), active) {
					t.Errorf("got a part with the header %q on a channel that is not configured for it", head)
				}
			}
		}
	}
}

func multipartEnvelope(t tb, s *server) {
	ch := s.channel()
	ps := []*publication{
		{channel: ch, typ: "t", contentType: "application/json", data: `{"é":1}`},
		{channel: ch, contentType: "text/plain", data: "two\r\n--B\r\n"},
		{channel: ch, contentType: "image/png", data: "\xff"},
	}
	s.publish(t, ps...)
	st := s.open(t, kindMultipart, on(ch, s.foreign(t)))
	var controls []string
	var got []event
	for len(got) < len(ps) {
		if e := st.next(); e.control != "" {
			controls = append(controls, e.control)
		} else {
			got = append(got, e)
		}
	}
	isAll(t, "multipart", got, ps)
	if !bytes.HasPrefix(st.got(), []byte("--")) {
		t.Errorf("got %q, want it to begin with a boundary", clip(st.got()))
	}
	if fmt.Sprint(controls) != "[open gap]" {
		t.Errorf("got the controls %q, want open and gap", controls)
	}
}

func multipartInjection(t tb, s *server) {
	ch := s.channel()
	st, _ := s.rawMultipart(t, on(ch, "now"))
	for _, contentType := range []string{"image/png\r\nX-Evil: 1", "image/png\nX-Evil: 1", "image/png\r\n\r\n<b>X-Evil</b>", "image/png; a=\"\r\nX-Evil: 1\""} {
		line, _ := json.Marshal(map[string]string{"channel": ch, "data64": "AAAA", "contentType": contentType})
		// Refused or not: it must do no harm.
		s.do(t, "POST", "/publish", string(line), "Content-Type", "application/x-ndjson")
	}
	s.publish(t, &publication{channel: ch, contentType: "image/png", data: "the last one"})
	var got []byte
	st.wait("the last part", func(data []byte, _ error) bool { got = data; return bytes.Contains(data, []byte("the last one")) })
	if bytes.Contains(got, []byte("X-Evil")) {
		t.Errorf("got %q: a content type left its line", clip(got))
	}
}

var xhrStreamingCases = []testCase{
	{"xhr-streaming/lines", "13.2", `one envelope and \n; empty lines are padding`, xhrLines},
	{"xhr-streaming/post", "8.1", "POST with the same parameters as a form", xhrPost},
}

func xhrLines(t tb, s *server) {
	ch := s.channel()
	ps := []*publication{
		{channel: ch, contentType: "application/json", data: "{\n \"pretty\": 1.0,\r\n \"b\":\t[]\n}\n"},
		{channel: ch, contentType: "text/plain", data: "a\nb\r\nc\u2028d"},
	}
	s.publish(t, ps...)
	q := on(ch, "earliest")
	q.extra = []string{"padding", "3000"}
	st := s.open(t, kindXHRStreaming, q)
	if e := st.next(); e.control != "open" {
		t.Errorf("got %v, want open", e)
	}
	isAll(t, "xhr-streaming", []event{st.nextMessage(), st.nextMessage()}, ps)
	for line := range bytes.SplitSeq(st.got()[:st.pos], []byte("\n")) {
		if len(line) > 0 && !json.Valid(line) {
			t.Errorf("got the line %q, want it empty or JSON", clip(line))
		}
	}
}

func xhrPost(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two")
	q := on(ch, want[0].id)
	q.form = true
	isAll(t, "POST", s.receive(t, kindXHRStreaming, 1, q).messages, want[1:])
}

var sseCases = []testCase{
	{"sse/retry-first", "14.1", "opened by retry: 2000", sseRetry},
	{"sse/raw-lines", "14.4", "data: lines (LF, CR and CRLF all split; empty data is `data: `)", sseRawLines},
	{"sse/raw-order", "14.3", "event: type if any, data: lines, then id: cursor, last", sseRawOrder},
	{"sse/raw-binary", "14.4", "data that is not UTF-8 text goes as base64", sseRawBinary},
	{"sse/envelope", "14.2", "envelope: data: envelope, id:, no event line", sseEnvelope},
	{"sse/controls", "14.5", "In both, controls are event: comet:open, … with the control as data and, where it has one, its id", sseControls},
	{"sse/injection", "6.5", "No message can add a line that is not its own", sseInjection},
}

func sseRetry(t tb, s *server) {
	for _, k := range []kind{kindSSE, kindSSERaw} {
		st := s.open(t, k, on(s.channel(), "now"))
		st.next()
		if line, _, _ := cutLine(st.got()); line != "retry: 2000" {
			t.Errorf("%s: got the first line %q, want retry: 2000", k.name, line)
		}
	}
}

// blocks reads a raw stream's messages as lists of lines.
func (s *server) blocks(t tb, q subscription, n int) [][]string {
	t.Helper()
	st := s.open(t, kindSSERaw, q)
	st.next()
	var all [][]string
	for range n {
		begin := st.pos
		if e := st.next(); e.control != "" {
			t.Fatalf("sse-raw: got %v, want a message", e)
		}
		var lines []string
		for rest := st.got()[begin:st.pos]; ; {
			line, size, ok := cutLine(rest)
			if !ok {
				// The last line's CR has nothing after it yet.
				break
			}
			if rest = rest[size:]; line != "" && line[0] != ':' {
				lines = append(lines, line)
			}
			if len(rest) == 0 {
				break
			}
		}
		all = append(all, lines)
	}
	return all
}

func sseRawLines(t tb, s *server) {
	for data, want := range map[string][]string{
		"":               {""},
		"one":            {"one"},
		"a\nb":           {"a", "b"},
		"a\rb":           {"a", "b"},
		"a\r\nb":         {"a", "b"},
		"a\n\rb":         {"a", "", "b"},
		"\n":             {"", ""},
		"\r\n\r\n":       {"", "", ""},
		"end\n":          {"end", ""},
		" leading":       {" leading"},
		":not a comment": {":not a comment"},
		"a\u2028b\x0bc":  {"a\u2028b\x0bc"},
	} {
		ch := s.channel()
		p := s.text(t, ch, data)[0]
		var lines []string
		for _, line := range want {
			lines = append(lines, "data: "+line)
		}
		lines = append(lines, "id: "+p.id)
		if got := s.blocks(t, on(ch, "earliest"), 1)[0]; !slices.Equal(got, lines) {
			t.Errorf("%q: got the lines %q, want %q", data, got, lines)
		}
	}
}

func sseRawOrder(t tb, s *server) {
	ch := s.channel()
	p := &publication{channel: ch, typ: "said", contentType: "application/json", data: "{\n\"a\": 1.0}"}
	s.publish(t, p)
	want := []string{"event: said", "data: {", `data: "a": 1.0}`, "id: " + p.id}
	if got := s.blocks(t, on(ch, "earliest"), 1)[0]; !slices.Equal(got, want) {
		t.Errorf("got the lines %q, want %q", got, want)
	}
}

func sseRawBinary(t tb, s *server) {
	ch := s.channel()
	p := &publication{channel: ch, contentType: "image/png", data: "\xff\x00\n\r"}
	s.publish(t, p)
	want := []string{"data: /wAKDQ==", "id: " + p.id}
	if got := s.blocks(t, on(ch, "earliest"), 1)[0]; !slices.Equal(got, want) {
		t.Errorf("got the lines %q, want %q", got, want)
	}
}

func sseEnvelope(t tb, s *server) {
	ch := s.channel()
	ps := []*publication{
		{channel: ch, typ: "said", contentType: "application/json", data: "{\n\"a\": 1.0}"},
		{channel: ch, contentType: "text/plain", data: "a\r\nb\rc\n"},
		{channel: ch, contentType: "image/png", data: "\xff"},
	}
	s.publish(t, ps...)
	isAll(t, "sse", s.receive(t, kindSSE, 3, on(ch, "earliest")).messages, ps)
}

func sseControls(t tb, s *server) {
	ch := s.channel()
	s.text(t, ch, "one")
	for _, k := range []kind{kindSSE, kindSSERaw} {
		// The reader checks that the event, the data and the id are of one control.
		st := s.open(t, k, on(ch, s.foreign(t)))
		if e := st.next(); e.control != "open" {
			t.Errorf("%s: got %v, want open", k.name, e)
		}
		if e := st.next(); e.control != "gap" {
			t.Errorf("%s: got %v, want gap", k.name, e)
		}
		for _, want := range []string{"event: comet:open", "event: comet:gap"} {
			if !bytes.Contains(st.got(), []byte(want)) {
				t.Errorf("%s: got %q, want the line %q", k.name, clip(st.got()), want)
			}
		}
	}
}

func sseInjection(t tb, s *server) {
	ch := s.channel()
	for _, typ := range []string{"a\nid: zzz-9", "a\rdata: evil", "a\r\n\r\nevent: comet:error"} {
		problem(t, s.do(t, "POST", "/publish?"+query("channel", ch, "type", typ), "x", "Content-Type", "text/plain"), http.StatusBadRequest)
	}
	want := s.text(t, ch, "x\n\nid: zzz-9\nevent: comet:error\ndata: evil\n\n", "x\r\rretry: 99999999\r\r", "after")
	for _, k := range []kind{kindSSE, kindSSERaw} {
		isAll(t, k.name, s.receive(t, k, 3, on(ch, "earliest")).messages, want)
	}
}
