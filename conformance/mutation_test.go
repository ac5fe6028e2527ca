package conformance_test

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/conformance"
)

// TestMutations puts a proxy before the server that breaks one sentence of the
// contract, and expects the case for that sentence to fail: a suite that passes
// everything would be worth nothing.
func TestMutations(t *testing.T) {
	if *serverURL != "" {
		t.Skip("another server is tested")
	}
	conformance.SetPatience(t, time.Second)
	target, err := url.Parse(strings.TrimSuffix(newServer(t, nil), "/comet"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			proxy := httputil.NewSingleHostReverseProxy(target)
			proxy.FlushInterval = -1
			proxy.ErrorLog = log.New(io.Discard, "", 0) // of streams that the suite cuts
			proxy.ModifyResponse = func(r *http.Response) error {
				if m.path != "" && !strings.HasSuffix(r.Request.URL.Path, m.path) ||
					m.media != "" && !strings.HasPrefix(r.Header.Get("Content-Type"), m.media) || r.StatusCode == http.StatusSwitchingProtocols {
					return nil
				}
				if m.header != nil {
					m.header(r)
				}
				if m.body != nil {
					r.Header.Del("Content-Length")
					r.ContentLength = -1
					r.Body = &mutated{ReadCloser: r.Body, change: m.body}
				}
				return nil
			}
			server := httptest.NewServer(proxy)
			t.Cleanup(func() {
				server.CloseClientConnections()
				server.Close()
			})
			report := conformance.Run(t.Context(), server.URL+"/comet", conformance.Options{
				Quick: true, Parallel: 1, Only: regexp.MustCompile("^" + m.fails + "$")})
			if len(report.Results) != 1 || report.Failed() != 1 {
				t.Errorf("want the case %s to fail, got\n%v", m.fails, report.Results)
			}
		})
	}
}

// mutated changes a body piece by piece, as it comes from the server.
type mutated struct {
	io.ReadCloser
	change func([]byte) []byte
	rest   []byte
}

func (m *mutated) Read(p []byte) (int, error) {
	if len(m.rest) == 0 {
		buf := make([]byte, 64<<10)
		n, err := m.ReadCloser.Read(buf)
		m.rest = m.change(buf[:n])
		if err != nil && len(m.rest) == 0 {
			return 0, err
		}
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

func replace(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(old), []byte(new)) }
}

func rewrite(pattern, with string) func([]byte) []byte {
	re := regexp.MustCompile(pattern)
	return func(b []byte) []byte { return re.ReplaceAll(b, []byte(with)) }
}

func set(name, value string) func(*http.Response) {
	return func(r *http.Response) {
		if r.Header.Del(name); value != "" {
			r.Header.Set(name, value)
		}
	}
}

func status(from, to int) func(*http.Response) {
	return func(r *http.Response) {
		if r.StatusCode == from {
			r.StatusCode = to
		}
	}
}

