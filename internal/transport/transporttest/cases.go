package transporttest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// pass lets time go by in the bubble, and all that comes of it happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// An open comes first, then the past, then the present, all in order.
func testOrder(f *fixture) {
	list := f.publish(text("a", "0"), text("a", "1"))
	start := list[0].ID
	list = append(list, f.publish(text("other", "x"), text("a", "2"))[1:]...)
	c := f.open("channel=a", "cursor="+start.String())
	synctest.Wait()
	for i := 3; i < 30; i++ {
		list = append(list, f.publish(text("a", strconv.Itoa(i)))...)
		if i%5 == 0 {
			list = append(list, f.publish(text("a", "batch"), text("a", "of two"))...)
			f.publish(text("other", "x"))
			synctest.Wait()
		}
	}
	got := settled(c)
	f.want("messages", got, list[1:])
	if f.v.polls || f.v.silent {
		if c := controls(got); f.v.silent && len(c) > 0 {
			f.Errorf("controls: got %+v, want none", c)
		}
	} else {
		f.equal("controls", controls(got), []Event{{Control: "open", ID: start.String(), Heartbeat: 25}})
		if len(got) > 0 && got[0].Control != "open" {
			f.Errorf("first event: got %+v, want open", got[0])
		}
	}
	if f.v.webSocket() {
		return
	}
	cacheControl := "no-store, no-transform"
	if f.v.polls {
		cacheControl = "no-store"
	}
	for name, want := range map[string]string{"Cache-Control": cacheControl, "X-Content-Type-Options": "nosniff"} {
		if got := c.header.Get(name); got != want {
			f.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := c.header.Get("X-Accel-Buffering"); (got == "no") == f.v.polls {
		f.Errorf("X-Accel-Buffering: got %q", got)
	}
}

// Data of every kind arrives as it was published, live and from the past.
func testKinds(f *fixture) {
	start := f.end()
	c := f.open("channel=**", start)
	synctest.Wait()
	list := f.v.visible(f.publish(samples()...))
	f.want("live", settled(c), list)
	f.want("from the past", settled(f.open("channel=**", start)), list)
}

// A message that matches several channels comes once, with its own.
func testPatterns(f *fixture) {
	channels := query("channel", "a", "b/*", "b/c", "b/**", "d/**", "a")
	start := f.end()
	c := f.open(append(channels, start)...)
	synctest.Wait()
	list := f.publish(text("a", "1"), text("b/c", "2"), text("b", "no"), text("b/c/d", "3"), text("d", "no"), text("d/e/f", "4"), text("a/a", "no"))
	list = slices.DeleteFunc(list, func(m engine.Message) bool { return string(m.Data) == "no" })
	f.want("live", settled(c), list)
	f.want("from the past", settled(f.open(append(channels, start)...)), list)
	f.want("everything", settled(f.open("channel=*", "channel=**", "cursor="+list[0].ID.String())), f.after(list[0].ID))
}

// after returns the log's messages after a position.
func (f *fixture) after(at engine.Cursor) (list []engine.Message) {
	f.Helper()
	page, err := f.log.Read(context.Background(), engine.Query{Channels: []string{"**"}, After: at, Limit: 100_000})
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range page.Messages {
		list = append(list, *m)
	}
	return list
}

// A position that the log cannot go on from is told of, and the stream goes
// on with the oldest message.
func testGap(f *fixture) {
	list := f.publish(text("a", "1"), text("a", "2"), text("a", "3"), text("a", "4"), text("a", "5"))
	trimmed(f, f.log, "a", 3)
	floor := list[1].ID.String()
	epoch, _, _ := strings.Cut(floor, "-")
	other := "0" + epoch[1:]
	if other == epoch {
		other = "1" + epoch[1:]
	}
	for _, c := range []struct {
		name, cursor, last string
		gap                bool
	}{
		{"trimmed", list[0].ID.String(), "", true},
		{"the floor", floor, "", false},
		{"foreign", other + "-4", "", true},
		{"beyond the end", epoch + "-6", "", true},
		{"far beyond the end", epoch + "-9223372036854775807", "", true},
		{"sequence 0", epoch + "-0", "", true},
		{"Last-Event-ID", floor, list[0].ID.String(), true},
		{"foreign Last-Event-ID", floor, other + "-4", true},
		{"malformed Last-Event-ID", floor, "42", true},
		{"valid Last-Event-ID", other + "-4", floor, false},
	} {
		header := http.Header{}
		if c.last != "" {
			header.Set("Last-Event-ID", c.last)
		}
		got := settled(f.srv.open(f, f.v, header, "channel=a", "cursor="+c.cursor))
		f.want(c.name, got, list[2:])
		want := []Event{{Control: "open", ID: floor, Heartbeat: 25}}
		if f.v.polls {
			want = []Event{{Control: "page", ID: list[4].ID.String(), Gap: c.gap}}
		} else if c.gap {
			want = append(want, Event{Control: "gap", ID: floor})
		}
		f.equal(c.name, controls(got), want)
	}
}

// The oldest message is where earliest starts, and that is never a gap.
func testEarliest(f *fixture) {
	got := settled(f.open("channel=a", "cursor=earliest"))
	if m := messages(got); len(m) > 0 {
		f.Errorf("an empty log: got %+v", m)
	}
	list := f.publish(text("a", "1"), text("a", "2"), text("a", "3"), text("a", "4"), text("a", "5"))
	trimmed(f, f.log, "a", 3)
	got = settled(f.open("channel=a", "cursor=earliest"))
	f.want("trimmed", got, list[2:])
	if slices.ContainsFunc(got, func(e Event) bool { return e.Control == "gap" || e.Gap }) {
		f.Errorf("got a gap: %+v", got)
	}
}

// A stream is never silent for longer than it said, and its position moves on
// with a log that has nothing for it.
func testHeartbeat(f *fixture) {
	c := f.open("channel=a")
	synctest.Wait()
	pass(f.opts.Heartbeat * 4)
	end := f.publish(text("other", "x"))[0].ID.String()
	pass(f.opts.Heartbeat / 2)
	f.publish(text("a", "x"))
	pass(f.opts.Heartbeat * 3)
	end2 := f.publish(text("other", "x"))[0].ID.String()
	pass(f.opts.Heartbeat)
	got := settled(c)
	c.mu.Lock()
	times := append(slices.Clone(c.times), time.Now())
	c.mu.Unlock()
	beats := 0
	for i := range got {
		if silence := times[i+1].Sub(times[i]); silence > f.opts.Heartbeat {
			f.Errorf("%v of silence after %+v", silence, got[i])
		}
		if got[i].Control == "heartbeat" {
			beats++
		}
	}
	if got[0].Heartbeat != f.opts.Heartbeat.Seconds() {
		f.Errorf("open says %v s, want %v", got[0].Heartbeat, f.opts.Heartbeat)
	}
	if beats < 8 || beats > 12 {
		f.Errorf("got %d heartbeats in 8.5 intervals", beats)
	}
	if id := got[len(got)-1].ID; id != end2 {
		f.Errorf("the last heartbeat has id %s, want the log's end %s", id, end2)
	}
	i := slices.IndexFunc(got, func(e Event) bool { return e.Control == "" })
	if i < 1 || got[i-1].ID != end && got[i-1].ID != got[0].ID {
		f.Errorf("before the message: got %+v", got[:i+1])
	}
}

// A client that reads is not cut, however long there is nothing for it.
func testIdle(f *fixture) {
	start := f.end()
	c := f.open("channel=a", start)
	synctest.Wait()
	list := f.publish(text("a", "1"))
	pass(f.opts.WriteTimeout * 20)
	list = append(list, f.publish(text("a", "2"))...)
	pass(f.opts.WriteTimeout * 20)
	list = append(list, f.publish(text("a", "3"))...)
	f.want("messages", settled(c), list)
	if err := c.over(); err != nil {
		f.Errorf("the feed is over: %v", err)
	}
}

// A poll is held for as long as was asked, answers with what there is, and
// never with more than the protocol allows.
func testPoll(f *fixture) {
	for _, c := range []struct {
		timeout string
		want    time.Duration
	}{
		{"", 25 * time.Second},
		{"&timeout=0", 0},
		{"&timeout=0.0", 0},
		{"&timeout=0.5", 500 * time.Millisecond},
		{"&timeout=31", 31 * time.Second},
		{"&timeout=100000", time.Minute},
	} {
		began := time.Now()
		page, list := f.pollOnce("channel=a" + c.timeout)
		if got := time.Since(began); got < c.want || got > c.want+20*time.Millisecond {
			f.Errorf("poll%s was held for %v, want %v and 20 ms at most", c.timeout, got, c.want)
		}
		if want := f.log.End().String(); page.ID != want || len(list) > 0 {
			f.Errorf("poll%s: got %+v and cursor %s, want the log's end %s", c.timeout, list, page.ID, want)
		}
	}

	// A message answers it at once; others do not.
	time.AfterFunc(2*time.Second, func() { f.publish(text("other", "x")) })
	time.AfterFunc(3*time.Second, func() { f.publish(text("a", "first"), text("a", "second")) })
	began := time.Now()
	_, list := f.pollOnce("channel=a")
	if got := time.Since(began); got != 3*time.Second || len(list) != 2 {
		f.Errorf("a poll was answered after %v with %+v, want 3s and two messages", got, list)
	}

	// No answer holds more than 1,000 messages.
	start := f.end()
	for range 3 {
		batch := slices.Repeat([]engine.Message{text("many", "x")}, 500)
		f.publish(batch...)
	}
	page, list := f.pollOnce("channel=many&" + start)
	if len(list) != 1000 {
		f.Errorf("the first answer has %d messages, want 1000", len(list))
	}
	_, list = f.pollOnce("channel=many&cursor=" + page.ID)
	if len(list) != 500 {
		f.Errorf("the second answer has %d messages, want 500", len(list))
	}

	// Nor more than 1 MiB, but for a message that is larger alone.
	start = f.end()
	big := strings.Repeat(`"`, 1<<20-1) // escaped, it takes two bytes each
	for _, size := range []int{100, 100, 300_000, 100, 1<<20 - 1, 100, 400_000, 200_000, 100} {
		f.publish(text("big", big[:size]))
	}
	var sizes []int
	for {
		page, list := f.pollOnce("channel=big&timeout=0&" + start)
		if len(list) == 0 {
			break
		}
		start = "cursor=" + page.ID
		total := 0
		for _, e := range list {
			sizes = append(sizes, len(e.Body))
			total += 2 * len(e.Body)
		}
		if total > 1<<20 && len(list) > 1 {
			f.Errorf("%d messages of %d bytes in one answer", len(list), total)
		}
	}
	if want := []int{100, 100, 300_000, 100, 1<<20 - 1, 100, 400_000, 200_000, 100}; !slices.Equal(sizes, want) {
		f.Errorf("sizes: got %v, want %v", sizes, want)
	}
}

// pollOnce polls and returns the answer's end and its messages.
func (f *fixture) pollOnce(params string) (Event, []Event) {
	f.Helper()
	resp, err := f.srv.send(context.Background(), f.v, nil, []string{params})
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	events, err := f.v.parseAnswer(resp.Header, body)
	if err != nil {
		f.Fatal(err)
	}
	return events[len(events)-1], events[:len(events)-1]
}

// Padding comes before the first message, however much was asked for.
func testPadding(f *fixture) {
	list := f.publish(text("a", "0"), text("a", "1"))
	for _, padding := range []int{-1, 0, 1, 2, 3, 20, 127, 128, 1000, 65536} {
		params := []string{"channel=a", "cursor=" + list[0].ID.String(), "padding=" + strconv.Itoa(padding)}
		want := padding
		if padding < 0 {
			params = params[:2]
			want = 0
			if f.v.transport == "iframe" {
				want = 2048
			}
		}
		c := f.open(params...)
		got := settled(c)
		f.want(fmt.Sprintf("padding %d", padding), got, list[1:])
		c.mu.Lock()
		if !f.v.polls {
			i := slices.IndexFunc(got, func(e Event) bool { return e.Control == "" })
			if i < 0 || c.starts[i] < want {
				f.Errorf("padding %d: got %+v in %d bytes", padding, got, len(c.body))
			}
		}
		size := len(c.body)
		c.mu.Unlock()
		c.close()
		if f.v.polls {
			// c has polled on; the first answer is what counts.
			resp, err := f.srv.send(context.Background(), f.v, nil, params)
			if err != nil {
				f.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				f.Fatal(err)
			}
			resp.Body.Close()
			if at := bytes.Index(body, []byte(`"messages":[`)); at < want {
				f.Errorf("padding %d: the first message is at %d", padding, at)
			}
			size = len(body)
		}
		if size > max(want, 0)+1000 {
			f.Errorf("padding %d: got %d bytes", padding, size)
		}
	}
}

// The last words of a server that is about to stop, in each transport's way.
func testDrain(f *fixture) {
	c := f.open("channel=a", f.end())
	synctest.Wait()
	list := f.publish(text("a", "1"))
	settled(c)
	drained := make(chan error)
	go func() { drained <- f.hub.Drain(context.Background()) }()
	synctest.Wait()
	if !f.v.polls { // which would be cut by its answer
		list = append(list, f.publish(text("a", "2"))...) // before it is sent away
	}
	before := settled(c)
	if err := <-drained; err != nil {
		f.Errorf("Drain: %v", err)
	}
	got := settled(c)
	f.want("messages", got, list)
	last := got[len(before):]
	switch {
	case f.v.silent:
		if body := bodyOf(c); !strings.HasSuffix(body, "--\r\n") {
			f.Errorf("the stream ends with %q, want a close-delimiter", body)
		}
	case f.v.polls:
		if len(last) == 0 || last[0] != (Event{Control: "page", ID: list[0].ID.String()}) {
			f.Errorf("a poll is answered with %+v, want an empty page", last)
		}
	default:
		if len(last) == 0 || last[0].Control != "reconnect" || last[0].Delay < 500 || last[0].Delay > 5500 {
			f.Errorf("got %+v, want a reconnect in 500 to 5500 ms", last)
		}
	}
	if f.v.webSocket() && (len(last) != 2 || last[1] != Event{Control: "close", Status: 1001}) {
		f.Errorf("got %+v, want a reconnect and close 1001", last)
	}
	if err := c.over(); err == nil || !f.v.polls && err != io.EOF {
		f.Errorf("the feed ended with %v, want EOF", err)
	}
	f.testRefusal()

	// The program itself goes on publishing.
	f.publish(text("a", "3"))
	if _, err := f.hub.Subscribe(context.Background(), halley.SubscribeOptions{Channels: []string{"a"}}); err != halley.ErrClosed {
		f.Errorf("Subscribe: got %v, want ErrClosed", err)
	}
}

func bodyOf(c *feed) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.body)
}

