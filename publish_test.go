package halley_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// all returns the messages in the log.
func all(t testing.TB, hub *halley.Hub) []*halley.Message {
	t.Helper()
	page, err := hub.Read(context.Background(), halley.Query{Channels: []string{"**"}, Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	return page.Messages
}

// ids returns what a publish request is answered with, and whether that is a
// list.
func ids(t testing.TB, w *httptest.ResponseRecorder) (list []string, isList bool) {
	t.Helper()
	var answer struct {
		ID  *string
		IDs []string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 || (answer.ID == nil) == (answer.IDs == nil) {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if answer.ID != nil {
		return []string{*answer.ID}, false
	}
	return answer.IDs, true
}

// A body of any kind is stored as it is described.
func TestPublishBodies(t *testing.T) {
	for _, c := range []struct {
		name, query, contentType, body string
		list                           bool
		want                           []halley.Message
	}{
		{"JSON", "channel=a&type=t", "application/json; charset=utf-8", ` {"n" : 1.0} `, false,
			[]halley.Message{{Channel: "a", Type: "t", ContentType: "application/json; charset=utf-8", Data: []byte(` {"n" : 1.0} `)}}},
		{"+json", "channel=a", "Application/LD+JSON", "null", false,
			[]halley.Message{{Channel: "a", ContentType: "Application/LD+JSON", Data: []byte("null")}}},
		{"text", "channel=a&type=", "text/html", "<p>é", false,
			[]halley.Message{{Channel: "a", ContentType: "text/html", Data: []byte("<p>é")}}},
		{"empty text", "channel=a", "text/plain", "", false,
			[]halley.Message{{Channel: "a", ContentType: "text/plain", Data: nil}}},
		{"binary", "channel=a", "image/png", "\x89\xff", false,
			[]halley.Message{{Channel: "a", ContentType: "image/png", Data: []byte("\x89\xff")}}},
		{"no content type", "channel=a", "", "\xff", false,
			[]halley.Message{{Channel: "a", ContentType: "application/octet-stream", Data: []byte("\xff")}}},
		{"channels", "channel=b&channel=a&channel=b&channel=meta&type=é", "text/plain", "x", true,
			[]halley.Message{
				{Channel: "b", Type: "é", ContentType: "text/plain", Data: []byte("x")},
				{Channel: "a", Type: "é", ContentType: "text/plain", Data: []byte("x")},
				{Channel: "meta", Type: "é", ContentType: "text/plain", Data: []byte("x")},
			}},
		{"a channel twice", "channel=a&channel=a", "text/plain", "x", false,
			[]halley.Message{{Channel: "a", ContentType: "text/plain", Data: []byte("x")}}},
		{"a name that needs encoding", "channel=a%25b/c%2Bd", "text/plain", "x", false,
			[]halley.Message{{Channel: "a%b/c+d", ContentType: "text/plain", Data: []byte("x")}}},
		{"form", "", "application/x-www-form-urlencoded", "channel=a&data=%C3%A9+%26&type=t", false,
			[]halley.Message{{Channel: "a", Type: "t", ContentType: "text/plain; charset=utf-8", Data: []byte("é &")}}},
		{"form and query", "channel=a&type=t", "application/x-www-form-urlencoded; charset=utf-8", "channel=b&data=", true,
			[]halley.Message{
				{Channel: "a", Type: "t", ContentType: "text/plain; charset=utf-8", Data: nil},
				{Channel: "b", Type: "t", ContentType: "text/plain; charset=utf-8", Data: nil},
			}},
		{"batch", "channel=q&type=qt", "application/x-ndjson", strings.Join([]string{
			`{"channel":"a","type":"t","data":{"n" : 1.0}}`,
			"",
			" \t\r",
			`{"data":"text \u00e9 \ud83c\udf20"}`,
			`{"channel":"b","data":null}`,
			`{"channel":"b","data64":"/wA=","contentType":"image/png"}` + "\r",
			`{"channel":"b","data64":""}`,
			`{"channel":"b","data64":"aGk=","contentType":"text/plain","extra":[1]}`,
			`{"channel":"b","data":false,"contentType":"text/plain","Channel":"c"}`,
		}, "\n"), true, []halley.Message{
			{Channel: "a", Type: "t", ContentType: "application/json", Data: []byte(`{"n" : 1.0}`)},
			{Channel: "q", Type: "qt", ContentType: "text/plain; charset=utf-8", Data: []byte("text é 🌠")},
			{Channel: "b", Type: "qt", ContentType: "application/json", Data: []byte("null")},
			{Channel: "b", Type: "qt", ContentType: "image/png", Data: []byte{0xff, 0}},
			{Channel: "b", Type: "qt", ContentType: "application/octet-stream", Data: nil},
			{Channel: "b", Type: "qt", ContentType: "text/plain", Data: []byte("hi")},
			{Channel: "b", Type: "qt", ContentType: "application/json", Data: []byte("false")},
		}},
		{"batch of one", "", "application/x-ndjson", `{"channel":"a","data":1}` + "\n", true,
			[]halley.Message{{Channel: "a", ContentType: "application/json", Data: []byte("1")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			hub := newHub(t, halley.Options{})
			w := call(hub, "POST", "/comet/publish?"+c.query, c.body, "Content-Type: "+c.contentType)
			list, isList := ids(t, w)
			got := all(t, hub)
			if len(got) != len(c.want) || len(list) != len(c.want) || isList != c.list {
				t.Fatalf("answered %s, stored %d messages, want %d", w.Body, len(got), len(c.want))
			}
			for i, m := range got {
				want := c.want[i]
				if m.ID.String() != list[i] || m.Channel != want.Channel || m.Type != want.Type || m.ContentType != want.ContentType || string(m.Data) != string(want.Data) {
					t.Errorf("message %d with id %s: got %+v, want %+v", i, list[i], *m, want)
				}
				if m.Time != got[0].Time || m.ID.Seq != got[0].ID.Seq+uint64(i) {
					t.Errorf("message %d has time %d and id %v, after %d and %v", i, m.Time, m.ID, got[0].Time, got[0].ID)
				}
			}
		})
	}
}

// A batch with anything wrong in it is not stored, and its line is named.
func TestPublishBatchAtomic(t *testing.T) {
	hub := newHub(t, halley.Options{MaxMessage: 50})
	good := `{"channel":"a","data":1}`
	for _, c := range []struct {
		line string
		code string
	}{
		{`nonsense`, "invalid-message"},
		{`"a string"`, "invalid-message"},
		{`[]`, "invalid-message"},
		{`null`, "invalid-message"},
		{`{"channel":"a","data":1} {}`, "invalid-message"},
		{`{"channel":"a"}`, "invalid-message"},
		{`{"channel":"a","Data":1}`, "invalid-message"},
		{`{"channel":"a","data":1,"data64":"AA=="}`, "invalid-message"},
		{`{"channel":"a","data64":"AA"}`, "invalid-message"},
		{`{"channel":"a","data64":"not base64"}`, "invalid-message"},
		{`{"channel":"a","data64":1}`, "invalid-message"},
		{`{"channel":"a","data64":"/w==","contentType":"text/plain"}`, "invalid-message"},
		{`{"channel":"a","data64":"ew==","contentType":"application/json"}`, "invalid-message"},
		{`{"channel":"a","data64":"ew==","contentType":"nonsense"}`, "invalid-message"},
		{`{"channel":"a","data":1,"type":7}`, "invalid-message"},
		{`{"channel":"a","data":1,"type":"comet:open"}`, "invalid-message"},
		{`{"channel":["a"],"data":1}`, "invalid-message"},
		{"{\"channel\":\"a\",\"data\":\"\xff\"}", "invalid-message"},
		{`{"data":1}`, "invalid-channel"},
		{`{"channel":"","data":1}`, "invalid-channel"},
		{`{"channel":"a/*","data":1}`, "invalid-channel"},
		{`{"channel":"meta/a","data":1}`, "invalid-channel"},
		{`{"channel":"a","data":"` + strings.Repeat("x", 51) + `"}`, "too-large"},
	} {
		for at := range 3 {
			lines := []string{good, "", good}
			lines[at] = c.line
			w := call(hub, "POST", "/comet/publish", strings.Join(lines, "\n")+"\n", "Content-Type: application/x-ndjson", "Idempotency-Key: k")
			p := problemOf(t, w)
			if p.Code != c.code || p.Line != at+1 {
				t.Errorf("%s in line %d: got %+v, want %s", c.line, at+1, p, c.code)
			}
		}
	}
	// Without just one channel in the query a line needs its own.
	w := call(hub, "POST", "/comet/publish?channel=a&channel=b", good+"\n{\"data\":1}", "Content-Type: application/x-ndjson")
	if p := problemOf(t, w); p.Code != "invalid-channel" || p.Line != 2 {
		t.Errorf("two channels: got %+v", p)
	}
	w = call(hub, "POST", "/comet/publish", strings.Repeat(good+"\n", 1001), "Content-Type: application/x-ndjson")
	if p := problemOf(t, w); p.Code != "too-large" || p.Line != 1001 {
		t.Errorf("1001 lines: got %+v", p)
	}
	if got := stored(t, hub); len(got) > 0 {
		t.Fatalf("stored %q", got)
	}
	w = call(hub, "POST", "/comet/publish", strings.Repeat(good+"\n\n", 1000), "Content-Type: application/x-ndjson", "Idempotency-Key: k")
	if list, _ := ids(t, w); len(list) != 1000 {
		t.Errorf("%d ids of 1000 lines", len(list))
	}
}

// A repeat under one key stores nothing and gets the first answer; other
// content does not pass.
func TestIdempotency(t *testing.T) {
	hub := newHub(t, halley.Options{})
	const text, ndjson = "Content-Type: text/plain", "Content-Type: application/x-ndjson"
	first := call(hub, "POST", "/comet/publish?channel=a&channel=b&type=t", "x", text, "Idempotency-Key: k é")
	want, _ := ids(t, first)
	again := call(hub, "POST", "/comet/publish?channel=a&channel=b&channel=a&type=t", "x", text, "Idempotency-Key: k é")
	if again.Code != 200 || again.Body.String() != first.Body.String() {
		t.Errorf("a repeat: got %d %s, want %s", again.Code, again.Body, first.Body)
	}
	for _, c := range []struct{ query, body, contentType string }{
		{"channel=a&channel=b&type=t", "y", text},
		{"channel=a&channel=b&type=u", "x", text},
		{"channel=b&channel=a&type=t", "x", text},
		{"channel=a&type=t", "x", text},
		{"channel=a&channel=b&type=t", "x", "Content-Type: text/html"},
		{"type=t", `{"channel":"a","data64":"eA==","contentType":"text/plain"}` + "\n" + `{"channel":"b","data64":"eA==","contentType":"text/plain"}`, ndjson},
	} {
		w := call(hub, "POST", "/comet/publish?"+c.query, c.body, c.contentType, "Idempotency-Key: k é")
		if p := problemOf(t, w); p.Code != "key-reused" || w.Code != 422 {
			t.Errorf("%+v: got %d %+v", c, w.Code, p)
		}
	}
	if got := stored(t, hub); len(got) != 2 {
		t.Errorf("stored %q", got)
	}
	other := call(hub, "POST", "/comet/publish?channel=a", "y", text, "Idempotency-Key: another")
	if list, _ := ids(t, other); slices.Contains(want, list[0]) {
		t.Errorf("another key: got %s", other.Body)
	}
	// A refused request leaves its key unused.
	if w := call(hub, "POST", "/comet/publish?channel=a", "\xff", text, "Idempotency-Key: once more"); w.Code != 400 {
		t.Errorf("got %d", w.Code)
	}
	ids(t, call(hub, "POST", "/comet/publish?channel=a", "z", text, "Idempotency-Key: once more"))
}

// A key is forgotten after a time.
func TestIdempotencyWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, halley.Options{})
		post := func() string {
			list, _ := ids(t, call(hub, "POST", "/comet/publish?channel=a", "x", "Content-Type: text/plain", "Idempotency-Key: k"))
			return list[0]
		}
		first := post()
		time.Sleep(10*time.Minute - time.Second) // the bubble's time
		if again := post(); again != first {
			t.Errorf("within 10 minutes: got %s, want %s", again, first)
		}
		time.Sleep(10 * time.Minute)
		if later := post(); later == first {
			t.Errorf("after 20 minutes: still %s", later)
		}
	})
}

// slowEngine holds Append back until it is let go.
type slowEngine struct {
	engine.Engine
	entered, release chan struct{}
}

func (e *slowEngine) Append(ctx context.Context, b engine.Batch) (engine.Receipt, error) {
	e.entered <- struct{}{}
	<-e.release
	return e.Engine.Append(ctx, b)
}

// Of many requests with one key at the same time one is stored, and all get
// its answer.
func TestIdempotencyConcurrent(t *testing.T) {
	log := &slowEngine{newLog(t), make(chan struct{}, 100), make(chan struct{})}
	hub := newHubOn(t, log, halley.Options{})
	const n = 20
	answers := make([]string, n)
	codes := make([]int, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			body := "x"
			if i%4 == 3 {
				body = "other"
			}
			w := call(hub, "POST", "/comet/publish?channel=a", body, "Content-Type: text/plain", "Idempotency-Key: k")
			answers[i], codes[i] = body+" "+w.Body.String(), w.Code
		})
	}
	for range n {
		<-log.entered
	}
	close(log.release)
	wg.Wait()
	got := stored(t, hub)
	if len(got) != 1 {
		t.Fatalf("stored %q", got)
	}
	_, body, _ := strings.Cut(got[0], " ")
	want := fmt.Sprintf("%s {\"id\":%q}", body, hub.End())
	for i, answer := range answers {
		if strings.HasPrefix(answer, body+" ") {
			if codes[i] != 200 || answer != want {
				t.Errorf("got %d %s, want %s", codes[i], answer, want)
			}
		} else if codes[i] != 422 {
			t.Errorf("other content: got %d %s", codes[i], answer)
		}
	}
}

