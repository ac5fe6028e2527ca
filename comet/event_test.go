package comet

import (
	"testing"
	"time"
)

func TestEnvelope(t *testing.T) {
	// Each envelope that is decoded comes back as it was, byte for byte.
	for _, e := range []string{openEnvelope, gapEnvelope, messageEnvelope, textEnvelope, binaryEnvelope, beatEnvelope, reconnect,
		`{"id":"e-1","channel":"a","time":1,"data":null}`,
		`{"id":"e-1","channel":"a","time":1,"data64":"","contentType":"application/octet-stream"}`,
		`{"id":"e-1","channel":"a","time":1,"data":12345678901234567890}`,
	} {
		f, ok, err := decode([]byte(e))
		if !ok || err != nil || string(f.Event.Envelope()) != e {
			t.Errorf("got %s, %v, want %s", f.Event.Envelope(), err, e)
		}
	}
	if got := string(Event{Control: Reconnect, Cursor: "e-1"}.Envelope()); got != `{"control":"reconnect","delay":0}` {
		t.Errorf("got %s", got)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, e := range []string{``, `5`, `{}`, `{"id":"e-1"}`, `{"data":1}`, `{"control":"open"}`, `{"id":"e-1","data64":"?"}`} {
		if f, ok, err := decode([]byte(e)); err == nil {
			t.Errorf("%s: got %+v, %v, want an error", e, f, ok)
		}
	}
}

func TestMessageText(t *testing.T) {
	for _, test := range []struct {
		m    Message
		want string
	}{
		{Message{Data: []byte(`"a\u003cb\n"`)}, "a<b\n"},
		{Message{Data: []byte(`{"a":1.0}`)}, `{"a":1.0}`},
		{Message{Data: []byte(`null`)}, `null`},
		{Message{Data64: []byte{1, 2}}, "\x01\x02"},
	} {
		if got := test.m.Text(); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.m, got, test.want)
		}
	}
}

func TestEncodeLine(t *testing.T) {
	for _, test := range []struct {
		p    Publication
		want string
	}{
		{Publication{Channel: "a", Type: "t", ContentType: "text/plain", Data: []byte("<\n>")}, `{"channel":"a","type":"t","data":"<\n>"}`},
		{Publication{Channel: "a", ContentType: "application/json", Data: []byte("{\n \"n\": 1.0e5}")}, `{"channel":"a","data":{"n":1.0e5}}`},
		// A string would come back as text, and a broken one must be refused by the server.
		{Publication{Channel: "a", ContentType: "application/json", Data: []byte(`"s"`)}, `{"channel":"a","data64":"InMi","contentType":"application/json"}`},
		{Publication{Channel: "a", ContentType: "application/json", Data: []byte(`{`)}, `{"channel":"a","data64":"ew==","contentType":"application/json"}`},
		{Publication{Channel: "a", ContentType: "text/plain", Data: []byte("\xff")}, `{"channel":"a","data64":"/w==","contentType":"text/plain"}`},
		{Publication{Channel: "a", ContentType: "text/html", Data: []byte("x")}, `{"channel":"a","data64":"eA==","contentType":"text/html"}`},
		{Publication{Channel: "a"}, `{"channel":"a","data64":"","contentType":"application/octet-stream"}`},
	} {
		if got := string(encodeLine(test.p)); got != test.want {
			t.Errorf("%+v: got %s, want %s", test.p, got, test.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{Min: time.Second, Max: 5 * time.Second}
	for n, bound := range []time.Duration{1, 2, 4, 5, 5} {
		var highest time.Duration
		for range 2000 {
			d := b.delay(n, 0)
			if d <= 0 || d > bound*time.Second {
				t.Fatalf("attempt %d: %v, want at most %v", n, d, bound*time.Second)
			}
			highest = max(highest, d)
		}
		if highest < bound*time.Second*9/10 {
			t.Errorf("attempt %d: 2,000 delays were at most %v, want up to %v", n, highest, bound*time.Second)
		}
	}
	if d := b.delay(1<<30, time.Hour); d > 5*time.Second {
		t.Errorf("got %v, want Max to hold", d)
	}
}
