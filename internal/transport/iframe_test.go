package transport

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/halley-comet/halley/internal/wire"
)

// FuzzIFrame holds that nothing in a message can leave its script: HTML ends a
// script at "</script", and knows states that begin with "<!--".
func FuzzIFrame(f *testing.F) {
	addMessages(f)
	f.Fuzz(func(t *testing.T, channel, typ, contentType string, data []byte) {
		m := fuzzMessage(t, channel, typ, contentType, data)
		c := notice(string(data))
		for _, frame := range []struct{ frame, envelope []byte }{
			{iframe{}.AppendMessage(nil, m), wire.AppendEnvelope(nil, m)},
			{iframe{}.AppendControl(nil, c), wire.AppendControl(nil, c)},
		} {
			script, begun := bytes.CutPrefix(frame.frame, []byte("<script>_("))
			script, ended := bytes.CutSuffix(script, []byte(")</script>"))
			if !begun || !ended || bytes.ContainsAny(script, "<>&\r\n") || bytes.Contains(script, []byte("\u2028")) || bytes.Contains(script, []byte("\u2029")) {
				t.Fatalf("frame %q", frame.frame)
			}
			if got, want := value(t, script), value(t, frame.envelope); !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	})
}

func value(t *testing.T, b []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

// The preamble has at least the padding asked for, in a comment that ends.
func TestIFramePadding(t *testing.T) {
	s := newIFrame(&Request{Origin: "https://page.example"}, framers{})
	bare := string(s.head(0))
	for padding := range 1000 {
		head := string(s.head(padding))
		comment, ok := strings.CutPrefix(head, bare)
		if !ok || len(head) < padding || comment != "" && comment != "<!--"+strings.Repeat(" ", len(comment)-8)+"-->\n" {
			t.Fatalf("padding %d: %d bytes, %q", padding, len(head), comment)
		}
	}
}

// Who may frame the page: its own origin, the one that gets the messages, and
// those that are listed, as far as a policy can name them.
func TestIFrameAncestors(t *testing.T) {
	listed := []string{"https://App.example.com/", "http://localhost:3000", "http://[::1]:3000", "http://192.168.0.7", "capacitor://localhost", "https://*.example.com", "https://under_score.example"}
	const all = " https://app.example.com http://localhost:3000"
	for _, tt := range []struct {
		origins []string
		origin  string
		want    string
	}{
		{nil, "", "; frame-ancestors 'self'"},
		{nil, "https://page.example:8443", "; frame-ancestors 'self' https://page.example:8443"},
		{nil, "http://127.0.0.1:8080", "; frame-ancestors 'self' http://127.0.0.1:8080"},
		{listed, "", "; frame-ancestors 'self'" + all},
		{listed, "https://page.example", "; frame-ancestors 'self' https://page.example" + all},
		{listed, "http://localhost:3000", "; frame-ancestors 'self'" + all},
		{listed, "http://localhost", "; frame-ancestors 'self' http://localhost" + all},
		{append(listed, "*"), "https://page.example", ""},
		{listed, "http://[::1]:3000", ""}, // no policy can name it
		{listed, "http://192.168.0.7", ""},
		{listed, "http://page.example.", ""},
		{listed, "http://under_score.example", ""},
	} {
		h := http.Header{}
		newIFrame(&Request{Callback: "f", Origin: tt.origin}, newFramers(tt.origins)).setHeader(h)
		want := "default-src 'none'; script-src 'unsafe-inline'" + tt.want
		if got := h.Get("Content-Security-Policy"); got != want {
			t.Errorf("%q for %v:\ngot  %s\nwant %s", tt.origin, tt.origins, got, want)
		}
	}
}
