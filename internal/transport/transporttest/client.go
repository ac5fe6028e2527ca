package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// A variant is a transport in one of its formats, as a client asks for it.
type variant struct {
	name, transport string
	params          url.Values
	// raw messages have no envelope.
	raw bool
	// polls answer once, and have no controls.
	polls bool
	// silent streams have no controls and no ids.
	silent bool
}

var variants = []variant{
	{name: "long-polling", transport: "long-polling", polls: true},
	{name: "jsonp", transport: "jsonp", polls: true, params: url.Values{"callback": {"app.on"}}},
	{name: "iframe", transport: "iframe", params: url.Values{"callback": {"app.on"}}},
	{name: "iframe-origin", transport: "iframe", params: url.Values{"origin": {"https://page.example"}}},
	{name: "multipart", transport: "multipart", params: url.Values{"format": {"envelope"}}},
	{name: "multipart-raw", transport: "multipart", raw: true, silent: true},
	{name: "xhr-streaming", transport: "xhr-streaming"},
	{name: "sse", transport: "sse", params: url.Values{"format": {"envelope"}}},
	{name: "sse-raw", transport: "sse", raw: true},
	{name: "websocket", transport: "websocket"},
}

func (v variant) webSocket() bool { return v.transport == "websocket" }

// request makes a subscribe request with the variant's parameters and others,
// "name=value".
func (v variant) request(ctx context.Context, base string, params []string) (*http.Request, error) {
	q := url.Values{"transport": {v.transport}}
	for name, values := range v.params {
		q[name] = values
	}
	for _, p := range params {
		more, err := url.ParseQuery(p)
		if err != nil {
			return nil, err
		}
		for name, values := range more {
			q[name] = append(q[name], values...)
		}
	}
	r, err := http.NewRequestWithContext(ctx, "GET", base+"/comet/subscribe?"+q.Encode(), nil)
	if err == nil && v.webSocket() {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Sec-WebSocket-Version", "13")
		r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	}
	return r, err
}

// A feed is what a client gets: the events of one stream, or of as many polls
// as it takes.
type feed struct {
	t      testing.TB
	v      variant
	header http.Header
	cancel context.CancelFunc
	writer io.Writer     // to a WebSocket
	done   chan struct{} // closed when it is over

	mu     sync.Mutex
	body   []byte // of the stream, or of the last answer
	starts []int  // where each event's unit starts in body
	events []Event
	times  []time.Time // when they came
	err    error       // why it is over: io.EOF for a clean end
}

// open subscribes, and fails the test if the server refuses.
func (s *Server) open(t testing.TB, v variant, header http.Header, params ...string) *feed {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &feed{t: t, v: v, cancel: cancel, done: make(chan struct{})}
	t.Cleanup(f.close)
	if v.polls {
		go f.poll(ctx, s, header, params)
		return f
	}
	resp, err := s.send(ctx, v, header, params)
	if err != nil {
		close(f.done)
		t.Fatalf("%s: %v", v.name, err)
	}
	f.header = resp.Header
	next, err := v.scanner(resp.Header)
	if err != nil {
		t.Errorf("%s: %v", v.name, err)
	}
	if rw, ok := resp.Body.(io.Writer); ok {
		f.writer = rw
		// An upgraded connection does not end with the request's context.
		context.AfterFunc(ctx, func() { resp.Body.Close() })
	}
	go f.stream(resp.Body, next)
	return f
}

// send sends a subscribe request, and fails unless it is accepted.
func (s *Server) send(ctx context.Context, v variant, header http.Header, params []string) (*http.Response, error) {
	r, err := v.request(ctx, s.URL, params)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	resp, err := s.Client.Do(r)
	if err != nil {
		return nil, err
	}
	want := http.StatusOK
	if v.webSocket() {
		want = http.StatusSwitchingProtocols
	}
	if resp.StatusCode != want {
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return resp, nil
}

func (f *feed) stream(body io.ReadCloser, next scanner) {
	defer close(f.done)
	defer body.Close()
	taken := 0
	buf := make([]byte, 8<<10)
	for {
		n, err := body.Read(buf)
		f.mu.Lock()
		f.body = append(f.body, buf[:n]...)
		for next != nil && f.err == nil {
			events, n, err := next(f.body[taken:])
			for _, e := range events {
				f.events = append(f.events, e)
				f.starts = append(f.starts, taken)
				f.times = append(f.times, time.Now())
			}
			taken += n
			if f.err = err; err != nil {
				f.t.Errorf("%s: %v", f.v.name, err)
			}
			if n == 0 {
				break
			}
		}
		if err != nil && f.err == nil {
			f.err = err
		}
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// poll polls again and again from where the last answer ended.
func (f *feed) poll(ctx context.Context, s *Server, header http.Header, params []string) {
	defer close(f.done)
	for {
		resp, err := s.send(ctx, f.v, header, params)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		var events []Event
		if err == nil {
			events, err = f.v.parseAnswer(resp.Header, body)
			if err != nil {
				f.t.Errorf("%s: %v", f.v.name, err)
			}
		}
		f.mu.Lock()
		for _, e := range events {
			f.events = append(f.events, e)
			f.times = append(f.times, time.Now())
		}
		if err != nil {
			f.err = err
			f.mu.Unlock()
			return
		}
		f.body, f.header = body, resp.Header
		f.mu.Unlock()
		if last := events[len(events)-1]; last.Control == "page" {
			params = append(slices.DeleteFunc(slices.Clone(params), isCursor), "cursor="+last.ID)
			header = nil
		} else {
			f.mu.Lock()
			f.err = errors.New("refused with an error control")
			f.mu.Unlock()
			return
		}
	}
}

func isCursor(param string) bool { return len(param) > 7 && param[:7] == "cursor=" }

// close ends the feed as a client that goes away.
func (f *feed) close() {
	f.cancel()
	<-f.done
}

// got returns all events so far.
func (f *feed) got() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

// messages returns the messages among the events.
func messages(events []Event) []Event {
	return slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return e.Control != "" })
}

// over returns why the feed has ended, nil if it has not.
func (f *feed) over() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
