package halley_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/halley-comet/halley"
)

// A slowReader is a client that reads when it is told to.
type slowReader struct {
	t         *testing.T
	conn      net.Conn
	transport string
	in        *bufio.Reader
	closed    ws.StatusCode // of a WebSocket's close frame
}

// A slowItem is a message or a control. Over raw sse the channel is what the
// data begins with.
type slowItem struct {
	Control, ID, Channel, Code string
	Status                     int
	Data                       string
}

// dialSlow subscribes, and returns when the stream has opened.
func dialSlow(t *testing.T, url, transport, query string) *slowReader {
	t.Helper()
	u := mustURL(t, url)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	name, format, _ := strings.Cut(transport, " ")
	query += "&transport=" + name + "&format=" + format
	r := &slowReader{t: t, conn: conn, transport: transport}
	if transport == "websocket" {
		br, _, err := ws.Dialer{}.Upgrade(conn, mustURL(t, url+"/comet/subscribe?"+query))
		if err != nil {
			t.Fatal(err)
		}
		if r.in = br; br == nil {
			r.in = bufio.NewReader(conn)
		}
	} else {
		fmt.Fprintf(conn, "GET /comet/subscribe?%s HTTP/1.1\r\nHost: localhost\r\n\r\n", query)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.in = bufio.NewReader(resp.Body)
	}
	if it, err := r.next(); err != nil || it.Control != "open" {
		t.Fatalf("%s: got %+v, %v, want open", transport, it, err)
	}
	return r
}

// next returns the next item that is no heartbeat, or io.EOF at the end.
func (r *slowReader) next() (it slowItem, err error) {
	for {
		it, err = r.read()
		if err != nil || it.Control != "heartbeat" {
			return it, err
		}
	}
}

func (r *slowReader) read() (it slowItem, err error) {
	switch r.transport {
	case "websocket":
		h, err := ws.ReadHeader(r.in)
		if err != nil {
			return it, err
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(r.in, payload); err != nil {
			return it, err
		}
		if h.OpCode == ws.OpClose {
			r.closed, _ = ws.ParseCloseFrameData(payload)
			return it, io.EOF
		}
		return it, json.Unmarshal(payload, &it)
	case "xhr-streaming":
		line, err := r.in.ReadString('\n')
		if err != nil {
			return it, err
		}
		return it, json.Unmarshal([]byte(line), &it)
	}
	event, data, id := "", "", ""
	for {
		line, err := r.in.ReadString('\n')
		if err != nil {
			return it, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "event":
			event = value
		case "data":
			data = value
		case "id":
			id = value
		case "":
			if data == "" {
				continue // after retry
			}
			if r.transport == "sse raw" && event == "" {
				channel, _, _ := strings.Cut(data, " ")
				return slowItem{ID: id, Channel: channel, Data: data}, nil
			}
			err := json.Unmarshal([]byte(data), &it)
			if err == nil && (it.ID != id || event != "" && event != "comet:"+it.Control) {
				err = fmt.Errorf("event %q with id %q has %q", event, id, data)
			}
			return it, err
		}
	}
}

// newSlowServer is newServer with connections that do not take much unread.
func newSlowServer(t *testing.T, o *halley.Options) (*halley.Hub, *httptest.Server) {
	t.Helper()
	hub, _ := newServer(t, nil, o)
	s := httptest.NewUnstartedServer(hub)
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if err := c.(*net.TCPConn).SetWriteBuffer(64 << 10); err != nil {
			t.Error(err)
		}
		return ctx
	}
	s.Start()
	t.Cleanup(func() {
		hub.Close()
		s.Close()
	})
	return hub, s
}

// slowTransports runs a test over streams that are served in all ways.
func slowTransports(t *testing.T, test func(t *testing.T, noParking bool, transport string)) {
	for _, noParking := range []bool{false, true} {
		for _, transport := range []string{"sse envelope", "sse raw", "xhr-streaming", "websocket"} {
			t.Run(fmt.Sprintf("%s, parked %v", transport, !noParking), func(t *testing.T) { test(t, noParking, transport) })
		}
	}
}

