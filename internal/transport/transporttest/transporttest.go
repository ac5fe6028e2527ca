// Package transporttest is the suite that every transport passes, on any
// engine: what a client sees of the native protocol's seven transports, and
// that it may change from one to any other at every byte.
package transporttest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

var full = flag.Bool("transporttest.full", false, "resume anew for every byte at which a stream is cut")

// New makes an empty engine whose channels keep what r says, or what is its
// default where r is zero. It is called in a synctest bubble.
type New func(t testing.TB, r engine.Retention) engine.Engine

// Run runs the suite.
func Run(t *testing.T, newEngine New) {
	for _, c := range []struct {
		name string
		// protocols are HTTP1 and H2C unless it says otherwise.
		protocols []Protocol
		skip      func(variant) bool
		options   halley.Options
		retention engine.Retention
		run       func(*fixture)
	}{
		{name: "order", protocols: []Protocol{HTTP1, HTTP1TLS, H2C, HTTP2}, run: testOrder},
		{name: "kinds", run: testKinds},
		{name: "patterns", run: testPatterns},
		{name: "gap", retention: engine.Retention{Count: 3}, run: testGap, skip: silent},
		{name: "earliest", retention: engine.Retention{Count: 3}, run: testEarliest},
		{name: "heartbeat", run: testHeartbeat, skip: quiet, options: halley.Options{Heartbeat: 3 * time.Second}},
		{name: "idle", run: testIdle, options: halley.Options{Heartbeat: 10 * time.Minute, WriteTimeout: time.Second, MultipartLimit: time.Hour}},
		{name: "poll", protocols: []Protocol{HTTP1}, run: testPoll, skip: holds},
		{name: "padding", run: testPadding},
		{name: "drain", protocols: []Protocol{HTTP1, H2C, HTTP2}, run: testDrain},
		{name: "close", run: testClose},
		{name: "limit", run: testLimit, skip: func(v variant) bool { return !v.silent }},
		{name: "leave", run: testLeave},
		{name: "slow", run: testSlow, skip: polls, retention: engine.Retention{Count: 20}, options: halley.Options{WriteTimeout: 7 * time.Second, MaxMessage: 4 << 20}},
		{name: "unread", protocols: []Protocol{HTTP1}, run: testUnread, options: halley.Options{WriteTimeout: 7 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, v := range variants {
				if c.skip != nil && c.skip(v) {
					continue
				}
				protocols := c.protocols
				if protocols == nil {
					protocols = []Protocol{HTTP1, H2C}
				}
				for _, p := range protocols {
					if p.two() && v.webSocket() {
						continue
					}
					t.Run(v.name+"/"+string(p), func(t *testing.T) {
						bubble(t, func(t *testing.T) {
							c.run(newFixture(t, newEngine(t, c.retention), v, p, c.options))
						})
					})
				}
			}
		})
	}
	t.Run("http1.0", func(t *testing.T) { testHTTP10(t, newEngine) })
	t.Run("goroutines", func(t *testing.T) { testGoroutines(t, newEngine) })
	t.Run("seam", func(t *testing.T) { testSeam(t, newEngine) })
}

func silent(v variant) bool { return v.silent }
func polls(v variant) bool  { return v.polls }
func holds(v variant) bool  { return !v.polls }
func quiet(v variant) bool  { return v.silent || v.polls }

// bubble runs f in a synctest bubble, which ends when all of its goroutines
// have, and panics if they do not.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// A fixture is a hub and a server for one variant.
type fixture struct {
	*testing.T
	v    variant
	log  engine.Engine
	hub  *halley.Hub
	srv  *Server
	opts halley.Options
}

func newFixture(t *testing.T, e engine.Engine, v variant, p Protocol, o halley.Options) *fixture {
	t.Helper()
	t.Cleanup(func() { _ = e.Close() }) // some tests have closed it
	f := &fixture{T: t, v: v, log: e, opts: o}
	f.hub = newHub(t, e, o)
	f.srv = Serve(t, &http.Server{Handler: f.hub}, p)
	return f
}

func newHub(t testing.TB, e engine.Engine, o halley.Options) *halley.Hub {
	t.Helper()
	o.Workers = 2
	o.Logger = slog.New(slog.DiscardHandler)
	hub, err := halley.New(e, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hub.Close() }) // it returns nil
	return hub
}

