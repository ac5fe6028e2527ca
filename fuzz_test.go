package halley_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// fuzzRequest makes a request of parts that a stranger may have sent, as
// net/http passes them on.
func fuzzRequest(method, path, query, body string, header map[string]string) *http.Request {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	r.URL.RawQuery = query
	for name, value := range header {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	return r
}

// checkAnswer checks what holds for every answer, whatever was asked.
func checkAnswer(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	h := w.Result().Header
	if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Cache-Control"), "no-store") {
		t.Errorf("headers %v", h)
	}
	for name, values := range h {
		if strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
			t.Errorf("headers %q", h)
		}
	}
	if w.Code >= 400 {
		if w.Code >= 500 || problemOf(t, w).Code == "" {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
}

// A subscribe request is refused, or begins as its transport does.
func FuzzSubscribe(f *testing.F) {
	for _, transport := range []string{"long-polling", "sse", "xhr-streaming", "multipart", "iframe", "jsonp", "websocket", ""} {
		f.Add(false, "channel=a&cursor=earliest&transport="+transport+"&callback=f", "", "", "")
		f.Add(true, "transport="+transport, "application/x-www-form-urlencoded; charset=utf-8", "channel=a&channel=b/**&callback=a.b&format=envelope", "x-1")
	}
	f.Add(false, "channel=a&transport=iframe&origin=https://app.example&padding=100", "", "", "")
	f.Add(true, "channel=%zz", "text/plain", "channel=a", "")
	f.Add(true, "channel=a", "application/x-www-form-urlencoded", "cursor=%", "")
	begins := map[string]string{
		"application/json; charset=utf-8":            `{"cursor":"`,
		"text/javascript; charset=utf-8":             "/**/",
		"text/html; charset=utf-8":                   "<!DOCTYPE html>",
		"text/event-stream; charset=utf-8":           "retry: 2000\n",
		"application/x-ndjson; charset=utf-8":        "",
		"application/problem+json; charset=utf-8":    "{",
		`multipart/x-mixed-replace; boundary="BOUND`: "",
	}
	hub := newHub(f, halley.Options{MaxChannels: 10})
	publish(f, hub, "a", "one", "two")
	f.Fuzz(func(t *testing.T, post bool, query, contentType, body, last string) {
		method := "GET"
		if post {
			method = "POST"
		}
		r := fuzzRequest(method, "/comet/subscribe", query, body, map[string]string{"Content-Type": contentType, "Last-Event-ID": last})
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a stream ends at once
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, r.WithContext(ctx))
		checkAnswer(t, w)
		if w.Body.Len() == 0 {
			return
		}
		got := w.Header().Get("Content-Type")
		if strings.HasPrefix(got, "multipart/x-mixed-replace; boundary=") {
			return
		}
		want, ok := begins[got]
		if !ok || !strings.HasPrefix(w.Body.String(), want) {
			t.Errorf("%s %q %q: got %s %.100q", method, query, body, got, w.Body)
		}
		// A callback is all that a stranger may have a say in outside of data.
		if want == "/**/" {
			name, _, _ := strings.Cut(w.Body.String()[4:], "(")
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$.") != "" || len(name) > 64 {
				t.Errorf("%q: callback %q", query, name)
			}
		}
	})
}