var mutations = []struct {
	name        string
	path, media string // which responses; empty for all
	header      func(*http.Response)
	body        func([]byte) []byte
	fails       string // the name of a case
}{
	{"cacheable", "", "", set("Cache-Control", "no-transform"), nil, "info/members"},
	{"transformable", "", "", set("Cache-Control", "no-store"), nil, "http/stream-headers"},
	{"sniffable", "", "", set("X-Content-Type-Options", ""), nil, "http/unknown-paths"},
	{"buffered by nginx", "", "", set("X-Accel-Buffering", ""), nil, "http/stream-headers"},
	{"problems as JSON", "", "application/problem", set("Content-Type", "application/json; charset=utf-8"), nil, "http/problems"},
	{"problems without a code", "", "application/problem", nil, replace(`"code"`, `"kode"`), "http/problems"},
	{"400 is 422", "", "", status(400, 422), nil, "cursors/malformed"},
	{"405 without Allow", "", "", set("Allow", ""), nil, "http/wrong-methods"},
	{"OPTIONS is 200", "", "", status(204, 200), nil, "http/options"},
	{"no Vary", "", "", set("Vary", ""), nil, "http/cors-loopback"},
	{"CORS for all", "", "", set("Access-Control-Allow-Origin", "*"), nil, "http/cors-stranger"},
	{"a client without a tag", "/client.js", "", set("ETag", ""), nil, "info/client.js"},
	{"lower-case channels", "", "", nil, bytes.ToLower, "channels/names"},
	{"gap not told by a poll", "", "application/json", nil, replace(`"gap":true,`, ""), "cursors/foreign-epoch"},
	{"gap in another word", "", "application/x-ndjson", nil, replace(`{"control":"gap"`, `{"control":"heartbeat"`), "cursors/beyond-the-end"},
	{"open elsewhere", "", "application/x-ndjson", nil, rewrite(`"open","id":"(\w+)-\d+`, `"open","id":"$1-1`), "controls/open"},
	{"another heartbeat", "", "text/event-stream", nil, replace(`"heartbeat":0.25`, `"heartbeat":0.5`), "controls/open"},
	{"no heartbeats", "", "text/event-stream", nil, rewrite(`event: comet:heartbeat\n.*\n.*\n\n`, ": nothing\n\n"), "controls/heartbeat-moves-on"},
	{"numbers evaluated", "", "", nil, replace("1.0e5", "100000"), "envelope/json"},
	{"an empty type", "", "application/x-ndjson", nil, replace(`"time":`, `"type":"","time":`), "envelope/text"},
	{"time in seconds", "", "", nil, rewrite(`"time":(\d+)\d\d\d`, `"time":$1`), "envelope/time"},
	{"URL-safe base64", "", "", nil, replace(`"data64":"//`, `"data64":"__`), "envelope/binary"},
	{"a poll's cursor is not the last", "", "application/json", nil, rewrite(`"cursor":"(\w+)-\d+`, `"cursor":"$1-0`), "long-polling/body"},
	{"jsonp without its comment", "", "text/javascript", nil, replace("/**/", ""), "jsonp/body"},
	{"jsonp without its semicolon", "", "text/javascript", nil, replace(");", ")"), "jsonp/body"},
	{"iframe not escaped", "", "text/html", nil, replace(`\u003c`, "<"), "iframe/escaping"},
	{"iframe with raw line separators", "", "text/html", nil, replace(`\u2028`, "\u2028"), "iframe/escaping"},
	{"iframe without a charset", "", "text/html", set("Content-Type", "text/html"), nil, "iframe/preamble"},
	{"iframe without padding", "", "text/html", nil, rewrite(` {100,}`, " "), "controls/padding"},
	{"a part's length is wrong", "", "multipart/", nil, rewrite(`Content-Length: (\d+)`, "Content-Length: 1$1"), "multipart/envelope"},
	{"a part without an id", "", "multipart/", nil, rewrite(`Comet-Id: .*\r\n`, ""), "multipart/envelope"},
	{"raw parts with a length", "", "multipart/", nil, replace("image/png\r\n", "image/png\r\nContent-Length: 3\r\n"), "multipart/raw"},
	{"another retry", "", "text/event-stream", nil, replace("retry: 2000", "retry: 3000"), "sse/retry-first"},
	{"id before data", "", "text/event-stream", nil, rewrite(`(?m)^(data: .*\n)(id: .*\n)\n`, "$2$1\n"), "sse/raw-order"},
	{"no space after the colon", "", "text/event-stream", nil, replace("data: ", "data:"), "sse/raw-lines"},
	{"controls without their event line", "", "text/event-stream", nil, replace("event: comet:open\n", ""), "sse/controls"},
	{"lines ending in CR LF and padding spaces", "", "application/x-ndjson", nil, replace("}\n", "}\n \n"), "xhr-streaming/lines"},
	{"each message twice", "", "application/x-ndjson", nil, rewrite(`(?m)^(\{"id":.*\n)`, "$1$1"), "seam/long-polling"},
	{"a message lost", "", "text/html", nil, rewrite(`<script>_\(\{[^<]*two[^<]*</script>`, ""), "seam/iframe"},
	{"another id acknowledged", "/publish", "", nil, rewrite(`"id":"(\w+)-\d+`, `"id":"$1-1`), "publish/answer"},
	{"ids in another order", "/publish", "", nil, rewrite(`\["([^"]*)","([^"]*)",`, `["$2","$1",`), "publish/several-channels"},
	{"413 is 400", "", "", status(413, 400), nil, "publish/limits"},
	{"no line in a batch's problem", "", "application/problem", nil, replace(`"line"`, `"at"`), "batch/whole-or-not-at-all"},
	{"422 is 409", "", "", status(422, 409), nil, "idempotency/other-content"},
	{"there is always more", "/history", "", nil, replace(`"more":false`, `"more":true`), "history/before"},
	{"protocol 2", "/info", "", nil, replace(`"protocol":1`, `"protocol":2`), "info/members"},
	{"426 without Upgrade", "", "", set("Upgrade", ""), nil, "negotiation/upgrade"},
	{"chooses what it likes", "", "multipart/", set("Content-Type", "application/json; charset=utf-8"), nil, "negotiation/accept"},
}