// FuzzPublish holds that a publish request of any kind is stored as a whole,
// with an id for each of its messages, or refused as a whole.
func FuzzPublish(f *testing.F) {
	f.Add("channel=a&type=t", "application/json", []byte(`{"n":1.0}`))
	f.Add("channel=a&channel=b/c", "text/plain; charset=utf-8", []byte("é\r\n\x00"))
	f.Add("channel=a", "", []byte("\xff"))
	f.Add("", "application/x-www-form-urlencoded", []byte("channel=a&data=%C3%A9+x&type=t"))
	f.Add("channel=q", "application/x-ndjson", []byte("{\"data\":\"\\ud800 text\"}\n\n{\"channel\":\"a\",\"data64\":\"/wA=\",\"contentType\":\"image/png\"}\r\n{\"data\":{\"a\":[1e400]},\"type\":\"t\"}"))
	f.Add("channel=q", "application/x-ndjson", []byte("{\"data\":1}\n{\"data\":"))
	hub := newHub(f, halley.Options{MaxMessage: 1000, MaxBody: 5000})
	f.Fuzz(func(t *testing.T, query, contentType string, body []byte) {
		r := &http.Request{
			Method: "POST", URL: &url.URL{Path: "/comet/publish", RawQuery: query}, Host: "localhost", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: http.NoBody, ContentLength: int64(len(body)),
		}
		r.Body = httptest.NewRequest("POST", "/", strings.NewReader(string(body))).Body
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		before := hub.End()
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, r)
		page, err := hub.Read(t.Context(), halley.Query{Channels: []string{"**"}, After: before})
		if err != nil || page.Gap {
			t.Fatalf("%+v, %v", page, err)
		}
		if w.Code != 200 {
			if p := problemOf(t, w); p.Status < 400 || p.Status >= 500 || len(page.Messages) > 0 {
				t.Errorf("got %+v, and %d messages are stored", p, len(page.Messages))
			}
			return
		}
		list, _ := ids(t, w)
		if len(list) != len(page.Messages) || len(list) == 0 {
			t.Fatalf("answered %s, stored %d messages", w.Body, len(page.Messages))
		}
		for i, m := range page.Messages {
			if m.ID.String() != list[i] {
				t.Errorf("message %d has id %v, the answer says %s", i, m.ID, list[i])
			}
			if err := m.Check(); err != nil || len(m.Data) > 1000 || m.ContentType == "" {
				t.Errorf("stored %+v: %v", m, err)
			}
			if engine.KindOf(m.ContentType) == engine.JSON && (!json.Valid(m.Data) || !utf8.Valid(m.Data)) {
				t.Errorf("stored %q as JSON", m.Data)
			}
		}
		// A single body is stored to the byte, in whatever kind.
		media, _, _ := strings.Cut(contentType, ";")
		if media = strings.ToLower(strings.TrimSpace(media)); media != "application/x-ndjson" && media != "application/x-www-form-urlencoded" {
			for _, m := range page.Messages {
				if string(m.Data) != string(body) || contentType != "" && m.ContentType != contentType {
					t.Errorf("stored %s as %s %s", base64.StdEncoding.EncodeToString(body), m.ContentType, base64.StdEncoding.EncodeToString(m.Data))
				}
			}
		}
	})
}