// A page of history is what a log of a few messages has of it.
func FuzzHistory(f *testing.F) {
	hub := newHub(f, halley.Options{})
	var log []halley.Message
	for i := range 30 {
		channel := []string{"a", "b/c", "b/d/e"}[i%3]
		id := publish(f, hub, channel, strconv.Itoa(i))[0]
		log = append(log, halley.Message{ID: id, Channel: channel})
	}
	epoch := log[0].ID.Epoch
	for _, q := range []string{
		"channel=a", "channel=a&channel=b/**&limit=3", "channel=**&cursor=E-7&limit=5", "channel=b/*&before=E-20&limit=2", "channel=a&until=E-9&cursor=E-3",
		"channel=a&cursor=now", "channel=a&before=earliest", "channel=a&before=now&until=E-5", "channel=a&cursor=other-5", "channel=a&limit=0", "channel=a&until=E-0",
		"channel=a&cursor=E-9223372036854775807", "channel=a&before=E-9223372036854775807", "limit=1", "channel=a&channel=%zz",
	} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		// Seeds, and what comes of them, cannot know the epoch.
		query = strings.ReplaceAll(query, "E-", epoch+"-")
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, fuzzRequest("GET", "/comet/history", query, "", nil))
		checkAnswer(t, w)
		form, err := url.ParseQuery(query)
		if w.Code != 200 {
			if err == nil && len(form) == 1 && slices.Equal(form["channel"], []string{"a"}) {
				t.Errorf("%q: got %d %s", query, w.Code, w.Body)
			}
			return
		}
		var page struct {
			Cursor   string
			Gap      bool
			More     bool
			Messages []struct{ ID, Channel string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatalf("%q: %v of %s", query, err, w.Body)
		}
		if _, err := engine.ParseCursor(page.Cursor); err != nil {
			t.Errorf("%q: cursor %q", query, page.Cursor)
		}
		var all []string // that match, in order
		for _, m := range log {
			if slices.ContainsFunc(form["channel"], func(p string) bool { return engine.Match(p, m.Channel) }) {
				all = append(all, m.ID.String())
			}
		}
		var got []string
		for _, m := range page.Messages {
			got = append(got, m.ID)
		}
		limit := 100
		if n, err := strconv.Atoi(form.Get("limit")); err == nil {
			limit = min(n, 1000)
		}
		if len(got) > limit {
			t.Errorf("%q: got %d messages, limit %d", query, len(got), limit)
		}
		// They follow each other in what matches.
		i := 0
		if len(got) > 0 {
			i = slices.Index(all, got[0])
		}
		if i < 0 || i+len(got) > len(all) || !slices.Equal(all[i:i+len(got)], got) {
			t.Fatalf("%q: got %q of %q", query, got, all)
		}
		// Without bounds nothing is left out at the end, or there is more.
		if form.Get("until") == "" && form.Get("before") == "" && form.Get("cursor") == "" && (i != 0 && len(got) > 0 || page.More != (len(got) < len(all))) {
			t.Errorf("%q: got %q of %q, more %v", query, got, all, page.More)
		}
		after, err := engine.ParseCursor(form.Get("cursor"))
		if err == nil && after.Epoch == epoch && !page.Gap && form.Get("before") == "" && len(got) > 0 {
			if before, _ := engine.ParseCursor(got[0]); before.Seq <= after.Seq || i > 0 && seq(all[i-1]) > after.Seq {
				t.Errorf("%q: got %q of %q", query, got, all)
			}
		}
		if until, err := engine.ParseCursor(form.Get("until")); err == nil && until.Epoch == epoch && len(got) > 0 && seq(got[len(got)-1]) > until.Seq {
			t.Errorf("%q: got %q", query, got)
		}
		if before, err := engine.ParseCursor(form.Get("before")); err == nil && before.Epoch == epoch && len(got) > 0 && seq(got[len(got)-1]) >= before.Seq {
			t.Errorf("%q: got %q", query, got)
		}
	})
}

func seq(id string) uint64 {
	c, err := engine.ParseCursor(id)
	if err != nil {
		panic(err)
	}
	return c.Seq
}

// authority returns the host that a browser would take a URL for.
func authority(u string) string {
	_, rest, ok := strings.Cut(u, "://")
	if !ok {
		return ""
	}
	if i := strings.IndexAny(rest, `/?#\`); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return strings.ToLower(rest)
}

// mine tells whether a host is one that only this machine can be.
func mine(host string) bool {
	name := host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") && (strings.Count(host, ":") == 1 || host[i-1] == ']') {
		name = host[:i]
	}
	name = strings.ToLower(strings.Trim(name, "[]"))
	name = strings.TrimSuffix(name, ".")
	ip, err := netip.ParseAddr(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || err == nil && ip.Unmap().IsLoopback()
}

// What a page of a stranger sends is not stored, whatever it calls itself.
func FuzzOrigin(f *testing.F) {
	for _, origin := range []string{
		"", "null", "http://localhost:3000", "https://app.example", "https://APP.example/", "http://app.example", "https://stranger.example",
		"http://localhost.stranger.example", "http://localhost@stranger.example", `http://localhost\@stranger.example`, "http://[::1]:1", "http://[::ffff:127.0.0.1]",
		"http://push.example#", "http://push.example?", "http://stranger.example:localhost", "//localhost", "http:localhost", "http://127.1", "http://[::1%25lo]",
		"http://localhost, https://stranger.example", "http://.localhost", "http://push.example.",
	} {
		f.Add("push.example", origin, "", "")
		f.Add("localhost:8080", "", "cross-site", origin+"/page")
	}
	f.Add("stranger.example", "http://stranger.example", "", "")
	f.Add("push.example", "", "same-site", "https://push.example@stranger.example/")
	hub := newHub(f, halley.Options{Origins: []string{"https://app.example"}, Hosts: []string{"push.example"}})
	f.Fuzz(func(t *testing.T, host, origin, site, referer string) {
		r := fuzzRequest("POST", "/comet/publish", "channel=a", "data", map[string]string{
			"Content-Type": "text/plain", "Origin": origin, "Sec-Fetch-Site": site, "Referer": referer,
		})
		r.Host = host
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, r)
		checkAnswer(t, w)
		allowed := func(u string) bool {
			at := authority(u)
			return at == strings.ToLower(host) || at == "push.example" || mine(at) || strings.HasPrefix(strings.ToLower(u), "https://app.example") && at == "app.example"
		}
		switch got := w.Header().Get("Access-Control-Allow-Origin"); {
		case got != "" && got != origin:
			t.Errorf("from %q: Access-Control-Allow-Origin %q", origin, got)
		case got != "" && !allowed(origin):
			t.Errorf("%q may read what is on %q", origin, host)
		}
		if w.Code != 200 {
			return
		}
		if !mine(host) && strings.ToLower(host) != "push.example" {
			t.Errorf("served as %q", host)
		}
		if origin != "" && !allowed(origin) {
			t.Errorf("stored for %q on %q", origin, host)
		}
		if origin == "" && (site == "cross-site" || site == "same-site") && !allowed(referer) {
			t.Errorf("stored for a page %q on %q", referer, host)
		}
	})
}

