package transport

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

var defaults = Defaults{Timeout: 25 * time.Second, MaxChannels: 5}

// What the protocol says of a subscribe request's parameters, and what comes
// of those that are not so.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		query string
		code  wire.Code // empty if it is accepted
		want  func(*Request) bool
	}{
		{"channel=a", "", func(q *Request) bool {
			return q.Transport == LongPolling && !q.Raw && q.Start.Now && q.Timeout == 25*time.Second && q.Padding == 0
		}},
		{"channel=a&transport=", "", func(q *Request) bool { return q.Transport == LongPolling }},
		{"channel=a&transport=polling", wire.InvalidTransport, nil},
		{"channel=a&transport=SSE", wire.InvalidTransport, nil},

		{"transport=sse", wire.InvalidChannel, nil},
		{"channel=", wire.InvalidChannel, nil},
		{"channel=a&channel=", wire.InvalidChannel, nil},
		{"channel=a//b", wire.InvalidChannel, nil},
		{"channel=a/*/b", wire.InvalidChannel, nil},
		{"channel=meta/x", wire.InvalidChannel, nil},
		{"channel=meta/*", wire.InvalidChannel, nil},
		{"channel=1&channel=2&channel=3&channel=4&channel=5&channel=6", wire.InvalidChannel, nil},
		{"channel=1&channel=1&channel=3&channel=4&channel=5&channel=6", "", func(q *Request) bool {
			return slices.Equal(q.Channels, []string{"1", "3", "4", "5", "6"})
		}},
		{"transport=websocket", "", func(q *Request) bool { return len(q.Channels) == 0 }},

		{"channel=a&cursor=", "", func(q *Request) bool { return q.Start.Now }},
		{"channel=a&cursor=now", "", func(q *Request) bool { return q.Start.Now }},
		{"channel=a&cursor=earliest", "", func(q *Request) bool { return q.Start == Start{} }},
		{"channel=a&cursor=e-1", "", func(q *Request) bool { return q.Start == Start{Cursor: engine.Cursor{Epoch: "e", Seq: 1}} }},
		{"channel=a&cursor=e-1&cursor=x", "", func(q *Request) bool { return q.Start.Cursor.Seq == 1 }},
		{"channel=a&cursor=Earliest", wire.InvalidCursor, nil},
		{"channel=a&cursor=e-01", wire.InvalidCursor, nil},
		{"channel=a&cursor=e-%2B1", wire.InvalidCursor, nil},
		{"channel=a&cursor=e-9223372036854775808", wire.InvalidCursor, nil},
		{"channel=a&cursor=E-1", wire.InvalidCursor, nil},
		{"channel=a&cursor=-1", wire.InvalidCursor, nil},
		{"channel=a&cursor=12345678901234567-1", wire.InvalidCursor, nil},

		{"channel=a&format=envelope", "", func(q *Request) bool { return !q.Raw }},
		{"channel=a&format=raw", wire.InvalidParameter, nil},
		{"channel=a&transport=websocket&format=raw", wire.InvalidParameter, nil},
		{"channel=a&transport=sse&format=", "", func(q *Request) bool { return q.Raw }},
		{"channel=a&transport=sse&format=raw", "", func(q *Request) bool { return q.Raw }},
		{"channel=a&transport=sse&format=envelope", "", func(q *Request) bool { return !q.Raw }},
		{"channel=a&transport=multipart", "", func(q *Request) bool { return q.Raw }},
		{"channel=a&transport=multipart&format=json", wire.InvalidParameter, nil},

		{"channel=a&timeout=0", "", func(q *Request) bool { return q.Timeout == 0 }},
		{"channel=a&timeout=0.25", "", func(q *Request) bool { return q.Timeout == 250*time.Millisecond }},
		{"channel=a&timeout=999999999.999999999", "", func(q *Request) bool { return q.Timeout == time.Minute }},
		{"channel=a&timeout=1234567890", wire.InvalidParameter, nil},
		{"channel=a&timeout=-1", wire.InvalidParameter, nil},
		{"channel=a&timeout=1e3", wire.InvalidParameter, nil},
		{"channel=a&timeout=.5", wire.InvalidParameter, nil},
		{"channel=a&timeout=NaN", wire.InvalidParameter, nil},
		{"channel=a&timeout=25s", wire.InvalidParameter, nil},
		{"channel=a&transport=sse&timeout=x", wire.InvalidParameter, nil},

		{"channel=a&padding=65536", "", func(q *Request) bool { return q.Padding == 65536 }},
		{"channel=a&padding=65537", wire.InvalidParameter, nil},
		{"channel=a&padding=-1", wire.InvalidParameter, nil},
		{"channel=a&padding=0x10", wire.InvalidParameter, nil},
		{"channel=a&padding=1.5", wire.InvalidParameter, nil},
		{"channel=a&transport=iframe&callback=f", "", func(q *Request) bool { return q.Padding == 2048 }},
		{"channel=a&transport=iframe&callback=f&padding=0", "", func(q *Request) bool { return q.Padding == 0 }},

		{"channel=a&transport=jsonp", wire.InvalidCallback, nil},
		{"channel=a&transport=jsonp&callback=", wire.InvalidCallback, nil},
		{"channel=a&transport=jsonp&origin=https://a.example", wire.InvalidCallback, nil},
		{"channel=a&transport=jsonp&callback=" + strings.Repeat("a", 64), "", func(q *Request) bool { return len(q.Callback) == 64 }},
		{"channel=a&transport=jsonp&callback=" + strings.Repeat("a", 65), wire.InvalidCallback, nil},
		{"channel=a&transport=jsonp&callback=_.$1.b_2", "", func(q *Request) bool { return q.Callback == "_.$1.b_2" }},
		{"channel=a&transport=jsonp&callback=1a", wire.InvalidCallback, nil},
		{"channel=a&transport=jsonp&callback=a..b", wire.InvalidCallback, nil},
		{"channel=a&transport=jsonp&callback=a[0]", wire.InvalidCallback, nil},
		{"channel=a&transport=jsonp&callback=a%0A", wire.InvalidCallback, nil},
		{"channel=a&transport=jsonp&callback=%C3%A9", wire.InvalidCallback, nil},
		{"channel=a&transport=jsonp&callback=alert(1)", wire.InvalidCallback, nil},
		{"channel=a&callback=alert(1)", "", func(q *Request) bool { return q.Callback == "" }},

		{"channel=a&transport=iframe", wire.InvalidCallback, nil},
		{"channel=a&transport=iframe&callback=a-b&origin=https://a.example", wire.InvalidCallback, nil},
		{"channel=a&transport=iframe&callback=f&origin=*", wire.InvalidOrigin, nil},
		{"channel=a&transport=iframe&origin=null", wire.InvalidOrigin, nil},
		{"channel=a&transport=iframe&origin=https://a.example/", wire.InvalidOrigin, nil},
		{"channel=a&transport=iframe&origin=https://A.example", wire.InvalidOrigin, nil},
		{"channel=a&transport=iframe&origin=file://", wire.InvalidOrigin, nil},
		{"channel=a&transport=iframe&origin=https://a.example%22)", wire.InvalidOrigin, nil},
		{"channel=a&transport=iframe&origin=https://a.example%0A", wire.InvalidOrigin, nil},
		{"channel=a&transport=iframe&origin=http://a.example:123456", wire.InvalidOrigin, nil},
		{"channel=a&transport=iframe&origin=http://" + strings.Repeat("a", 300), wire.InvalidOrigin, nil},
		{"channel=a&transport=iframe&origin=http://[::1]:8080", "", func(q *Request) bool { return q.Origin == "http://[::1]:8080" }},
		{"channel=a&transport=iframe&origin=http://localhost:8080", "", func(q *Request) bool { return q.Origin == "http://localhost:8080" }},
		{"channel=a&transport=sse&origin=null", "", func(q *Request) bool { return q.Origin == "" }},
		{"channel=a&unknown=%00&token=t&ticket=t", "", func(q *Request) bool { return true }},
	} {
		form, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		q, p := Parse(&http.Request{Header: http.Header{}}, form, defaults)
		switch {
		case p == nil && c.code != "":
			t.Errorf("%s: accepted, want %s", c.query, c.code)
		case p != nil && p.Code != c.code:
			t.Errorf("%s: got %s, want %q", c.query, p.Code, c.code)
		case p == nil && !c.want(q):
			t.Errorf("%s: got %+v", c.query, q)
		}
	}
}

