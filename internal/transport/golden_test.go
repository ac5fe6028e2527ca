package transport

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

var update = flag.Bool("update", false, "rewrite the files in testdata/golden")

// goldenItems are the messages and controls in the golden files.
func goldenItems() []pump.Item {
	at := func(seq uint64) engine.Cursor { return engine.Cursor{Epoch: "1h8qk2v0xw3fd", Seq: seq} }
	message := func(seq uint64, channel, typ, contentType, data string) pump.Item {
		return pump.Item{Message: &engine.Message{
			ID: at(seq), Channel: channel, Type: typ, ContentType: contentType, Data: []byte(data), Time: 1764000000000 + int64(seq),
		}}
	}
	control := func(c wire.Control) pump.Item { return pump.Item{Control: &c} }
	return []pump.Item{
		control(wire.Control{Kind: wire.Open, ID: at(4), Interval: 25 * time.Second}),
		control(wire.Control{Kind: wire.Gap, ID: at(4)}),
		message(5, "chat/room/7", "said", "application/json", "{\"text\" : \"<b>hello</b> & \u2028\",\n \"n\": 1.0}"),
		message(6, "a", "", "text/plain; charset=utf-8", "lines\nand\rmore\r\nof them\n"),
		message(7, "a", "é", "text/plain; charset=utf-8", "</script><!--\u2028-->"),
		control(wire.Control{Kind: wire.Heartbeat, ID: at(9)}),
		message(10, "a", "", "text/plain; charset=utf-8", ""),
		message(11, "pictures", "picture", "image/png", "\x89PNG\r\n\x1a\n\x00\xff"),
		message(12, "pictures", "", "image/png", "\x89PNG\r\n--boundary of another\r\n"),
		message(13, "a", "", "text/html", "<p>not on a channel for pages</p>"),
		message(14, "pages/1", "", "text/html", "<p>on a channel for pages</p>"),
		message(15, "a", "", "application/octet-stream", "\r\n--BOUNDARY\r\nContent-Type: text/html\r\n\r\n"),
		control(wire.Control{Kind: wire.Skip, ID: at(15)}),
		message(16, "a", "", "application/ld+json", `"`+`\u003c`+`"`),
		control(wire.Control{Kind: wire.Reconnect, Delay: 1500 * time.Millisecond}),
	}
}

// The exact bytes of each transport's response, in both formats: what was
// written by an earlier version is still what this one writes.
func TestGolden(t *testing.T) {
	callback := &Request{Transport: IFrame, Callback: "app.on"}
	origin := &Request{Transport: IFrame, Callback: "app.on", Origin: "https://page.example:8443"}
	for name, s := range map[string]*stream{
		"iframe-callback": newIFrame(callback, framers{}),
		"iframe-origin":   newIFrame(origin, framers{}),
		"multipart":       newMultipart("BOUNDARY"),
		"multipart-raw":   newMultipartRaw("BOUNDARY", []string{"pages/*"}, time.Minute),
		"xhr-streaming":   newXHRStreaming(),
		"sse":             newSSE(false),
		"sse-raw":         newSSE(true),
	} {
		w := httptest.NewRecorder()
		s.setHeader(w.Header())
		w.WriteHeader(http.StatusOK)
		body := s.head(100)
		prefix := s.prefixWriter(false)
		for _, it := range goldenItems() {
			it.Bytes = frame(s.framing, it)
			body = append(body, prefix(it)...)
			body = append(body, it.Bytes...)
		}
		body = append(body, s.tail...)
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
		golden(t, name, response(t, w))
	}

	// Polls answer once: a control has no place there.
	page := wire.Page{Cursor: engine.Cursor{Epoch: "1h8qk2v0xw3fd", Seq: 16}, Gap: true}
	for _, it := range goldenItems() {
		if it.Message != nil {
			page.Envelopes = append(page.Envelopes, frame(envelopes{}, it))
		}
	}
	golden(t, "long-polling", page.Append(nil))
	jsonp := &Request{Transport: JSONP, Callback: "app.on"}
	w := httptest.NewRecorder()
	body := jsonpBody(jsonp, page.Append(nil))
	w.Header().Set("Content-Type", jsonpType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
	golden(t, "jsonp", response(t, w))

	var frames []byte
	for _, it := range goldenItems() {
		frames = append(frames, frame(webSocket{}, it)...)
	}
	frames = append(frames, frame(webSocket{}, pump.Item{Message: &engine.Message{
		ID: page.Cursor, Channel: "a", ContentType: "text/plain", Data: bytes.Repeat([]byte("x"), 70000),
	}})...)
	golden(t, "websocket", frames)

	// What a hub that drains says.
	p := wire.NewProblem(wire.Draining, "come back in a moment")
	p.RetryAfter = 1500 * time.Millisecond
	for name, q := range map[string]*Request{
		"refused-long-polling":    {Transport: LongPolling},
		"refused-jsonp":           jsonp,
		"refused-iframe-callback": callback,
		"refused-iframe-origin":   origin,
		"refused-multipart":       {Transport: Multipart},
		"refused-xhr-streaming":   {Transport: XHRStreaming},
		"refused-sse":             {Transport: SSE},
		"refused-sse-raw":         {Transport: SSE, Raw: true},
	} {
		w := httptest.NewRecorder()
		(&Server{Options: Options{Boundary: "BOUNDARY"}}).Refuse(w, httptest.NewRequest("GET", "/comet/subscribe", nil), q, p)
		golden(t, name, response(t, w))
	}
}

func frame(f pump.Framing, it pump.Item) []byte {
	if it.Message != nil {
		return f.AppendMessage(nil, it.Message)
	}
	return f.AppendControl(nil, it.Control)
}

// response returns a response's head, without what the clock has a part in,
// and its body as it is.
func response(t *testing.T, w *httptest.ResponseRecorder) []byte {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", w.Code, http.StatusText(w.Code))
	if err := w.Result().Header.Write(&b); err != nil {
		t.Fatal(err)
	}
	b.WriteString("\r\n")
	b.Write(w.Body.Bytes())
	return b.Bytes()
}

// golden compares bytes with those of a file.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for n < min(len(got), len(want)) && got[n] == want[n] {
		n++
	}
	if n < len(got) || n < len(want) {
		t.Errorf("%s differs at byte %d: got %.200q, want %.200q", path, n, got[n:], want[n:])
	}
}