// trimmed waits until a channel has no more than so many messages, for engines
// that apply retention a little later.
func trimmed(t testing.TB, log engine.Engine, channel string, most int) {
	t.Helper()
	for range 10_000 {
		page, err := log.Read(t.Context(), engine.Query{Channels: []string{channel}})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Messages) <= most {
			return
		}
		pass(time.Millisecond)
	}
	t.Fatalf("channel %s has more than %d messages", channel, most)
}

// publish stores messages and returns them with their ids.
func (f *fixture) publish(list ...engine.Message) []engine.Message {
	f.Helper()
	return publish(f, f.hub, list...)
}

func publish(t testing.TB, hub *halley.Hub, list ...engine.Message) []engine.Message {
	t.Helper()
	ids, err := hub.Publish(context.Background(), slices.Clone(list)...)
	if err != nil {
		t.Fatal(err)
	}
	list = slices.Clone(list)
	for i := range list {
		list[i].ID = ids[i]
	}
	return list
}

// open subscribes with parameters, "name=value".
func (f *fixture) open(params ...string) *feed {
	f.Helper()
	return f.srv.open(f, f.v, nil, params...)
}

// settled returns what the feed has got once nothing moves any more.
func settled(c *feed) []Event {
	synctest.Wait()
	return c.got()
}

// want compares what a client got with messages.
func (f *fixture) want(what string, got []Event, list []engine.Message) {
	f.Helper()
	want := make([]Event, 0, len(list))
	for i := range list {
		want = append(want, f.v.eventOf(&list[i]))
	}
	f.equal(what, messages(got), want)
}

func (f *fixture) equal(what string, got, want []Event) {
	f.Helper()
	n := 0
	for n < min(len(got), len(want)) && got[n] == want[n] {
		n++
	}
	if n == len(got) && n == len(want) {
		return
	}
	event := func(list []Event) string {
		if n == len(list) {
			return "the end"
		}
		return fmt.Sprintf("%+v", list[n])
	}
	f.Errorf("%s: event %d is %s, want %s (%d events, want %d)", what, n, event(got), event(want), len(got), len(want))
}

// controls returns the events that are not messages.
func controls(events []Event) []Event {
	return slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return e.Control == "" })
}

// end returns the log's end as a parameter.
func (f *fixture) end() string { return "cursor=" + f.log.End().String() }

func text(channel, data string) engine.Message {
	return engine.Message{Channel: channel, ContentType: "text/plain; charset=utf-8", Data: []byte(data)}
}

func jsonData(channel, typ, data string) engine.Message {
	return engine.Message{Channel: channel, Type: typ, ContentType: "application/json", Data: []byte(data)}
}

func rawData(channel string, data ...byte) engine.Message {
	return engine.Message{Channel: channel, ContentType: "application/octet-stream", Data: data}
}

// samples are messages of every kind, on a, b and b/c.
func samples() []engine.Message {
	list := []engine.Message{
		jsonData("a", "said", `{"n": 1.0e5, "s":"<b>&</b>", "deep":[[{}],{"x":null}]}`),
		text("b", "plain"),
		text("b/c", "lines\nand\rmore\r\nof them\n\n"),
		rawData("a", 0, 255, '\r', '\n', '\r', '\n', '-', '-'),
		text("b/c", "</script><script>alert(1)</script><!--"),
		text("a", "separators \u2028 and \u2029, \ufeff, \x00 and 🌠"),
		jsonData("a", "", "[1,\n 2,\r\n 12345678901234567890.50]"),
		jsonData("b", "é ü", `"a string \u2028 `+"\u2028"+` \"quoted\" \\ \u003c"`),
		{Channel: "b", ContentType: "application/ld+json; charset=utf-8", Data: []byte("\n true \n")},
		{Channel: "a", Type: "picture", ContentType: "image/svg+xml", Data: []byte("<svg/>")},
		{Channel: "a", Type: "page", ContentType: "text/csv", Data: []byte("data: x\n\nid: e-1\n\n: y\n")},
		text("b/c", `{"control":"reconnect","delay":0}`),
		jsonData("a", "", "0"),
		text("b", "event: comet:gap\ndata: no\n"),
		rawData("b/c", bytes.Repeat([]byte("--x\r\n"), 300)...),
		text("a", "last"),
	}
	return list
}

// visible drops what the variant does not show: raw multipart has active
// content only on channels that are configured for it.
func (v variant) visible(list []engine.Message) []engine.Message {
	if !v.silent {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(m engine.Message) bool { return m.ContentType == "image/svg+xml" })
}

func query(name string, values ...string) (params []string) {
	for _, v := range values {
		params = append(params, fmt.Sprintf("%s=%s", name, v))
	}
	return params
}
