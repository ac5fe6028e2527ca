package conformance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

var publishCases = []testCase{
	{"publish/answer", "16.5", `200 {"id":C} for one channel`, publishAnswer},
	{"publish/several-channels", "16.5", `{"ids":[…]} for several (in the order of the parameters, repeats collapsed)`, publishSeveral},
	{"publish/content-types", "16.3", "application/json and +json must parse (else 400); text/* must be UTF-8 (else 400); no content type: application/octet-stream", publishContentTypes},
	{"publish/type", "6.5", "type is 1–64 bytes without control characters, not starting with comet:, not open or error", publishType},
	{"publish/no-channel", "16.1", "Publish: ?channel=… is required", publishNoChannel},
	{"publish/form", "16.6", "application/x-www-form-urlencoded with channel, type, data: for a plain HTML form", publishForm},
	{"publish/form-without-data", "16.6", "without data 400, and the detail says how to send JSON with curl", publishFormWithoutData},
	{"publish/content-encoding", "16.4", "A Content-Encoding other than identity is 415", publishEncoding},
	{"publish/limits", "20.1", "A message's data is at most 1 MiB by default, a body 16 MiB (413)", publishLimits},
	{"publish/acknowledged-means-kept", "16.5", "A publish answered 200 is in the log", publishKept},
}

func publishAnswer(t tb, s *server) {
	ch := s.channel()
	r := s.do(t, "POST", "/publish?"+query("channel", ch, "type", "said"), `{"a":1}`, "Content-Type", "application/json")
	id := s.published(t, r)
	position(t, id)
	isAll(t, "history", s.history(t, "channel", ch).messages, []*publication{{channel: ch, typ: "said", contentType: "application/json", data: `{"a":1}`, id: id}})
}

func publishSeveral(t tb, s *server) {
	a, b, c := s.channel(), s.channel(), s.channel()
	// Not in the order of the alphabet.
	r := s.do(t, "POST", "/publish?"+query("channel", c, "channel", a, "channel", c, "channel", b, "channel", a), "x", "Content-Type", "text/plain")
	ids := s.publishedAll(t, r, 3)
	// One channel is one channel, however often it is given.
	once := s.channel()
	s.published(t, s.do(t, "POST", "/publish?"+query("channel", once, "channel", once), "x", "Content-Type", "text/plain"))
	for i, ch := range []string{c, a, b} {
		isAll(t, ch, s.history(t, "channel", ch).messages, []*publication{{channel: ch, contentType: "text/plain", data: "x", id: ids[i]}})
		if i > 0 && position(t, ids[i]) <= position(t, ids[i-1]) {
			t.Errorf("got the ids %q, want them ascending", ids)
		}
	}
}

func publishContentTypes(t tb, s *server) {
	ch := s.channel()
	publish := func(data string, header ...string) *response {
		return s.do(t, "POST", "/publish?"+query("channel", ch), data, header...)
	}
	for _, data := range []string{"", "{", `{"a":}`, "nope", "1 2", `{"a":1}x`, "'x'", "NaN", "01", "\xff", "\"\xff\""} {
		problem(t, publish(data, "Content-Type", "application/json"), http.StatusBadRequest)
	}
	problem(t, publish("{", "Content-Type", "application/ld+json"), http.StatusBadRequest)
	problem(t, publish("{", "Content-Type", "application/json; charset=utf-8"), http.StatusBadRequest)
	problem(t, publish("\xff", "Content-Type", "text/plain"), http.StatusBadRequest)
	problem(t, publish("a\xc3", "Content-Type", "text/html; charset=utf-8"), http.StatusBadRequest)
	problem(t, publish("\xed\xa0\x80", "Content-Type", "text/plain"), http.StatusBadRequest) // a surrogate
	if n := len(s.history(t, "channel", ch).messages); n > 0 {
		t.Errorf("%d messages that were refused are in the log", n)
	}
	id := s.published(t, publish("\xff"))
	isAll(t, "without a content type", s.history(t, "channel", ch).messages, []*publication{{channel: ch, contentType: "application/octet-stream", data: "\xff", id: id}})
}