// testRefusal subscribes to a hub that drains.
func (f *fixture) testRefusal() {
	f.Helper()
	r, err := f.v.request(context.Background(), f.srv.URL, []string{"channel=a"})
	if err != nil {
		f.Fatal(err)
	}
	resp, err := f.srv.Client.Do(r)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	body := string(b)
	status, pattern := 503, `^\{"status":503,"code":"draining","title":"[^"]+","detail":"[^"]+"\}\n$`
	problem := `\{"control":"error","status":503,"code":"draining","title":"[^"]+","detail":"[^"]+"\}`
	switch f.v.transport {
	case "jsonp":
		status, pattern = 200, `^/\*\*/app\.on\(`+problem+`\);$`
	case "iframe":
		status, pattern = 200, `^<!DOCTYPE html>.*</script>\n<script>_\(`+problem+`\)</script>$`
	case "sse":
		status, pattern = 200, `^retry: 2000\n\nretry: \d{3,4}\nevent: comet:reconnect\ndata: \{"control":"reconnect","delay":\d{3,4}\}\n\n$`
	case "websocket":
		status, pattern = 101, `(?s)^\x81.\{"control":"reconnect","delay":\d{3,4}\}\x88\x02\x03\xf5$`
		body = latin1(b)
		pattern = strings.ReplaceAll(pattern, `\x81`, "\u0081")
		pattern = strings.ReplaceAll(pattern, `\x88`, "\u0088")
		pattern = strings.ReplaceAll(pattern, `\xf5`, "\u00f5")
	default:
		if got, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || got < 1 || got > 6 {
			f.Errorf("Retry-After: got %d, %v, want 1 to 6", got, err)
		}
	}
	if resp.StatusCode != status || !regexp.MustCompile(pattern).MatchString(body) {
		f.Errorf("refused with %d and %q, want %d and %s", resp.StatusCode, body, status, pattern)
	}
}

