package comet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley/comet"
)

// A script answers a subscription's requests, one step each, without a network
// so that the clock is synctest's.
type script struct {
	t     *testing.T
	steps []step
	asked []url.Values // of each request, in order
	at    []time.Time  // when it came
}

// A step is one answer. A body that does not end with the end of the stream
// stays open and silent.
type step struct {
	path   string // subscribe if empty
	status int    // 200 if 0
	header http.Header
	body   string
	ends   bool // the body has an end
	hangs  bool // there is no answer at all
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	r.ParseForm()
	s.asked = append(s.asked, r.Form)
	s.at = append(s.at, time.Now())
	if len(s.asked) > len(s.steps) {
		s.t.Errorf("request %d is one too many: %s", len(s.asked), r.URL)
		return nil, errors.New("no more steps")
	}
	step := s.steps[len(s.asked)-1]
	if step.path == "" {
		step.path = "/comet/subscribe"
	}
	if r.URL.Path != step.path {
		s.t.Errorf("request %d: got %s, want %s", len(s.asked), r.URL.Path, step.path)
	}
	if step.hangs {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if step.status == 0 {
		step.status = 200
	}
	if step.header == nil {
		step.header = http.Header{"Content-Type": {"application/x-ndjson; charset=utf-8"}}
	}
	return &http.Response{StatusCode: step.status, Header: step.header, Body: &body{r.Context(), strings.NewReader(step.body), step.ends}}, nil
}

type body struct {
	ctx  context.Context
	r    io.Reader
	ends bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF && !b.ends {
		<-b.ctx.Done()
		err = b.ctx.Err()
	}
	return n, err
}

func (b *body) Close() error { return nil }

func kind(contentType string) http.Header { return http.Header{"Content-Type": {contentType}} }

// run subscribes within a bubble until there were n events, or an error, and
// returns them as lines.
func (s *script) run(t *testing.T, n int, o comet.Options, each func()) (lines []string, err error) {
	t.Helper()
	s.t = t
	if o.Channels == nil {
		o.Channels = []string{"a"}
	}
	if o.Transport == "" {
		o.Transport = comet.XHRStreaming
	}
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	client := &comet.Client{URL: "http://halley.test/comet/", HTTPClient: &http.Client{Transport: s}}
	for e, err := range client.Subscribe(ctx, o) {
		if err != nil {
			return lines, err
		}
		lines = append(lines, fmt.Sprintf("%s %s", e.Envelope(), e.Cursor))
		if len(lines) == n {
			break
		}
		if each != nil {
			each()
		}
	}
	return lines, nil
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const (
	open5     = `{"control":"open","id":"e-5","heartbeat":10}`
	open6     = `{"control":"open","id":"e-6","heartbeat":10}`
	message6  = `{"id":"e-6","channel":"a","time":1,"data":6}`
	message7  = `{"id":"e-7","channel":"a","time":1,"data":7}`
	heartbeat = `{"control":"heartbeat","id":"e-9"}`
)

func TestComesBackFromItsCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []step{
			{body: open5 + "\n" + message6 + "\n" + message7[:20], ends: true}, // an unfinished tail
			{body: open6 + "\n" + message7 + "\n"},
		}}
		lines, err := s.run(t, 4, comet.Options{Cursor: "e-5"}, nil)
		expect(t, lines, open5+" e-5", message6+" e-6", open6+" e-6", message7+" e-7")
		if got := fmt.Sprint(s.asked[0]["cursor"], s.asked[1]["cursor"]); err != nil || got != "[e-5] [e-6]" {
			t.Errorf("asked with the cursors %s, %v", got, err)
		}
		if wait := s.at[1].Sub(s.at[0]); wait <= 0 || wait > time.Second {
			t.Errorf("came back after %v, want a time up to a second", wait)
		}
	})
}

// gone ends a script, as it ends any subscription.
var gone = step{status: 410, ends: true}