func publishType(t tb, s *server) {
	ch := s.channel()
	for _, typ := range []string{strings.Repeat("t", 65), strings.Repeat("é", 33), "a\nb", "a\x00", "\x7f", "\t", "a\u0085b", "comet:", "comet:open", "open", "error"} {
		problem(t, s.do(t, "POST", "/publish?"+query("channel", ch, "type", typ), "x", "Content-Type", "text/plain"), http.StatusBadRequest)
		line, _ := json.Marshal(map[string]string{"channel": ch, "type": typ, "data": "x"})
		problem(t, s.do(t, "POST", "/publish", string(line), "Content-Type", "application/x-ndjson"), http.StatusBadRequest)
		form := query("channel", ch, "type", typ, "data", "x")
		problem(t, s.do(t, "POST", "/publish", form, "Content-Type", "application/x-www-form-urlencoded"), http.StatusBadRequest)
	}
	if n := len(s.history(t, "channel", ch).messages); n > 0 {
		t.Errorf("%d messages that were refused are in the log", n)
	}
	for _, typ := range []string{strings.Repeat("é", 32), "Comet:x", "openx", "Error"} {
		s.publish(t, &publication{channel: ch, typ: typ, contentType: "text/plain", data: "x"})
	}
}

func publishNoChannel(t tb, s *server) {
	problem(t, s.do(t, "POST", "/publish", "x", "Content-Type", "text/plain"), http.StatusBadRequest)
	problem(t, s.do(t, "POST", "/publish?channel=", "x", "Content-Type", "text/plain"), http.StatusBadRequest)
	problem(t, s.do(t, "POST", "/publish", query("data", "x"), "Content-Type", "application/x-www-form-urlencoded"), http.StatusBadRequest)
}

