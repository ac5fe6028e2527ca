package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/halley-comet/halley/engine"
)

// FuzzEnvelope holds that a message's envelope is one line of JSON that gives
// the message back, and that it can stand in JavaScript and in HTML.
func FuzzEnvelope(f *testing.F) {
	f.Add("a", "", "application/json", []byte(`{"text" : "hello", "n":1.0e-5}`), int64(1764000000000), uint64(1))
	f.Add("chat/room/7", "said", "text/plain", []byte("lines\r\n\"\\ \x00 \u2028\u2029</script>&\xf0\x9f\x8c\xa0"), int64(0), uint64(0))
	f.Add("-_.~!$()@:+,=%", "é<\"", "image/png", []byte("\x89PNG\xff"), int64(-1), uint64(1<<63-1))
	f.Add("a", "", "application/x+json; charset=utf-8", []byte("[\"\u2028\\u2028\\\\\", \"\\\"\" ,\n[ ] , null]"), int64(1), uint64(2))
	f.Add("a", "", `application/x; p="q\"\\"`, []byte(nil), int64(1), uint64(3))
	f.Fuzz(func(t *testing.T, channel, typ, contentType string, data []byte, ms int64, seq uint64) {
		m := engine.Message{ID: engine.Cursor{Epoch: "e", Seq: seq}, Channel: channel, Type: typ, ContentType: contentType, Data: data, Time: ms}
		kind := engine.KindOf(contentType)
		if m.Check() != nil || kind == engine.JSON && (!json.Valid(data) || !utf8.Valid(data)) {
			t.Skip()
		}
		const before = "before"
		b := AppendEnvelope([]byte(before), &m)
		envelope, ok := bytes.CutPrefix(b, []byte(before))
		if !ok {
			t.Fatalf("what was there before is gone: %q", b)
		}
		checkLine(t, envelope)

		var got struct {
			ID, Channel, Type, ContentType string
			Time                           int64
			Data                           json.RawMessage
			Data64                         *[]byte
		}
		if err := json.Unmarshal(envelope, &got); err != nil {
			t.Fatalf("%s: %v", envelope, err)
		}
		if got.ID != m.ID.String() || got.Channel != channel || got.Type != typ || got.Time != ms {
			t.Errorf("got %+v, want %+v", got, m)
		}
		switch kind {
		case engine.JSON:
			var want bytes.Buffer
			if err := json.Compact(&want, data); err != nil {
				t.Fatal(err)
			}
			if w := strings.NewReplacer("\u2028", `\u2028`, "\u2029", `\u2029`).Replace(want.String()); string(got.Data) != w {
				t.Errorf("data: got %s, want %s", got.Data, w)
			}
		case engine.Text:
			var s string
			if err := json.Unmarshal(got.Data, &s); err != nil || s != string(data) {
				t.Errorf("data: got %q, %v, want %q", s, err, data)
			}
		default:
			if got.Data64 == nil || !bytes.Equal(*got.Data64, data) || got.ContentType != contentType {
				t.Errorf("got %+v, want %+v", got, m)
			}
		}

		script := AppendScriptSafe(nil, envelope)
		checkLine(t, script)
		if bytes.ContainsAny(script, "<>&") {
			t.Errorf("%s could leave its script", script)
		}
		if !reflect.DeepEqual(decode(t, script), decode(t, envelope)) {
			t.Errorf("in a script %s becomes %s", envelope, script)
		}
	})
}

// checkLine checks for one line of JSON, which is JavaScript too.
func checkLine(t *testing.T, b []byte) {
	t.Helper()
	if !json.Valid(b) || !utf8.Valid(b) {
		t.Errorf("%q is not JSON", b)
	}
	if bytes.ContainsAny(b, "\r\n") || bytes.Contains(b, []byte("\u2028")) || bytes.Contains(b, []byte("\u2029")) {
		t.Errorf("%q is not one line", b)
	}
}

func decode(t *testing.T, b []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

// FuzzString holds that any bytes at all make a JSON string, in which those
// that are not UTF-8 are replaced. Titles, details and types are made so.
func FuzzString(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\/\b\f\n\r\t\x00\x1f\x7f", "\u2028\u2029\ufeff\ufffd", "\xff\xc0\x80\xed\xa0\x80\xe2\x80", "🌠"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := AppendString(nil, data)
		checkLine(t, b)
		if s := AppendString(nil, string(data)); !bytes.Equal(b, s) {
			t.Errorf("of bytes %s, of a string %s", b, s)
		}
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if want := string([]rune(string(data))); got != want {
			t.Errorf("got %q, want %q", got, want)
		}

		p := NewProblem(InvalidMessage, string(data))
		p.Line = len(data)
		for _, b := range [][]byte{
			AppendControl(nil, &Control{Kind: Error, Problem: p, Ref: b}),
			AppendControl(nil, &Control{Kind: Ack, Ref: b}),
		} {
			checkLine(t, b)
			var c struct{ Ref, Detail string }
			if err := json.Unmarshal(b, &c); err != nil || c.Ref != got || c.Detail != got && c.Detail != "" {
				t.Errorf("%s: got %+v, %v, want %q", b, c, err, got)
			}
		}
	})
}
