package conformance

import (
	"fmt"
	"strings"
	"time"
)

var envelopeCases = []testCase{
	{"envelope/json", "6.3", "data is the JSON value when it was published as JSON (numbers kept as written)", envelopeJSON},
	{"envelope/text", "6.4", "a JSON string when it was text", envelopeText},
	{"envelope/binary", "6.2", "for anything else data64 and contentType stand in its place", envelopeBinary},
	{"envelope/type", "6.2", "type is left out when there is none", envelopeType},
	{"envelope/time", "6.2", "time: Unix ms, never decreasing in the log", envelopeTime},
	{"envelope/same-everywhere", "6.2", "A transport only decides how the same messages are framed", envelopeSameEverywhere},
}

// everywhere checks that messages come as they were published, on every
// transport and in history.
func (s *server) everywhere(t tb, ps ...*publication) {
	t.Helper()
	s.publish(t, ps...)
	for _, k := range kinds {
		isAll(t, k.name, s.receive(t, k, len(ps), on(ps[0].channel, "earliest")).messages, ps)
	}
	isAll(t, "history", s.history(t, "channel", ps[0].channel).messages, ps)
}

func envelopeJSON(t tb, s *server) {
	ch := s.channel()
	var ps []*publication
	for _, data := range []string{
		`{"a":1}`, `[]`, `null`, `true`, `"text"`, `""`, `0`, `-0`, `1.0e5`, `12345678901234567890`, `1.10`, `1E400`, `0.1e-7`,
		`{"n":[1.0,1.00,100000000000000000000.5]}`,
		"{\n  \"pretty\": [\r\n    1,\t2\n  ]\n}", ` "padded" `,
		`"\u003c/script\u003e\u0000\ud83d\ude00 é ` + "\u2028" + `"`, `"</script><!--&"`,
		`{"id":"x-1","channel":"spoof","control":"error"}`,
		`{"a":1,"a":2}`,
	} {
		ps = append(ps, &publication{channel: ch, contentType: "application/json", data: data})
	}
	ps = append(ps, &publication{channel: ch, contentType: "application/json; charset=utf-8", data: `{"b":2.50}`},
		&publication{channel: ch, contentType: "application/ld+json", data: `{"@id":"x"}`},
		&publication{channel: ch, contentType: "application/vnd.api+json", data: `[1.0]`})
	s.publish(t, ps...)
	for _, k := range kinds {
		isAll(t, k.name, s.receive(t, k, len(ps), on(ch, "earliest")).messages, ps)
	}
	isAll(t, "history", s.history(t, "channel", ch).messages, ps)
}

func envelopeText(t tb, s *server) {
	ch := s.channel()
	var ps []*publication
	for _, data := range []string{"", "plain", "{\"not\":\"JSON\"}", "a\nb", "a\rb", "a\r\nb", "\n", "\r", "\r\n\r\n", "end\n", "\nstart", " space ",
		": colon", "data: x\nid: zzz-1\nevent: y\n\n", "</script><script>alert(1)</script>", "<!-- --> ]]> &amp;", "\u2028\u2029\u0085", "\x00\x01\x1f\x7f",
		"\ufeffbom", "é😀", `"quoted" \ back`, strings.Repeat("0123456789", 5000), "\ufffd"} {
		ps = append(ps, &publication{channel: ch, contentType: "text/plain", data: data})
	}
	ps = append(ps, &publication{channel: ch, contentType: "text/markdown; charset=utf-8", data: "*m*"},
		&publication{channel: ch, contentType: "text/html", data: "<b>h</b>"})
	s.everywhere(t, ps...)
}