func publishForm(t tb, s *server) {
	ch := s.channel()
	r := s.do(t, "POST", "/publish", query("channel", ch, "type", "said", "data", "a & b\r\n+é"), "Content-Type", "application/x-www-form-urlencoded")
	id := s.published(t, r)
	isAll(t, "history", s.history(t, "channel", ch).messages, []*publication{{channel: ch, typ: "said", contentType: "text/plain", data: "a & b\r\n+é", id: id}})
	a, b := s.channel(), s.channel()
	r = s.do(t, "POST", "/publish", query("channel", a, "channel", b, "data", ""), "Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	s.publishedAll(t, r, 2)
	if p := s.history(t, "channel", b); len(p.messages) != 1 || string(p.messages[0].Data) != `""` {
		t.Errorf("empty data: got %v, want one empty text", p.messages)
	}
}

func publishFormWithoutData(t tb, s *server) {
	ch := s.channel()
	// What curl -d '{"a":1}' sends.
	for _, body := range []string{`{"a":1}`, "", query("channel", ch)} {
		r := s.do(t, "POST", "/publish?"+query("channel", ch), body, "Content-Type", "application/x-www-form-urlencoded")
		if p := problem(t, r, http.StatusBadRequest); p != nil {
			if detail, _ := p["detail"].(string); !strings.Contains(detail, "curl") || !strings.Contains(detail, "application/json") {
				t.Errorf("got %s, want a detail that says how to send JSON with curl", r)
			}
		}
	}
	if n := len(s.history(t, "channel", ch).messages); n > 0 {
		t.Errorf("%d messages that were refused are in the log", n)
	}
}

func publishEncoding(t tb, s *server) {
	ch := s.channel()
	for _, encoding := range []string{"gzip", "br", "identity, gzip"} {
		r := s.do(t, "POST", "/publish?"+query("channel", ch), "x", "Content-Type", "text/plain", "Content-Encoding", encoding)
		problem(t, r, http.StatusUnsupportedMediaType)
	}
	s.published(t, s.do(t, "POST", "/publish?"+query("channel", ch), "x", "Content-Type", "text/plain", "Content-Encoding", "identity"))
}

func publishLimits(t tb, s *server) {
	ch := s.channel()
	whole := &publication{channel: ch, contentType: "text/plain", data: strings.Repeat("x", s.o.MaxMessage)}
	s.publish(t, whole)
	isAll(t, "the largest message", s.receive(t, kindXHRStreaming, 1, on(ch, "earliest")).messages, []*publication{whole})
	isAll(t, "the largest message", s.receive(t, kindLongPolling, 1, on(ch, "earliest")).messages, []*publication{whole})
	problem(t, s.do(t, "POST", "/publish?"+query("channel", ch), whole.data+"x", "Content-Type", "text/plain"), http.StatusRequestEntityTooLarge)
	problem(t, s.do(t, "POST", "/publish?"+query("channel", ch), whole.data+"\xff", "Content-Type", "image/png"), http.StatusRequestEntityTooLarge)
	line, _ := json.Marshal(map[string]string{"channel": ch, "data": whole.data + "x"})
	problem(t, s.do(t, "POST", "/publish", string(line), "Content-Type", "application/x-ndjson"), http.StatusRequestEntityTooLarge)
	if n := len(s.history(t, "channel", ch).messages); n != 1 {
		t.Errorf("got %d messages in the log, want 1", n)
	}
	// A body over the limit, in lines that are not.
	blank := strings.Repeat("\n", s.o.MaxBody+1)
	r, err := s.send(t.Context(), "POST", "/publish", blank, "Content-Type", "application/x-ndjson")
	if err != nil {
		// A server may close the connection before it has read all.
		t.Skipf("the answer to a body of %d bytes was lost: %v", len(blank), err)
	}
	problem(t, r, http.StatusRequestEntityTooLarge)
}

func publishKept(t tb, s *server) {
	ch := s.channel()
	var mu sync.Mutex
	ids := map[string]string{}
	var publishing sync.WaitGroup
	for i := range 8 {
		publishing.Go(func() {
			for j := range 25 {
				data := fmt.Sprintf("%d.%d", i, j)
				r, err := s.send(t.Context(), "POST", "/publish?"+query("channel", ch), data, "Content-Type", "text/plain")
				var a struct{ ID string }
				if err == nil {
					json.Unmarshal(r.body, &a)
				}
				mu.Lock()
				ids[a.ID] = data
				mu.Unlock()
			}
		})
	}
	publishing.Wait()
	messages := s.history(t, "channel", ch).messages
	var last uint64
	for _, m := range messages {
		var data string
		json.Unmarshal(m.Data, &data)
		if ids[m.id] != data {
			t.Errorf("got the message %v, acknowledged as %q", m, ids[m.id])
		}
		if seq := position(t, m.id); seq <= last {
			t.Errorf("got the id %s after the position %d", m.id, last)
		} else {
			last = seq
		}
	}
	if len(messages) != 200 || len(ids) != 200 {
		t.Errorf("got %d messages and %d acknowledgements, want 200", len(messages), len(ids))
	}
}

var batchCases = []testCase{
	{"batch/lines", "16.8", `lines {"channel":…,"type":…,"data":…} (or data64 with contentType; a string is text/plain, anything else JSON)`, batchLines},
	{"batch/blank-lines", "16.7", "blank lines are skipped, an empty batch is 400", batchBlank},
	{"batch/default-channel", "16.8", "a line without channel takes the query's single one", batchDefaultChannel},
	{"batch/whole-or-not-at-all", "16.9", "It is published whole or, with an error whose line counts from 1, not at all", batchAtomic},
	{"batch/1000-lines", "16.9", "a batch of at most 1,000 lines", batchThousand},
}

// batch publishes lines and returns the answer.
func (s *server) batch(t tb, path, lines string) *response {
	t.Helper()
	return s.do(t, "POST", "/publish"+path, lines, "Content-Type", "application/x-ndjson")
}

func batchLines(t tb, s *server) {
	ch := s.channel()
	var ps []*publication
	var body strings.Builder
	for _, c := range []struct{ line, typ, contentType, data string }{
		{`"data":"text","type":"said"`, "said", "text/plain", "text"},
		{`"data":""`, "", "text/plain", ""},
		{`"data":"\u003c\n\ud83d\ude00"`, "", "text/plain", "<\n😀"},
		{`"data":{"n":1.0e5}`, "", "application/json", `{"n":1.0e5}`},
		{`"data":null`, "", "application/json", `null`},
		{`"data":12345678901234567890`, "", "application/json", `12345678901234567890`},
		{`"data":[ 1 , 2.50 ]`, "", "application/json", `[1,2.50]`},
		{`"data":false`, "", "application/json", `false`},
		{`"data64":"` + base64.StdEncoding.EncodeToString([]byte("\xff\x00")) + `","contentType":"image/png"`, "", "image/png", "\xff\x00"},
		{`"data64":"InN0cmluZyI=","contentType":"application/json"`, "", "application/json", `"string"`},
		{`"data64":"PGI+","contentType":"text/html"`, "", "text/html", "<b>"},
		{`"data64":"","contentType":"application/octet-stream"`, "", "application/octet-stream", ""},
	} {
		fmt.Fprintf(&body, `{"channel":%q,%s}`+"\n", ch, c.line)
		ps = append(ps, &publication{channel: ch, typ: c.typ, contentType: c.contentType, data: c.data})
	}
	r := s.batch(t, "", strings.TrimSuffix(body.String(), "\n"))
	for i, id := range s.publishedAll(t, r, len(ps)) {
		ps[i].id = id
	}
	isAll(t, "history", s.history(t, "channel", ch).messages, ps)
	isAll(t, "sse", s.receive(t, kindSSE, len(ps), on(ch, "earliest")).messages, ps)
	// "for every batch": also for one of a single line.
	s.publishedAll(t, s.batch(t, "", fmt.Sprintf(`{"channel":%q,"data":1}`, ch)), 1)
}

func batchBlank(t tb, s *server) {
	ch := s.channel()
	line := fmt.Sprintf(`{"channel":%q,"data":1}`, ch)
	s.publishedAll(t, s.batch(t, "", "\n\n"+line+"\n\r\n"+line+"\r\n  \n\n"+line), 3)
	for _, body := range []string{"", "\n", "\n\r\n\n"} {
		problem(t, s.batch(t, "", body), http.StatusBadRequest)
	}
}

func batchDefaultChannel(t tb, s *server) {
	a, b := s.channel(), s.channel()
	s.publishedAll(t, s.batch(t, "?"+query("channel", a), fmt.Sprintf(`{"data":1}`+"\n"+`{"channel":%q,"data":2}`+"\n"+`{"data":3}`, b)), 3)
	if n := len(s.history(t, "channel", a).messages); n != 2 {
		t.Errorf("got %d messages in the query's channel, want 2", n)
	}
	if n := len(s.history(t, "channel", b).messages); n != 1 {
		t.Errorf("got %d messages in the line's channel, want 1", n)
	}
	s.lineProblem(t, s.batch(t, "", `{"data":1}`), 1)
	s.lineProblem(t, s.batch(t, "?"+query("channel", a, "channel", b), `{"data":1}`), 1)
}

// lineProblem checks that a batch was refused for a line.
func (s *server) lineProblem(t tb, r *response, line int) {
	t.Helper()
	if p := problem(t, r, http.StatusBadRequest); p != nil && p["line"] != float64(line) {
		t.Errorf("got %s, want the member line to be %d", r, line)
	}
}

func batchAtomic(t tb, s *server) {
	ch := s.channel()
	good := fmt.Sprintf(`{"channel":%q,"data":"good"}`, ch)
	for _, bad := range []string{
		`{`, `x`, `[]`, `5`, `"text"`, `{"channel":"a//b","data":1}`, `{"channel":"a/*","data":1}`, `{"channel":5,"data":1}`,
		fmt.Sprintf(`{"channel":%q,"type":"comet:x","data":1}`, ch), fmt.Sprintf(`{"channel":%q,"type":"open","data":1}`, ch),
		fmt.Sprintf(`{"channel":%q,"data64":"?","contentType":"image/png"}`, ch),
		fmt.Sprintf(`{"channel":%q,"data64":"ew==","contentType":"application/json"}`, ch),
		fmt.Sprintf(`{"channel":%q,"data64":"/w==","contentType":"text/plain"}`, ch),
		good + good,
	} {
		s.lineProblem(t, s.batch(t, "", good+"\n"+good+"\n"+bad+"\n"+good), 3)
		s.lineProblem(t, s.batch(t, "", bad+"\n"+good), 1)
	}
	if n := len(s.history(t, "channel", ch).messages); n > 0 {
		t.Errorf("%d messages of batches that were refused are in the log", n)
	}
}

func batchThousand(t tb, s *server) {
	ch := s.channel()
	line := fmt.Sprintf(`{"channel":%q,"data":1}`+"\n", ch)
	problem(t, s.batch(t, "", strings.Repeat(line, 1001)), http.StatusRequestEntityTooLarge)
	if n := len(s.history(t, "channel", ch).messages); n > 0 {
		t.Errorf("%d messages of a batch that was refused are in the log", n)
	}
	ids := s.publishedAll(t, s.batch(t, "", strings.Repeat(line, 1000)), 1000)
	for i, m := range s.history(t, "channel", ch).messages {
		if m.id != ids[i] {
			t.Fatalf("message %d: got %v, want the id %s", i, m, ids[i])
		}
	}
}

var idempotencyCases = []testCase{
	{"idempotency/repeat", "16.12", "a repeat within 10 minutes gets the same answer", keyRepeat},
	{"idempotency/other-content", "16.13", "other content under the same key is 422", keyOther},
	{"idempotency/concurrent", "16.12", "a concurrent one waits", keyConcurrent},
}

func keyRepeat(t tb, s *server) {
	a, b := s.channel(), s.channel()
	for _, c := range []struct{ path, body, contentType string }{
		{"/publish?" + query("channel", a, "type", "said"), "once", "text/plain"},
		{"/publish?" + query("channel", a, "channel", b), "once", "text/plain"},
		{"/publish", fmt.Sprintf(`{"channel":%q,"data":1}`+"\n"+`{"channel":%q,"data":2}`, a, b), "application/x-ndjson"},
		{"/publish", query("channel", a, "data", "once"), "application/x-www-form-urlencoded"},
	} {
		before := len(s.history(t, "channel", a, "channel", b).messages)
		key := s.channel()
		first := s.do(t, "POST", c.path, c.body, "Content-Type", c.contentType, "Idempotency-Key", key)
		again := s.do(t, "POST", c.path, c.body, "Content-Type", c.contentType, "Idempotency-Key", key)
		if first.status != http.StatusOK || again.status != http.StatusOK || string(first.body) != string(again.body) {
			t.Errorf("got %s and then %s, want the same", first, again)
		}
		after := len(s.history(t, "channel", a, "channel", b).messages)
		s.do(t, "POST", c.path, c.body, "Content-Type", c.contentType, "Idempotency-Key", key+"2")
		if n := len(s.history(t, "channel", a, "channel", b).messages); n-after != after-before {
			t.Errorf("%s: stored %d, and then %d under another key", c.path, after-before, n-after)
		}
	}
}

func keyOther(t tb, s *server) {
	ch := s.channel()
	publish := func(data string) *response {
		return s.do(t, "POST", "/publish?"+query("channel", ch), data, "Content-Type", "text/plain", "Idempotency-Key", ch)
	}
	id := s.published(t, publish("this"))
	problem(t, publish("that"), http.StatusUnprocessableEntity)
	if again := s.published(t, publish("this")); again != id {
		t.Errorf("got the id %s, want %s", again, id)
	}
	if n := len(s.history(t, "channel", ch).messages); n != 1 {
		t.Errorf("got %d messages in the log, want 1", n)
	}
}

func keyConcurrent(t tb, s *server) {
	ch := s.channel()
	var publishing sync.WaitGroup
	answers := make([]*response, 12)
	for i := range answers {
		publishing.Go(func() {
			answers[i], _ = s.send(t.Context(), "POST", "/publish?"+query("channel", ch), "once", "Content-Type", "text/plain", "Idempotency-Key", ch)
		})
	}
	publishing.Wait()
	for _, r := range answers {
		if r == nil || r.status != http.StatusOK || string(r.body) != string(answers[0].body) {
			t.Fatalf("got %v and %v, want the same", answers[0], r)
		}
	}
	if n := len(s.history(t, "channel", ch).messages); n != 1 {
		t.Errorf("got %d messages in the log, want 1", n)
	}
}