func latin1(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		s.WriteRune(rune(c))
	}
	return s.String()
}

// Close cuts without a word, and waits for what it cuts.
func testClose(f *fixture) {
	c := f.open("channel=a")
	synctest.Wait()
	before := len(c.got())
	if err := f.hub.Close(); err != nil {
		f.Errorf("Close: %v", err)
	}
	got := settled(c)
	if c.over() == nil {
		f.Error("the feed goes on")
	}
	for _, e := range got[before:] {
		refused := e.Control == "error" && e.Code == "draining" // of jsonp
		if e.Control != "close" && !refused {
			f.Errorf("got %+v after Close", e)
		}
	}
	if err := f.hub.Close(); err != nil {
		f.Errorf("second Close: %v", err)
	}
}

// A raw multipart stream ends by itself, in order.
func testLimit(f *fixture) {
	c := f.open("channel=a", f.end())
	list := f.publish(text("a", "1"))
	pass(5*time.Minute - time.Second)
	if err := c.over(); err != nil {
		f.Errorf("over too early: %v", err)
	}
	pass(time.Second)
	if err := c.over(); err != io.EOF {
		f.Errorf("after the limit: got %v, want EOF", err)
	}
	f.want("messages", c.got(), list)
	if body := bodyOf(c); !strings.HasSuffix(body, "--\r\n") {
		f.Errorf("the stream ends with %q, want a close-delimiter", body)
	}
}