// Last-Event-ID wins over the cursor, and cannot be wrong (protocol 8.5).
func TestParseLastEventID(t *testing.T) {
	for _, c := range []struct {
		query, last string
		want        Start
	}{
		{"cursor=e-1", "e-2", Start{Cursor: engine.Cursor{Epoch: "e", Seq: 2}}},
		{"cursor=e-1", "", Start{Cursor: engine.Cursor{Epoch: "e", Seq: 1}}},
		{"", "now", Start{Now: true}},
		{"cursor=now", "earliest", Start{}},
		{"cursor=e-1", "42", Start{Cursor: nowhere}},
		{"cursor=e-1", "é", Start{Cursor: nowhere}},
	} {
		for _, name := range Names {
			form, err := url.ParseQuery("channel=a&callback=f&transport=" + name + "&" + c.query)
			if err != nil {
				t.Fatal(err)
			}
			r := &http.Request{Header: http.Header{"Last-Event-Id": {c.last}}}
			q, p := Parse(r, form, defaults)
			if p != nil || q.Start != c.want {
				t.Errorf("%s, %q after %q: got %+v, %v, want %+v", name, c.last, c.query, q.Start, p, c.want)
			}
		}
	}
	form := url.Values{"channel": {"a"}, "cursor": {"malformed"}}
	if _, p := Parse(&http.Request{Header: http.Header{"Last-Event-Id": {"e-1"}}}, form, defaults); p == nil || p.Code != wire.InvalidCursor {
		t.Errorf("a malformed cursor beside Last-Event-ID: got %v", p)
	}
	if nowhere.Epoch == "" || engine.ValidEpoch(nowhere.Epoch) {
		t.Errorf("%q may be a log's epoch", nowhere.Epoch)
	}
}