func envelopeBinary(t tb, s *server) {
	ch := s.channel()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	ps := []*publication{
		{channel: ch, contentType: "image/png", data: "\x89PNG\r\n\x1a\n"},
		{channel: ch, contentType: "application/octet-stream", data: string(all)},
		{channel: ch, data: "\xff\xfe"}, // no content type: application/octet-stream
		{channel: ch, contentType: "audio/ogg; codecs=opus", data: "\xff\x00"},
	}
	s.everywhere(t, ps...)
	// Empty, and valid UTF-8: what sse's raw format makes of the latter is open.
	ch = s.channel()
	ps = []*publication{{channel: ch, contentType: "application/octet-stream"}, {channel: ch, contentType: "application/xml", data: "<x/>"}}
	s.publish(t, ps...)
	isAll(t, "history", s.history(t, "channel", ch).messages, ps)
	isAll(t, "xhr-streaming", s.receive(t, kindXHRStreaming, 2, on(ch, "earliest")).messages, ps)
}

func envelopeType(t tb, s *server) {
	ch := s.channel()
	var ps []*publication
	for _, typ := range []string{"", "said", "a b", "comet", "Open", "message", "x:y", `"</script>`, "<!--", "é😀", strings.Repeat("t", 64), "error:", "data: x"} {
		ps = append(ps, &publication{channel: ch, typ: typ, contentType: "text/plain", data: "x"})
	}
	s.everywhere(t, ps...)
}

func envelopeTime(t tb, s *server) {
	ch := s.channel()
	for range 20 {
		s.text(t, ch, "x")
	}
	var last int64
	for i, m := range s.history(t, "channel", ch).messages {
		if *m.Time < last {
			t.Errorf("message %d has the time %d, the one before it %d", i, *m.Time, last)
		}
		last = *m.Time
	}
	// Milliseconds: a number of another unit is far from these bounds, 2001
	// and 2286.
	if last < 1e12 || last > 1e13 {
		t.Errorf("got the time %d, want Unix milliseconds", last)
	}
}

func envelopeSameEverywhere(t tb, s *server) {
	ch := s.channel()
	ps := []*publication{
		{channel: ch, typ: "a", contentType: "application/json", data: `{"n":1.0e5}`},
		{channel: ch, contentType: "text/plain", data: "two\nlines"},
		{channel: ch, contentType: "image/gif", data: "\xffGIF"},
	}
	s.publish(t, ps...)
	var want []string
	for _, k := range append([]kind{kindLongPolling}, kinds...) {
		if k.format == "raw" {
			continue
		}
		var got []string
		for _, e := range s.receive(t, k, len(ps), on(ch, "earliest")).messages {
			data := fmt.Sprint(literal(e.Data))
			if e.Data64 != nil {
				data = *e.Data64 + *e.ContentType
			}
			got = append(got, fmt.Sprint(e.id, e.Channel, e.typ(), *e.Time, data))
		}
		if want == nil {
			want = got
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: got %q, and from %s %q", k.name, got, kindLongPolling.name, want)
		}
	}
}

var controlCases = []testCase{
	{"controls/open", "7.2", "open opens every stream (heartbeat in seconds, possibly a fraction); id is the position it starts after", controlOpen},
	{"controls/open-at-once", "7.2", "id is not the end of the log: a cut while catching up must lose nothing", controlOpenCatchingUp},
	{"controls/live", "8.8", "One ordered log: what is published while a stream is open comes at once, in order", controlLive},
	{"controls/heartbeat", "7.4", "something is sent at least once in each interval", controlHeartbeat},
	{"controls/heartbeat-moves-on", "7.6", "Its id lets a quiet subscription's cursor move on", controlHeartbeatMoves},
	{"controls/padding", "8.6", "at least so many bytes of body in all before the first message, at most 65,536", controlPadding},
}

func controlOpen(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one")
	for _, k := range streams {
		st := s.open(t, k, on(ch, want[0].id))
		e := st.next()
		if e.control != "open" || e.id != want[0].id {
			t.Errorf("%s: got %v, want open with the id %s", k.name, e, want[0].id)
			continue
		}
		if got := *e.Heartbeat; got != s.heartbeat.Seconds() {
			t.Errorf("%s: got a heartbeat of %v s, and from info %v", k.name, got, s.heartbeat)
		}
	}
}