// A client that goes leaves nothing behind.
func testLeave(f *fixture) {
	var feeds []*feed
	for range 3 {
		feeds = append(feeds, f.open("channel=a", "channel=b/**"))
	}
	for i, c := range feeds {
		synctest.Wait()
		if got, want := f.hub.Connections(), len(feeds)-i; got != want {
			f.Errorf("%d connections, want %d", got, want)
		}
		c.close()
	}
	synctest.Wait()
	if n := f.hub.Connections(); n != 0 {
		f.Errorf("%d connections when all have left", n)
	}
}

// A client that stops reading is cut after a time, and until then it costs
// the same however much is published.
func testSlow(f *fixture) {
	resp, err := f.srv.send(context.Background(), f.v, nil, []string{"channel=a", f.end()})
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	// All messages share their data, so that what grows is what the hub holds.
	data := bytes.Repeat([]byte("x"), 512<<10)
	flood := func(n int) {
		for range n {
			f.publish(engine.Message{Channel: "a", Data: data})
			synctest.Wait()
		}
	}
	flood(12) // HTTP/2's window is of 4 MiB
	before := heap()
	flood(40)
	if grown := heap() - before; grown > 8<<20 {
		f.Errorf("the heap grew by %d bytes", grown)
	}
	if n := f.hub.Connections(); n != 1 {
		f.Errorf("%d connections, want 1", n)
	}
	pass(f.opts.WriteTimeout - time.Millisecond)
	if n := f.hub.Connections(); n != 1 {
		f.Errorf("%d connections just before the time-out, want 1", n)
	}
	pass(2 * time.Millisecond)
	if f.v.webSocket() {
		pass(time.Second) // it may still answer a close frame
	}
	if n := f.hub.Connections(); n != 0 {
		f.Errorf("%d connections after the time-out, want 0", n)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A client that reads nothing at all loses its connection, even where the
// answer is so small that it is written when the handler has returned.
func testUnread(f *fixture) {
	list := f.publish(text("a", "0"), text("a", "1"))
	conn, err := f.srv.Dial()
	if err != nil {
		f.Fatal(err)
	}
	defer conn.Close()
	r, err := f.v.request(context.Background(), f.srv.URL, []string{"channel=a", "cursor=" + list[0].ID.String()})
	if err != nil {
		f.Fatal(err)
	}
	if err := r.Write(conn); err != nil {
		f.Fatal(err)
	}
	pass(f.opts.WriteTimeout + time.Second)
	if n := f.hub.Connections(); n != 0 {
		f.Errorf("%d connections after the time-out, want 0", n)
	}
	time.AfterFunc(time.Second, func() { conn.Close() }) // so that Read returns
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		f.Errorf("read %d bytes and %v, want EOF: the connection is still served", n, err)
	}
}

// HTTP/1.0 has no chunks: a stream is delimited by the connection's end.
func testHTTP10(t *testing.T, newEngine New) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFixture(t, newEngine(t, engine.Retention{}), v, HTTP1, halley.Options{})
				list := f.publish(text("a", "0"), text("a", "1"))
				conn, err := f.srv.Dial()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				r, err := v.request(context.Background(), f.srv.URL, []string{"channel=a", "cursor=" + list[0].ID.String()})
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Host", "localhost")
				fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n", r.URL.RequestURI())
				if err := r.Header.Write(conn); err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(conn, "\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(conn), r)
				if err != nil {
					t.Fatal(err)
				}
				if v.webSocket() {
					if resp.StatusCode != http.StatusUpgradeRequired {
						t.Errorf("status %d, want 426", resp.StatusCode)
					}
					return
				}
				if resp.StatusCode != 200 || len(resp.TransferEncoding) > 0 {
					t.Errorf("status %d, Transfer-Encoding %q, want 200 and none", resp.StatusCode, resp.TransferEncoding)
				}
				var events []Event
				if v.polls {
					body, err := io.ReadAll(resp.Body)
					if err != nil {
						t.Fatal(err)
					}
					if events, err = v.parseAnswer(resp.Header, body); err != nil {
						t.Fatal(err)
					}
				} else {
					next, err := v.scanner(resp.Header)
					if err != nil {
						t.Fatal(err)
					}
					c := &feed{t: t, v: v, done: make(chan struct{})}
					go c.stream(resp.Body, next)
					synctest.Wait()
					list = append(list, f.publish(text("a", "2"))...)
					synctest.Wait()
					if err := f.hub.Drain(context.Background()); err != nil {
						t.Error(err)
					}
					events = settled(c)
					if c.over() != io.EOF {
						t.Errorf("the stream ended with %v, want EOF", c.over())
					}
				}
				f.want("messages", events, list[1:])
			})
		})
	}
}