// FuzzParse holds that any request is refused with a problem of its own, or
// else keeps to the protocol.
func FuzzParse(f *testing.F) {
	f.Add("channel=a&channel=b/**&transport=sse&cursor=e1-7&format=raw", "", "", "")
	f.Add("channel=a&transport=jsonp&callback=app.on_1&timeout=0.5&padding=100", "*/*;q=0.1", "e-1", "")
	f.Add("transport=websocket&cursor=earliest", "text/event-stream;q=0.5, multipart/x-mixed-replace", "x", "h2c, websocket")
	f.Add("channel=a&transport=iframe&origin=http://[::1]:80&callback=f", "", "", "")
	f.Add("channel=a&transport=iframe&origin=http://[0]", "", "", "")
	f.Add("channel=%00&channel=a;b&timeout=1e9&padding=-0", "application/x-ndjson;q=;q", "", "")
	channel := regexp.MustCompile(`^([-0-9A-Za-z_.~!$()@:+,=%]+/)*([-0-9A-Za-z_.~!$()@:+,=%]+|\*\*?)$`)
	callback := regexp.MustCompile(`^[A-Za-z_$][0-9A-Za-z_$]*(\.[A-Za-z_$][0-9A-Za-z_$]*)*$`)
	f.Fuzz(func(t *testing.T, query, accept, last, upgrade string) {
		form, err := url.ParseQuery(query)
		if err != nil {
			t.Skip()
		}
		r := &http.Request{Header: http.Header{"Accept": {accept}, "Last-Event-Id": {last}, "Upgrade": {upgrade}}}
		q, p := Parse(r, form, defaults)
		// What a refusal is written to must be sound as well.
		if q == nil || !slices.Contains(Names, q.Transport) {
			t.Fatalf("got %+v", q)
		}
		if q.Callback != "" && (!callback.MatchString(q.Callback) || len(q.Callback) > 64) {
			t.Errorf("callback %q", q.Callback)
		}
		if q.Origin != "" {
			u, err := url.Parse(q.Origin)
			if err != nil || u.Scheme+"://"+u.Host != q.Origin || strings.ToLower(q.Origin) != q.Origin || strings.ContainsAny(q.Origin, "\"'\\<>&*\r\n ") {
				t.Errorf("origin %q", q.Origin)
			}
		}
		if p != nil {
			if p.Status != 400 || p.Detail == "" {
				t.Errorf("got %+v", p)
			}
			(&Server{Options: Options{Boundary: "B"}}).Refuse(httptest.NewRecorder(), r, q, p)
			return
		}
		if len(q.Channels) == 0 && q.Transport != WebSocket || len(q.Channels) > defaults.MaxChannels {
			t.Errorf("%d channels", len(q.Channels))
		}
		for i, c := range q.Channels {
			if !channel.MatchString(c) || len(c) > 255 || slices.Contains(q.Channels[:i], c) ||
				strings.HasPrefix(c, "meta/") || strings.HasPrefix(c, "service/") || strings.Contains("/"+c+"/", "/./") || strings.Contains("/"+c+"/", "/../") {
				t.Errorf("channel %q of %q", c, q.Channels)
			}
		}
		hasTarget := q.Callback != "" || q.Origin != ""
		if needs := q.Transport == JSONP || q.Transport == IFrame; needs != hasTarget || q.Transport == JSONP && q.Callback == "" {
			t.Errorf("%s with callback %q and origin %q", q.Transport, q.Callback, q.Origin)
		}
		if q.Raw && q.Transport != SSE && q.Transport != Multipart {
			t.Errorf("%s is raw", q.Transport)
		}
		if q.Timeout < 0 || q.Timeout > time.Minute || q.Padding < 0 || q.Padding > 65536 {
			t.Errorf("timeout %v, padding %d", q.Timeout, q.Padding)
		}
		if form.Get("padding") != "" && strconv.Itoa(q.Padding) != strings.TrimLeft(form.Get("padding"), "0") && q.Padding != 0 {
			t.Errorf("padding %d of %q", q.Padding, form.Get("padding"))
		}
		if q.Start.Now && q.Start.Cursor != (engine.Cursor{}) {
			t.Errorf("starts %+v", q.Start)
		}
		if c := q.Start.Cursor; c != nowhere && c != (engine.Cursor{}) {
			if parsed, err := engine.ParseCursor(c.String()); err != nil || parsed != c {
				t.Errorf("starts at %v: %v", c, err)
			}
		}
	})
}