func controlOpenCatchingUp(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one", "two", "three", "four", "five")
	for _, k := range streams {
		open := s.open(t, k, on(ch, want[0].id)).next()
		isAll(t, k.name+", cut after open", s.receive(t, k, 4, on(ch, open.id)).messages, want[1:])
	}
}

func controlLive(t tb, s *server) {
	ch, other := s.channel(), s.channel()
	var open []*stream
	for _, k := range streams {
		st := s.open(t, k, on(ch, "now"))
		if e := st.next(); e.control != "open" {
			t.Fatalf("%s: got %v, want open", k.name, e)
		}
		open = append(open, st)
	}
	var want []*publication
	for i := range 30 {
		want = append(want, s.text(t, ch, fmt.Sprint(i))...)
		s.text(t, other, "not this")
	}
	for _, st := range open {
		var got []event
		for range want {
			got = append(got, st.nextMessage())
		}
		isAll(t, st.kind.name, got, want)
	}
}

func controlHeartbeat(t tb, s *server) {
	if s.heartbeat <= 0 || s.heartbeat > maxHeartbeat {
		t.Skipf("the server's heartbeat of %v is too long to wait for", s.heartbeat)
	}
	for _, st := range s.quiet(t) {
		last := position(t, st.next().id)
		for range 4 {
			e := st.next()
			if e.control != "heartbeat" || position(t, e.id) < last {
				t.Errorf("%s: got %v, want a heartbeat at %d or later", st.kind.name, e, last)
			}
			last = position(t, e.id)
		}
		if late := st.late(3, s.heartbeat*5/4+50*time.Millisecond); late > 1 {
			t.Errorf("%s: %d of 3 heartbeats came after more than the interval of %v", st.kind.name, late, s.heartbeat)
		}
	}
}

// late counts those of the last n arrivals that came too long after the one
// before. On a busy machine any one may.
func (st *stream) late(n int, most time.Duration) (late int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for i := max(1, len(st.arrived)-n); i < len(st.arrived); i++ {
		if st.arrived[i].Sub(st.arrived[i-1]) > most {
			late++
		}
	}
	return late
}

// quiet opens a stream of each kind to a channel without messages.
func (s *server) quiet(t tb) (all []*stream) {
	t.Helper()
	for _, k := range streams {
		all = append(all, s.open(t, k, on(s.channel(), "now")))
	}
	return all
}

// maxHeartbeat is the longest heartbeat that the suite waits for.
const maxHeartbeat = 2 * time.Second

func controlHeartbeatMoves(t tb, s *server) {
	if s.heartbeat <= 0 || s.heartbeat > maxHeartbeat {
		t.Skipf("the server's heartbeat of %v is too long to wait for", s.heartbeat)
	}
	open := s.quiet(t)
	for _, st := range open {
		st.next()
	}
	elsewhere := s.text(t, s.channel(), "elsewhere")[0]
	// Some may have been on their way; then comes one that knows of it.
	deadline := time.Now().Add(patience)
	for _, st := range open {
		for {
			e := st.next()
			if e.control != "heartbeat" {
				t.Fatalf("%s: got %v, want a heartbeat", st.kind.name, e)
			}
			if position(t, e.id) >= position(t, elsewhere.id) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %v, want it to have moved on to %s", st.kind.name, e, elsewhere.id)
			}
		}
	}
}

func controlPadding(t tb, s *server) {
	ch := s.channel()
	want := s.text(t, ch, "one")
	for _, k := range []kind{kindXHRStreaming, kindSSE, kindSSERaw, kindIframe} {
		for _, n := range []int{1000, 4096, 65536} {
			q := on(ch, "earliest")
			q.extra = []string{"padding", fmt.Sprint(n)}
			r := s.receive(t, k, 1, q)
			isAll(t, k.name, r.messages, want)
			if r.begin < n {
				t.Errorf("%s with padding=%d: the first message begins at byte %d", k.name, n, r.begin)
			}
		}
	}
	if r := s.receive(t, kindIframe, 1, on(ch, "earliest")); r.begin < 2048 {
		t.Errorf("iframe: the first message begins at byte %d, want 2048 or later", r.begin)
	}
}