// A batch is stored as its lines say, or not at all.
func FuzzBatch(f *testing.F) {
	for _, body := range []string{
		"{\"channel\":\"a\",\"data\":\"one\"}\n{\"channel\":\"b/c\",\"type\":\"t\",\"data\":{\"n\":1.0}}\n",
		"{\"data\":null}\r\n\r\n {\"data64\":\"/wA=\",\"contentType\":\"image/png\"} \n", "{\"data\":1,\"data64\":\"\"}", "{\"Data\":1}", "{\"channel\":\"a*\",\"data\":1}",
		"{\"channel\":1,\"data\":1}", "[]", "{\"data\":1}\n[]", "{", "\n\n", "{\"data\":\"\\ud800\"}", "{\"data\":1,\"data\":2}", "{\"type\":\"comet:x\",\"data\":1}", "\ufeff{\"data\":1}",
		"{\"data\":\"\xff\"}", "{\"data64\":\"x\"}", "{\"contentType\":\"text/html\",\"data\":\"<p>\"}",
	} {
		f.Add([]byte(body))
	}
	hub := newHub(f, halley.Options{MaxMessage: 1000, MaxBody: 5000})
	f.Fuzz(func(t *testing.T, body []byte) {
		before := hub.End()
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, fuzzRequest("POST", "/comet/publish", "channel=q", string(body), map[string]string{"Content-Type": "application/x-ndjson"}))
		checkAnswer(t, w)
		page, err := hub.Read(t.Context(), halley.Query{Channels: []string{"**"}, After: before})
		if err != nil || page.Gap {
			t.Fatalf("%+v, %v", page, err)
		}
		var lines [][]byte
		for line := range bytes.SplitSeq(body, []byte("\n")) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				lines = append(lines, line)
			}
		}
		if w.Code != 200 {
			if len(page.Messages) > 0 {
				t.Errorf("%q: got %d, and %d messages are stored", body, w.Code, len(page.Messages))
			}
			return
		}
		if len(page.Messages) != len(lines) {
			t.Fatalf("%q: %d messages of %d lines", body, len(page.Messages), len(lines))
		}
		for i, m := range page.Messages {
			var line map[string]any
			d := json.NewDecoder(bytes.NewReader(lines[i]))
			d.UseNumber()
			if err := d.Decode(&line); err != nil || !utf8.Valid(lines[i]) {
				t.Fatalf("%q is stored: %v", lines[i], err)
			}
			if want, ok := line["channel"].(string); ok && m.Channel != want || !ok && m.Channel != "q" {
				t.Errorf("%q is stored in %q", lines[i], m.Channel)
			}
			data, isData := line["data"]
			switch s, isText := data.(string); {
			case isText && (string(m.Data) != s || engine.KindOf(m.ContentType) != engine.Text):
				t.Errorf("%q is stored as %q, %s", lines[i], m.Data, m.ContentType)
			case isData && !isText && (!json.Valid(m.Data) || engine.KindOf(m.ContentType) != engine.JSON):
				t.Errorf("%q is stored as %q, %s", lines[i], m.Data, m.ContentType)
			}
		}
	})
}