// A slowLog publishes, in step with a subscription that shows how far the
// hub's one worker has come, and remembers what was published.
type slowLog struct {
	t        *testing.T
	hub      *halley.Hub
	live     *halley.Subscription
	ids      []string
	channels []string
}

func newSlowLog(t *testing.T, hub *halley.Hub) *slowLog {
	live, err := hub.Subscribe(t.Context(), halley.SubscribeOptions{Channels: []string{"**"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { live.Close() })
	return &slowLog{t: t, hub: hub, live: live}
}

func (l *slowLog) publish(channel string, size int) {
	l.t.Helper()
	data := channel + " " + strings.Repeat("x", size)
	ids, err := l.hub.Publish(l.t.Context(), halley.Message{Channel: channel, ContentType: "text/plain", Data: []byte(data)})
	if err != nil {
		l.t.Fatal(err)
	}
	l.ids, l.channels = append(l.ids, ids[0].String()), append(l.channels, channel)
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	if e, err := l.live.Next(ctx); err != nil || e.Cursor != ids[0] {
		l.t.Fatalf("got %+v, %v, want message %v", e, err, ids[0])
	}
}

// fill publishes more than a connection takes that nobody reads.
func (l *slowLog) fill(size map[string]int, channels ...string) {
	l.t.Helper()
	for n := 0; n < 2<<20; {
		for _, c := range channels {
			l.publish(c, size[c])
			n += size[c]
		}
	}
}

// read reads up to the last message published, and checks that what is missing
// after the first whole ones was told. It returns the ids of skips, and how
// many messages came of each channel.
func (l *slowLog) read(r *slowReader, start, whole int, wants func(string) bool) (skips []string, came map[string]int) {
	l.t.Helper()
	place := map[string]int{}
	for i, id := range l.ids {
		place[id] = i
	}
	pos := start // the next message
	newest := map[string]int{}
	came = map[string]int{}
	for pos < len(l.ids) {
		it, err := r.next()
		if err != nil {
			l.t.Fatalf("after %d messages: %v", pos, err)
		}
		at, known := place[it.ID]
		if !known || at < pos || it.Control != "" && it.Control != "skip" {
			l.t.Fatalf("after %d messages: %.100v", pos, it)
		}
		for ; pos < at; pos++ {
			if !wants(l.channels[pos]) {
				continue
			}
			if pos < whole || it.Control == "" || !strings.HasPrefix(l.channels[pos], "ticker/") {
				l.t.Fatalf("message %d of %s is missing before %.100v", pos, l.channels[pos], it)
			}
		}
		pos++
		if it.Control == "skip" {
			if at < whole || !strings.HasPrefix(l.channels[at], "ticker/") {
				l.t.Fatalf("skip to %d of %s", at, l.channels[at])
			}
			skips = append(skips, it.ID)
			continue
		}
		if it.Channel != l.channels[at] || !wants(it.Channel) {
			l.t.Fatalf("message %d of %s is %.100v", at, l.channels[at], it)
		}
		came[it.Channel]++
		newest[it.Channel] = at
	}
	for i := len(l.channels) - 1; i >= start; i-- {
		c := l.channels[i]
		if at, ok := newest[c]; wants(c) && (!ok || at < i) {
			l.t.Errorf("message %d, the newest of %s, is missing", i, c)
		}
		newest[c] = len(l.channels)
	}
	return skips, came
}

// TestLatestOnly shows that a client that did not read for a while gets all of
// a channel where it catches up, of latest-only ones the newest, and is told
// what was left out; and that it may come back from there.
func TestLatestOnly(t *testing.T) {
	slowTransports(t, func(t *testing.T, noParking bool, transport string) {
		for _, size := range []map[string]int{
			{"log": 32 << 10, "ticker/a": 10, "ticker/b/c": 10},
			{"log": 10, "ticker/a": 32 << 10, "ticker/b/c": 10, "other": 10}, // cut within a ticker's message
		} {
			hub, s := newSlowServer(t, &halley.Options{
				Workers: 1, NoParking: noParking, SlowClients: []halley.SlowClientRule{{Pattern: "ticker/**", Policy: halley.LatestOnly}},
			})
			l := newSlowLog(t, hub)
			const query = "channel=ticker/**&channel=log"
			wants := func(channel string) bool { return channel != "other" }
			r := dialSlow(t, s.URL, transport, query)
			l.fill(size, "ticker/a", "log", "ticker/a", "other", "ticker/b/c", "log")
			l.publish("ticker/b/c", 10)
			l.publish("ticker/a", 10)
			l.publish("log", 10)
			skips, came := l.read(r, 0, 0, wants)
			published := map[string]int{}
			for _, c := range l.channels {
				published[c]++
			}
			if len(skips) == 0 || came["log"] != published["log"] || came["ticker/a"] > published["ticker/a"]*3/4 || came["ticker/b/c"] > published["ticker/b/c"]*3/4 {
				t.Errorf("%d skips, and of %v came %v", len(skips), published, came)
			}
			if len(skips) == 0 {
				continue
			}
			// It has caught up, so it gets what comes now.
			next := len(l.ids)
			for range 10 {
				l.publish("ticker/a", 10)
				if skips, _ := l.read(r, next, len(l.ids), wants); len(skips) > 0 {
					t.Errorf("skips %v after it had caught up", skips)
				}
				next = len(l.ids)
			}
			// Who comes back from a skip gets all that follows it.
			next = 0
			for l.ids[next] != skips[0] {
				next++
			}
			back := dialSlow(t, s.URL, transport, query+"&cursor="+skips[0])
			l.read(back, next+1, len(l.ids), wants)
		}
	})
}

// TestResumeWhole shows that what is there when a client comes back, it gets,
// though it reads too slowly to take it at once.
func TestResumeWhole(t *testing.T) {
	slowTransports(t, func(t *testing.T, noParking bool, transport string) {
		hub, s := newSlowServer(t, &halley.Options{
			Workers: 1, NoParking: noParking, SlowClients: []halley.SlowClientRule{
				{Pattern: "ticker/**", Policy: halley.LatestOnly}, {Pattern: "log", Policy: halley.Cut, Limit: 1},
			},
		})
		l := newSlowLog(t, hub)
		start := hub.End()
		l.fill(map[string]int{"log": 32 << 10, "ticker/a": 32 << 10}, "log", "ticker/a")
		r := dialSlow(t, s.URL, transport, "channel=ticker/*&channel=log&cursor="+start.String())
		whole := len(l.ids)
		l.fill(map[string]int{"ticker/a": 32 << 10}, "ticker/a")
		l.read(r, 0, whole, func(string) bool { return true })
	})
}

// TestSlowCut shows that a client for which too much waits gets what it was
// sent, to the end of a message, and is told why it is cut.
func TestSlowCut(t *testing.T) {
	slowTransports(t, func(t *testing.T, noParking bool, transport string) {
		hub, s := newSlowServer(t, &halley.Options{
			Workers: 1, NoParking: noParking, SlowClients: []halley.SlowClientRule{{Pattern: "game/*", Policy: halley.Cut, Limit: 10}},
		})
		l := newSlowLog(t, hub)
		r := dialSlow(t, s.URL, transport, "channel=game/*&channel=log")
		l.fill(map[string]int{"game/1": 32 << 10, "log": 10}, "game/1", "log")
		n := 0
		for {
			it, err := r.next()
			if err != nil {
				t.Fatalf("after %d messages: %v", n, err)
			}
			if it.Control == "error" {
				if it.Code != "too-slow" || it.Status != 503 {
					t.Errorf("got %+v, want too-slow", it)
				}
				break
			}
			if it.ID != l.ids[n] || it.Control != "" {
				t.Fatalf("got %.100v, want message %d", it, n)
			}
			n++
		}
		if n == 0 || n > len(l.ids)-10 {
			t.Errorf("%d of %d messages came", n, len(l.ids))
		}
		if it, err := r.next(); err != io.EOF || transport == "websocket" && r.closed != ws.StatusInternalServerError {
			t.Errorf("after the error: %.100v, %v, close %d", it, err, r.closed)
		}
		// It loses nothing if it comes back from its cursor all the same.
		back := dialSlow(t, s.URL, transport, "channel=game/*&channel=log&cursor="+l.ids[n-1])
		l.read(back, n, len(l.ids), func(string) bool { return true })
	})
}
