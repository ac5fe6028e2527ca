package wire

import (
	"bytes"
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
)

var update = flag.Bool("update", false, "rewrite the files in testdata/golden")

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

func at(seq uint64) engine.Cursor { return engine.Cursor{Epoch: "1h8qk2v0xw3fd", Seq: seq} }

// The envelopes of messages of every kind (protocol 6), a line each.
func TestGoldenEnvelopes(t *testing.T) {
	var got []byte
	for i, m := range []engine.Message{
		{Channel: "a", ContentType: "application/json", Data: []byte(`{"text":"hello"}`)},
		{Channel: "chat/room/7", Type: "said", ContentType: "application/json; charset=utf-8", Data: []byte(" {\"n\" : 1.0 ,\r\n\t\"e\": 1E+2,\"e\":[ ] } ")},
		{Channel: "a", ContentType: "application/ld+json", Data: []byte(`"a \" quote, a \\ and \u2028 ` + "\u2028\u2029" + ` <b>&"`)},
		{Channel: "a", ContentType: "application/json", Data: []byte("null")},
		{Channel: "a", ContentType: "APPLICATION/JSON", Data: []byte("-12345678901234567890.1e-5")},
		{Channel: "a", ContentType: "text/plain; charset=utf-8", Data: []byte("lines\nand\r\nmore\ttabs \x00\x1f\x7f \"\\/ <b>&'")},
		{Channel: "a", ContentType: "text/html", Data: []byte("</script> \u2028\u2029 \ufeff 🌠 é")},
		{Channel: "a", ContentType: "text/plain", Data: nil},
		{Channel: "a", Type: "é \"<\\>\"", ContentType: "image/png", Data: []byte("\x89PNG\r\n\x1a\n\x00\xff")},
		{Channel: "-_.~!$()@:+,=%", ContentType: `application/x; p="q\"\\"`, Data: []byte("x")},
		{Channel: "a", ContentType: "application/octet-stream", Data: nil},
		{Channel: "a", ContentType: "text/plain", Headers: map[string]string{"traceparent": "not on the wire"}, Data: []byte("x")},
	} {
		m.ID, m.Time = at(uint64(i)+1), 1764000000000+int64(i)
		got = append(AppendEnvelope(got, &m), '\n')
	}
	golden(t, "envelopes", got)
}

// The control envelopes (protocol 7), a line each.
func TestGoldenControls(t *testing.T) {
	var got []byte
	for _, c := range []Control{
		{Kind: Open, ID: at(0), Interval: 25 * time.Second},
		{Kind: Open, ID: at(1<<63 - 1), Interval: 10 * time.Millisecond},
		{Kind: Gap, ID: at(7)},
		{Kind: Heartbeat, ID: at(8)},
		{Kind: Skip, ID: at(9)},
		{Kind: Reconnect, Delay: 1500 * time.Millisecond},
		{Kind: Reconnect},
		{Kind: Error, Problem: NewProblem(ForbiddenOrigin, "")},
		{Kind: Error, Problem: NewProblem(InvalidChannel, "channel \"a//b\u2028\": empty segment")},
		{Kind: Error, Ref: []byte(`"r\u0031 \" "`), Problem: NewProblem(InvalidFrame, "a frame is a JSON object")},
		{Kind: Ack, Ref: []byte("1.50e1"), ID: at(10)},
		{Kind: Ack, Ref: []byte("\"\u2028\"")},
	} {
		got = append(AppendControl(got, &c), '\n')
	}
	golden(t, "controls", got)
}

// The bodies of polls and of history (protocol 9.1, 17.1), a line each.
func TestGoldenPages(t *testing.T) {
	one := AppendEnvelope(nil, &engine.Message{ID: at(1), Channel: "a", ContentType: "text/plain", Data: []byte("1"), Time: 1764000000000})
	var got []byte
	for _, p := range []Page{
		{Cursor: at(0)},
		{Cursor: at(1), Envelopes: [][]byte{one}},
		{Cursor: at(1), Gap: true, Envelopes: [][]byte{one, one}},
		{Cursor: at(1), History: true},
		{Cursor: at(1), History: true, More: true, Gap: true, Envelopes: [][]byte{one}},
	} {
		got = append(p.Append(got), '\n')
	}
	golden(t, "pages", got)
}

// All problems, as their responses go out (protocol 5).
func TestGoldenProblems(t *testing.T) {
	var got []byte
	for _, code := range []Code{
		InvalidParameter, InvalidChannel, InvalidCursor, InvalidTransport, InvalidCallback, InvalidOrigin,
		InvalidMessage, InvalidKey, InvalidFrame, ForbiddenOrigin, ForbiddenHost, NotFound, MethodNotAllowed,
		TooLarge, UnsupportedBody, KeyReused, UpgradeRequired, Internal, TooManyConns, Draining, EngineUnavailable,
		TooSlow, Unauthorized, TokenExpired, TokenRevoked, InvalidTicket, TokenInURL, ForbiddenChannel, Forbidden,
		AuthUnavailable, RateLimited, ConnectionLimit, Overloaded,
	} {
		p := NewProblem(code, "what was wrong: \"x\"")
		switch code {
		case InvalidMessage:
			p.Line = 3
		case MethodNotAllowed:
			p.Allow = "GET, OPTIONS"
		case Internal:
			p.Detail = ""
		case Draining:
			p.RetryAfter = 2100 * time.Millisecond // rounded up
		case TooManyConns, EngineUnavailable, AuthUnavailable, RateLimited, ConnectionLimit, Overloaded:
			p.RetryAfter = 5 * time.Second
		}
		w := httptest.NewRecorder()
		p.Write(w)
		var b bytes.Buffer
		if err := w.Result().Write(&b); err != nil {
			t.Fatal(err)
		}
		got = append(got, b.Bytes()...)
	}
	golden(t, "problems", got)
	if len(kinds) != bytes.Count(got, []byte("HTTP/1.1 ")) {
		t.Errorf("%d problems, but there are %d codes", bytes.Count(got, []byte("HTTP/1.1 ")), len(kinds))
	}
}
