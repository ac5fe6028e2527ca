package transport

import (
	"net/http"
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
