package e2e

import "testing"

// way is how a page holds a subscription (page/*.js): a transport, and one of
// the things that browsers offer for it.
type way struct {
	name       string
	stream     bool              // one response for many messages, opened by a control
	raw        bool              // data without its envelope
	sameOrigin bool              // not for pages of another origin
	absent     map[string]string // by engine: why it has no such way
}

var ways = []way{
	{name: "long-polling"},
	{name: "long-polling-post"},
	{name: "jsonp"},
	{name: "iframe", stream: true, sameOrigin: true},
	{name: "iframe-post", stream: true},
	{name: "multipart", stream: true, absent: map[string]string{
		"webkit": "fetch fails on multipart/x-mixed-replace",
	}},
	{name: "xhr", stream: true},
	{name: "fetch", stream: true},
	{name: "sse", stream: true},
	{name: "sse-raw", stream: true, raw: true},
	{name: "websocket", stream: true},
	{name: "websocket-frames", stream: true},
}

// eachWay runs test for every way, in one page; what the engine hasn't is
// skipped with the reason.
func eachWay(t *testing.T, p *page, test func(t *testing.T, p *page, w way)) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			if why := w.absent[p.engine]; why != "" {
				t.Skip(why)
			}
			test(t, p.in(t), w)
		})
	}
}
