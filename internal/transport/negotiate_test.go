package transport

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// The transport of a request that names none (protocol 8.3, 8.4).
func TestNegotiate(t *testing.T) {
	for _, c := range []struct {
		accept []string
		want   string
	}{
		{nil, LongPolling},
		{[]string{""}, LongPolling},
		{[]string{"*/*"}, LongPolling},
		{[]string{"text/*"}, LongPolling},
		{[]string{"application/json"}, LongPolling},
		{[]string{"text/event-stream"}, SSE},
		{[]string{"TEXT/Event-Stream;charset=utf-8"}, SSE},
		{[]string{"multipart/x-mixed-replace"}, Multipart},
		{[]string{"application/x-ndjson"}, XHRStreaming},
		{[]string{"text/event-stream, */*"}, SSE},
		{[]string{"*/*, text/event-stream"}, SSE},
		{[]string{"*/*, text/event-stream;q=0.9"}, LongPolling},
		{[]string{"*/*;q=0.1, text/event-stream;q=0.9"}, SSE},
		{[]string{"application/x-ndjson, multipart/x-mixed-replace, text/event-stream"}, SSE},
		{[]string{"application/x-ndjson, multipart/x-mixed-replace"}, Multipart},
		{[]string{"application/x-ndjson;q=0.5, multipart/x-mixed-replace;q=0.4"}, XHRStreaming},
		{[]string{"multipart/x-mixed-replace;q=0.5", "text/event-stream;q=0.5"}, SSE},
		{[]string{"text/event-stream;q=0"}, LongPolling},
		{[]string{"text/event-stream;q=0, application/x-ndjson;q=0.001"}, XHRStreaming},
		{[]string{"text/event-stream;q=2, application/x-ndjson;q=0.1"}, XHRStreaming},
		{[]string{"text/event-stream;q=x, application/x-ndjson;q=0.1"}, XHRStreaming},
		{[]string{"text/event-stream; v=1; Q=0.2, application/x-ndjson; q=0.3"}, XHRStreaming},
		{[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}, LongPolling},
		{[]string{",,;,"}, LongPolling},
	} {
		h := http.Header{"Accept": c.accept}
		if got := negotiate(h); got != c.want {
			t.Errorf("Accept %q: got %s, want %s", c.accept, got, c.want)
		}
		h["Upgrade"] = []string{"h2c, WebSocket"}
		if got := negotiate(h); got != WebSocket {
			t.Errorf("Accept %q and an upgrade: got %s", c.accept, got)
		}
	}
}

// What is chosen is what Accept has with the highest weight, however the header
// is written.
func FuzzNegotiate(f *testing.F) {
	for _, accept := range []string{
		"", "*/*", "text/event-stream", "TEXT/Event-Stream;charset=utf-8", "application/x-ndjson;q=0.5, multipart/x-mixed-replace;q=0.4",
		"text/event-stream;q=0, application/x-ndjson;q=0.001", "text/event-stream; v=1; Q=0.2, application/x-ndjson; q=0.3", ",,;,", "text/event-stream;q=NaN",
		"text/event-stream;q=0x1p-2, */*;q=0.2", "application/x-ndjson;q=1e0", "text/event-stream;q=+1",
	} {
		f.Add(accept)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		got := negotiate(http.Header{"Accept": {accept}})
		elements := strings.Split(accept, ",")
		slices.Reverse(elements)
		for _, same := range [][]string{
			{strings.Map(upper, accept)}, elements, {strings.Join(elements, " ,\t")}, {accept, "text/event-stream;q=0", "application/x-ndjson; q=x"}, {"", accept},
		} {
			if other := negotiate(http.Header{"Accept": same}); other != got {
				t.Errorf("%q: got %s, and %s of %q", accept, got, other, same)
			}
		}
		weights := map[string]float64{}
		for _, e := range elements {
			media, params, _ := strings.Cut(e, ";")
			name := LongPolling
			switch strings.ToLower(strings.TrimSpace(media)) {
			case "":
				continue
			case "text/event-stream":
				name = SSE
			case "multipart/x-mixed-replace":
				name = Multipart
			case "application/x-ndjson":
				name = XHRStreaming
			}
			q := quality(params)
			if !(q >= 0 && q <= 1) {
				t.Errorf("%q has weight %v", e, q)
			}
			weights[name] = max(weights[name], q)
		}
		for name, q := range weights {
			if q > weights[got] {
				t.Errorf("%q: got %s of weight %v, and %s has %v", accept, got, weights[got], name, q)
			}
		}
		if got != LongPolling && weights[got] == 0 {
			t.Errorf("%q: got %s, which it does not want", accept, got)
		}
	})
}

// upper makes a capital of a letter of ASCII. Others are in no media type.
func upper(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r - 'a' + 'A'
	}
	return r
}