func TestFaults(t *testing.T) {
	for name, first := range map[string]step{
		"end without a say-so": {body: open5 + "\n", ends: true},
		"no line":              {body: "", ends: true},
		"not JSON":             {body: open5 + "\n{\n"},
		"another type":         {header: kind("text/html"), body: "<html>Log in to the network"},
		"502":                  {status: 502, header: kind("text/html"), ends: true},
		"500 of the server":    {status: 500, header: kind("application/problem+json"), body: `{"status":500,"code":"internal"}`, ends: true},
		"429":                  {status: 429, ends: true},
		"503 error control":    {body: `{"control":"error","status":503,"code":"draining","title":"x"}` + "\n"},
		"redirect to nowhere":  {status: 304, ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: []step{first, gone}}
				var told []error
				o := comet.Options{Cursor: "e-5", Retrying: func(err error, delay time.Duration) {
					told = append(told, err)
					if delay <= 0 || delay > time.Second {
						t.Errorf("delay of %v, want up to a second", delay)
					}
				}}
				_, err := s.run(t, 0, o, nil)
				if p, ok := errors.AsType[*comet.Problem](err); !ok || p.Status != 410 || len(told) != 1 {
					t.Errorf("told of %v, ended with %v; want to be told once and the 410 of the second request", told, err)
				}
			})
		})
	}
}

func TestBackoffGrowsUntilSomethingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		for range 8 {
			s.steps = append(s.steps, step{body: open5 + "\n", ends: true})
		}
		s.steps = append(s.steps, step{body: open5 + "\n" + heartbeat + "\n", ends: true}, gone)
		var delays []time.Duration
		s.run(t, 0, comet.Options{Cursor: "e-5", Retrying: func(_ error, d time.Duration) { delays = append(delays, d) }}, nil)
		bound := time.Second
		for i, d := range delays {
			if i == 8 {
				bound = time.Second // the heartbeat was something
			}
			if d > bound {
				t.Errorf("delay %d was %v, want at most %v", i, d, bound)
			}
			bound = min(2*bound, 30*time.Second)
		}
		if len(delays) != 9 {
			t.Errorf("got %d delays, want 9", len(delays))
		}
	})
}

func TestRefusedForGood(t *testing.T) {
	problem := http.Header{"Content-Type": {"application/problem+json; charset=utf-8"}}
	for name, c := range map[string]struct {
		step step
		want comet.Problem
	}{
		"problem": {step{status: 400, header: problem, body: `{"status":400,"code":"invalid-cursor","title":"T","detail":"D"}`, ends: true},
			comet.Problem{Status: 400, Code: "invalid-cursor", Title: "T", Detail: "D"}},
		"of a proxy": {step{status: 404, header: kind("text/html"), body: "<html>", ends: true},
			comet.Problem{Status: 404, Title: "Not Found"}},
		"error control": {step{body: open5 + "\n" + `{"control":"error","status":403,"code":"forbidden-origin","title":"T"}` + "\n"},
			comet.Problem{Status: 403, Code: "forbidden-origin", Title: "T"}},
		"too slow": {step{body: open5 + "\n" + `{"control":"error","status":503,"code":"too-slow","title":"T"}` + "\n"},
			comet.Problem{Status: 503, Code: "too-slow", Title: "T"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: []step{c.step}}
				_, err := s.run(t, 0, comet.Options{}, nil)
				if p, ok := errors.AsType[*comet.Problem](err); !ok || *p != c.want {
					t.Errorf("got %v, want %v", err, &c.want)
				}
			})
		})
	}
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []step{{body: open5 + "\n"}, {hangs: true}, gone}}
		// What the loop does with an event is no silence of the server.
		s.run(t, 0, comet.Options{Cursor: "e-5"}, func() { <-time.After(time.Hour) })
		if wait := s.at[1].Sub(s.at[0]) - time.Hour; wait <= 20*time.Second || wait > 21*time.Second {
			t.Errorf("a stream with a heartbeat of 10 s was given up after %v, want 20 s and up to one more", wait)
		}
		if wait := s.at[2].Sub(s.at[1]); wait <= 30*time.Second || wait > 32*time.Second {
			t.Errorf("a request without an answer was given up after %v, want 30 s and up to two more", wait)
		}
	})
}