// When a hub is closed, none of its goroutines is left. This is over real
// sockets; in the other tests the bubbles see to it.
func testGoroutines(t *testing.T, newEngine New) {
	e := newEngine(t, engine.Retention{})
	hub, err := halley.New(e, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(hub)
	srv := &Server{URL: s.URL, Client: s.Client()}
	var feeds []*feed
	for _, v := range variants {
		feeds = append(feeds, srv.open(t, v, nil, "channel=a", "cursor="+e.End().String()))
	}
	m := publish(t, hub, text("a", "1"))[0]
	for _, c := range feeds {
		for len(messages(c.got())) == 0 && c.over() == nil {
			runtime.Gosched()
		}
		if got, want := messages(c.got()), c.v.eventOf(&m); len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %+v, want %+v", c.v.name, got, want)
		}
	}
	if err := hub.Close(); err != nil {
		t.Error(err)
	}
	for _, c := range feeds {
		<-c.done
	}
	s.Close()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	// A goroutine may be seen while it returns.
	var left []string
	for range 1000 {
		if left = goroutines("halley/internal/pump.", "halley/internal/transport.", "halley.(*Hub)", "halley/engine/"); len(left) == 0 {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
}

// goroutines returns the stacks of those that run any of the functions.
func goroutines(functions ...string) (stacks []string) {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		if slices.ContainsFunc(functions, func(f string) bool { return strings.Contains(stack, f) }) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}