func TestToldWhenToComeBack(t *testing.T) {
	for name, first := range map[string]step{
		"reconnect":   {body: open5 + "\n" + `{"control":"reconnect","delay":7000}` + "\n", ends: true},
		"Retry-After": {status: 503, header: http.Header{"Retry-After": {"7"}}, ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: []step{first, gone}}
				s.run(t, 0, comet.Options{Cursor: "e-5"}, nil)
				if wait := s.at[1].Sub(s.at[0]); wait <= 7*time.Second || wait > 8*time.Second {
					t.Errorf("came back after %v, want 7 s and up to one more", wait)
				}
				if got := s.asked[1].Get("cursor"); got != "e-5" {
					t.Errorf("came back with the cursor %q, want e-5", got)
				}
			})
		})
	}
	// The server's `retry` is the first bound of the backoff.
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []step{{header: kind("text/event-stream"), body: "retry: 20000000\n\n", ends: true}, gone}}
		client := &comet.Client{URL: "http://halley.test/comet", HTTPClient: &http.Client{Transport: s}, Backoff: comet.Backoff{Min: 1, Max: 24 * time.Hour}}
		s.t = t
		for _, err := range client.Subscribe(t.Context(), comet.Options{Channels: []string{"a"}}) {
			if err == nil {
				t.Error("got an event")
			}
		}
		// Below a second only once in 20,000 runs.
		if wait := s.at[1].Sub(s.at[0]); wait < time.Second || wait > 20_000*time.Second {
			t.Errorf("came back after %v, want up to 20,000 s", wait)
		}
	})
}

// TestOpenElsewhere cuts between an open that is not where the client asked for
// and the gap that follows: the client must ask again from its own cursor, or it
// is never told of the gap.
func TestOpenElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gap = `{"control":"gap","id":"e-6"}`
		s := &script{steps: []step{
			{body: open6 + "\n", ends: true},
			{body: open6 + "\n" + gap + "\n", ends: true},
			gone,
		}}
		lines, _ := s.run(t, 0, comet.Options{Cursor: "old-3"}, nil)
		if len(lines) != 3 {
			t.Fatalf("got %q", lines)
		}
		for i, want := range []string{" old-3", " old-3", " e-6"} {
			if !strings.HasSuffix(lines[i], want) {
				t.Errorf("event %d: got %s, want the cursor%s", i, lines[i], want)
			}
		}
		for i, want := range []string{"old-3", "old-3", "e-6"} {
			if got := s.asked[i].Get("cursor"); got != want {
				t.Errorf("request %d: got the cursor %q, want %q", i, got, want)
			}
		}
		s = &script{steps: []step{{body: open6 + "\n", ends: true}, gone}}
		s.run(t, 0, comet.Options{}, nil)
		if got := s.asked[1].Get("cursor"); s.asked[0].Has("cursor") || got != "e-6" {
			t.Errorf("begun without a cursor, and came back with %q, want e-6", got)
		}
	})
}

func TestPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		json := kind("application/json; charset=utf-8")
		page := func(body string) step { return step{header: json, body: body, ends: true} }
		s := &script{steps: []step{
			{path: "/comet/info", header: json, body: `{"protocol":1,"heartbeat":25,"cursor":"e-5"}`, ends: true},
			page(`{"cursor":"e-7","messages":[` + message6 + `,` + message7 + `]}`),
			page(`{"cursor":"e-9","messages":[]}`),
			page(`{"cursor":"e-9","messages":[]}`),
			{status: 502, ends: true},
			page(`{"cursor":"f-1","messages":[],"gap":true}`),
			page(`{"cursor":"f-1","messages`), // cut
			gone,
		}}
		lines, err := s.run(t, 0, comet.Options{Transport: comet.LongPolling}, nil)
		const openAt, beatAt = `{"control":"open","id":"%[1]s"} %[1]s`, `{"control":"heartbeat","id":"%[1]s"} %[1]s`
		expect(t, lines,
			fmt.Sprintf(openAt, "e-5"), message6+" e-6", message7+" e-7",
			fmt.Sprintf(beatAt, "e-9"), fmt.Sprintf(beatAt, "e-9"),
			fmt.Sprintf(openAt, "e-9"), `{"control":"gap","id":"e-9"} e-9`, fmt.Sprintf(beatAt, "f-1"))
		var cursors []string
		for _, q := range s.asked {
			cursors = append(cursors, q.Get("cursor"))
		}
		if got, want := fmt.Sprint(cursors), "[ e-5 e-7 e-9 e-9 e-9 f-1 f-1]"; got != want {
			t.Errorf("got the cursors %s, want %s (%v)", got, want, err)
		}
		// An answer with nothing, at once, does not bring the next request at once.
		if !s.at[2].Equal(s.at[1]) || s.at[3].Equal(s.at[2]) || s.at[4].Equal(s.at[3]) {
			t.Errorf("requests came at %v", s.at)
		}
	})
}

func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, first := range []step{{body: open5 + "\n"}, {hangs: true}, {status: 503, header: http.Header{"Retry-After": {"100000"}}, ends: true}} {
			s := &script{t: t, steps: []step{first}}
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			client := &comet.Client{URL: "http://halley.test/comet", HTTPClient: &http.Client{Transport: s}}
			var last error
			for e, err := range client.Subscribe(ctx, comet.Options{Channels: []string{"a"}, Transport: comet.XHRStreaming}) {
				if last != nil {
					t.Errorf("got %v, %v after the error %v", e, err, last)
				}
				last = err
			}
			if !errors.Is(last, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's error", last)
			}
			cancel()
		}
		// Leaving the loop after the context ended must not yield once more.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &script{t: t, steps: []step{{body: open5 + "\n" + message6 + "\n"}}}
		client := &comet.Client{URL: "http://halley.test/comet", HTTPClient: &http.Client{Transport: s}}
		for range client.Subscribe(ctx, comet.Options{Channels: []string{"a"}, Transport: comet.XHRStreaming}) {
			cancel()
			break
		}
	})
}

func TestWrongOptions(t *testing.T) {
	for name, o := range map[string]comet.Options{
		"no channels":    {},
		"transport":      {Channels: []string{"a"}, Transport: "carrier-pigeon"},
		"raw elsewhere":  {Channels: []string{"a"}, Transport: comet.WebSocket, Raw: true},
		"raw multipart":  {Channels: []string{"a"}, Transport: comet.Multipart, Raw: true},
		"a bad base URL": {Channels: []string{"a"}},
	} {
		url := "http://halley.test/comet"
		if name == "a bad base URL" {
			url = "halley.test/comet"
		}
		n := 0
		for _, err := range comet.Subscribe(t.Context(), url, o) {
			if n++; err == nil || n > 1 {
				t.Errorf("%s: got %v, want one error", name, err)
			}
		}
	}
}

func TestLongListsGoByPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var channels []string
		for i := range 300 {
			channels = append(channels, fmt.Sprint("room/", i))
		}
		s := &script{steps: []step{{body: open5 + "\n"}}}
		if _, err := s.run(t, 1, comet.Options{Channels: channels, Cursor: "e-5"}, nil); err != nil {
			t.Fatal(err)
		}
		// ParseForm reads the query and the body of a POST.
		if got := s.asked[0]; len(got["channel"]) != 300 || got.Get("cursor") != "e-5" || got.Get("transport") != "xhr-streaming" {
			t.Errorf("asked with %v", got)
		}
	})
}
