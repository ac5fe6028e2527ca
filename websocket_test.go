package halley_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/internal/transport/transporttest"
)

// A wsClient is a WebSocket client that writes any frames, in order or not.
type wsClient struct {
	t    testing.TB
	conn net.Conn
	in   chan ws.Frame // closed with the connection
}

// A wsEvent has the members of all envelopes.
type wsEvent struct {
	Control, ID, Channel, Type, Code, Detail string
	Status                                   int
	Ref, Data                                json.RawMessage
	close                                    ws.StatusCode // of a close frame
	pong                                     string
}

// dialWebSocket connects, and reads all that comes.
func dialWebSocket(t testing.TB, srv *transporttest.Server, query string) *wsClient {
	t.Helper()
	conn, err := srv.Dial()
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("GET", srv.URL+"/comet/subscribe?transport=websocket&"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	upgrade(r.Header)
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, r)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	c := &wsClient{t: t, conn: conn, in: make(chan ws.Frame, 10_000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(c.in)
		for {
			h, err := ws.ReadHeader(br)
			if err != nil {
				return
			}
			if h.Masked || !h.Fin || h.Rsv != 0 || h.Length > 1<<21 {
				t.Errorf("frame %+v", h)
				return
			}
			f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
			if _, err := io.ReadFull(br, f.Payload); err != nil {
				return
			}
			c.in <- f
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return c
}

// send sends text messages.
func (c *wsClient) send(texts ...string) {
	c.t.Helper()
	for _, text := range texts {
		c.frame(ws.Header{Fin: true, OpCode: ws.OpText, Masked: true}, text)
	}
}

func (c *wsClient) frame(h ws.Header, payload string) {
	c.t.Helper()
	h.Length = int64(len(payload))
	f := ws.Frame{Header: h, Payload: []byte(payload)}
	if h.Masked {
		f = ws.MaskFrameWith(f, [4]byte{0xde, 0xad, 0xbe, 0xef})
	}
	if err := ws.WriteFrame(c.conn, f); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		c.t.Error(err)
	}
}

// next returns the next frame, or Control "end" when the connection is over.
func (c *wsClient) next() (e wsEvent) {
	c.t.Helper()
	f, ok := <-c.in
	if !ok {
		return wsEvent{Control: "end"}
	}
	switch f.Header.OpCode {
	case ws.OpText:
		if err := json.Unmarshal(f.Payload, &e); err != nil {
			c.t.Errorf("%q: %v", f.Payload, err)
		}
	case ws.OpClose:
		e.Control = "close"
		e.close, _ = ws.ParseCloseFrameData(f.Payload)
	case ws.OpPong:
		e.Control, e.pong = "pong", string(f.Payload)
	default:
		c.t.Errorf("frame %+v", f.Header)
	}
	return e
}

func (e wsEvent) String() string {
	switch e.Control {
	case "":
		return e.Channel + "=" + string(e.Data)
	case "ack", "error":
		s := e.Control
		if e.Ref != nil {
			s += " " + string(e.Ref)
		}
		if e.Code != "" {
			s += " " + e.Code
		}
		return s
	case "close":
		return "close " + strconv.Itoa(int(e.close))
	case "pong":
		return "pong " + e.pong
	}
	return e.Control
}

// want checks the next frames, each in the form of wsEvent's String.
func (c *wsClient) want(list ...string) (events []wsEvent) {
	c.t.Helper()
	for i, want := range list {
		e := c.next()
		if events = append(events, e); e.String() != want {
			c.t.Fatalf("frame %d: got %v (%+v), want %s", i, e, e, want)
		}
	}
	return events
}

// webSocketTest runs a test in a bubble with a hub and its server.
func webSocketTest(t *testing.T, o halley.Options, test func(t *testing.T, hub *halley.Hub, srv *transporttest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, o)
		test(t, hub, transporttest.Serve(t, &http.Server{Handler: hub}, transporttest.HTTP1))
	})
}

// What a client asks for is done in its order, and answered under its ref.
func TestWebSocketCommands(t *testing.T) {
	webSocketTest(t, halley.Options{MaxChannels: 3, MaxMessage: 100}, func(t *testing.T, hub *halley.Hub, srv *transporttest.Server) {
		start := publish(t, hub, "a", "1")[0].String()
		publish(t, hub, "b/x", "2")
		c := dialWebSocket(t, srv, "cursor="+start)
		open := c.want("open")[0]
		if open.ID != start {
			t.Errorf("opens at %s, want %s", open.ID, start)
		}

		// The position of a new channel is the last id that was sent: the open's.
		c.send(`{"subscribe":["a","b/*"],"ref":1}`)
		if ack := c.want("ack 1", `b/x="2"`)[0]; ack.ID != open.ID {
			t.Errorf("the ack has id %s, want %s", ack.ID, open.ID)
		}
		c.send(` {"ref" : "x\u0041 \"" , "subscribe" : [ "a" ] } `)
		if ack := c.want(`ack "x\u0041 \""`)[0]; ack.ID != hub.End().String() {
			t.Errorf("the ack has id %s, want %v", ack.ID, hub.End())
		}
		c.send(`{"publish":{"channel":"a","type":"t","data":{"n" : 1.0}},"ref":-1.5e3}`)
		synctest.Wait()
		got := map[string]wsEvent{}
		for range 2 {
			e := c.next()
			got[e.Control] = e
		}
		ack, m := got["ack"], got[""]
		if string(ack.Ref) != "-1.5e3" || ack.ID != hub.End().String() || m.ID != ack.ID || m.Type != "t" || string(m.Data) != `{"n":1.0}` {
			t.Errorf("got %+v and %+v", ack, m)
		}

		// Without a ref only errors are answered.
		c.send(`{"publish":{"channel":"b/y","data":"text"}}`, `{"publish":{"channel":"b/z","data64":"/wA=","contentType":"image/png"},"ref":null}`,
			`{"unsubscribe":["a"]}`, `{"subscribe":[]}`, `{"unsubscribe":["a","nothing"],"ref":2}`)
		events := c.want(`b/y="text"`, `b/z=`, "ack 2")
		if events[2].ID != hub.End().String() {
			t.Errorf("the ack has id %s, want %v", events[2].ID, hub.End())
		}
		publish(t, hub, "a", "no longer")
		publish(t, hub, "b/x", "still")
		c.want(`b/x="still"`)

		// Unsubscribing is by the exact strings.
		c.send(`{"subscribe":["b/x"],"ref":3}`, `{"unsubscribe":["b/**"],"ref":4}`, `{"unsubscribe":["b/*"],"ref":5}`)
		c.want("ack 3", "ack 4", "ack 5")
		publish(t, hub, "b/y", "no longer")
		publish(t, hub, "b/x", "still")
		c.want(`b/x="still"`)

		// A key makes a publish safe to repeat, from whatever transport.
		c.send(`{"publish":{"channel":"q","data":"once","key":"k"},"ref":6}`, `{"publish":{"channel":"q","data":"once","key":"k"},"ref":7}`,
			`{"publish":{"channel":"q","data":"other","key":"k"},"ref":8}`)
		events = c.want("ack 6", "ack 7", "error 8 key-reused")
		if events[0].ID != events[1].ID {
			t.Errorf("two messages under one key: %s and %s", events[0].ID, events[1].ID)
		}
		w := call(hub, "POST", "/comet/publish?channel=q", "once", "Content-Type: text/plain; charset=utf-8", "Idempotency-Key: k")
		if list, _ := ids(t, w); list[0] != events[0].ID {
			t.Errorf("the same key over HTTP: %s, want %s", w.Body, events[0].ID)
		}
	})
}

// An error answers its frame and leaves the connection open; a frame with
// anything wrong in it does nothing.
func TestWebSocketErrors(t *testing.T) {
	webSocketTest(t, halley.Options{MaxChannels: 3}, func(t *testing.T, hub *halley.Hub, srv *transporttest.Server) {
		c := dialWebSocket(t, srv, "channel=a")
		c.want("open")
		for _, e := range []struct{ frame, want string }{
			{``, "error invalid-frame"},
			{`nonsense`, "error invalid-frame"},
			{`{"subscribe":["x"]`, "error invalid-frame"},
			{`{"subscribe":["x"]} {}`, "error invalid-frame"},
			{`["subscribe"]`, "error invalid-frame"},
			{`"subscribe"`, "error invalid-frame"},
			{`null`, "error invalid-frame"},
			{`{}`, "error invalid-frame"},
			{`{"ref":1}`, "error 1 invalid-frame"},
			{`{"Subscribe":["x"],"ref":1}`, "error 1 invalid-frame"},
			{`{"subscribe":["x"],"unsubscribe":["x"],"ref":1}`, "error 1 invalid-frame"},
			{`{"subscribe":["x"],"publish":{"channel":"x","data":1},"ref":1}`, "error 1 invalid-frame"},
			{`{"subscribe":"x","ref":"s"}`, `error "s" invalid-frame`},
			{`{"subscribe":[1],"ref":2}`, "error 2 invalid-frame"},
			{`{"subscribe":null,"ref":2}`, "error 2 invalid-frame"},
			{`{"unsubscribe":{},"ref":2}`, "error 2 invalid-frame"},
			{`{"subscribe":["x"],"ref":true}`, "error invalid-frame"},
			{`{"subscribe":["x"],"ref":{}}`, "error invalid-frame"},
			{`{"subscribe":["x"],"ref":[1]}`, "error invalid-frame"},
			{`{"subscribe":["x"],"ref":"` + strings.Repeat("r", 255) + `"}`, "error invalid-frame"},
			{`{"publish":"x","ref":3}`, "error 3 invalid-message"},
			{`{"publish":null,"ref":3}`, "error 3 invalid-message"},
			{`{"publish":{},"ref":3}`, "error 3 invalid-message"},
			{`{"publish":{"channel":"x"},"ref":3}`, "error 3 invalid-message"},
			{`{"publish":{"channel":"x","data":1,"type":"open"},"ref":3}`, "error 3 invalid-message"},
			{`{"publish":{"channel":"x","data":1,"data64":""},"ref":3}`, "error 3 invalid-message"},
			{`{"publish":{"channel":1,"data":1},"ref":3}`, "error 3 invalid-message"},
			{`{"publish":{"data":1},"ref":3}`, "error 3 invalid-channel"},
			{`{"publish":{"channel":"x/*","data":1},"ref":3}`, "error 3 invalid-channel"},
			{`{"publish":{"channel":"x","data":1,"key":"` + strings.Repeat("k", 256) + `"},"ref":3}`, "error 3 invalid-key"},
			{`{"publish":{"channel":"x//","data":1}}`, "error invalid-channel"},
			{`{"subscribe":["x","y//"],"ref":4}`, "error 4 invalid-channel"},
			{`{"subscribe":["x","y","z"],"ref":4}`, "error 4 invalid-channel"}, // one too many
			{`{"subscribe":["x","a/*/b"]}`, "error invalid-channel"},
		} {
			c.send(e.frame)
			got := c.want(e.want)[0]
			if got.Status < 400 || got.Status >= 500 || strings.Contains(got.Detail, "engine:") {
				t.Errorf("%s: %+v", e.frame, got)
			}
		}
		// A channel over the limit is one that is new.
		c.send(`{"subscribe":["a","b","b","a","c"],"ref":5}`, `{"subscribe":["a","b","c"],"ref":6}`, `{"subscribe":["d"],"ref":7}`,
			`{"unsubscribe":["a"],"ref":8}`, `{"subscribe":["d"],"ref":9}`)
		c.want("ack 5", "ack 6", "error 7 invalid-channel", "ack 8", "ack 9")
		publish(t, hub, "x", "nothing of what was refused")
		publish(t, hub, "a", "nothing of what was removed")
		publish(t, hub, "d", "1")
		c.want(`d="1"`)
		if got := stored(t, hub); len(got) != 3 {
			t.Errorf("stored %q", got)
		}
	})
}

// What ends a connection, and with which close code (protocol 15.12).
func TestWebSocketCloses(t *testing.T) {
	text := ws.Header{Fin: true, OpCode: ws.OpText, Masked: true}
	with := func(change func(*ws.Header)) ws.Header {
		h := text
		change(&h)
		return h
	}
	type frame struct {
		header  ws.Header
		payload string
	}
	for _, c := range []struct {
		name   string
		frames []frame
		want   []string
	}{
		{"binary", []frame{{with(func(h *ws.Header) { h.OpCode = ws.OpBinary }), "{}"}}, []string{"close 1003"}},
		{"fragmented binary", []frame{{with(func(h *ws.Header) { h.OpCode, h.Fin = ws.OpBinary, false }), "{}"}}, []string{"close 1003"}},
		{"too large", []frame{{text, strings.Repeat("x", 20_000)}}, []string{"close 1009"}},
		{"too large in fragments", []frame{
			{with(func(h *ws.Header) { h.Fin = false }), strings.Repeat("x", 5000)},
			{with(func(h *ws.Header) { h.Fin, h.OpCode = false, ws.OpContinuation }), strings.Repeat("x", 5000)},
		}, []string{"close 1009"}},
		{"not UTF-8", []frame{{text, "{\"\xff\":1}"}}, []string{"close 1007"}},
		{"not whole UTF-8", []frame{{text, "{\"\xc3"}}, []string{"close 1007"}},
		{"not UTF-8 over fragments", []frame{
			{with(func(h *ws.Header) { h.Fin = false }), "\xc3"},
			{with(func(h *ws.Header) { h.OpCode = ws.OpContinuation }), "x"},
		}, []string{"close 1007"}},
		{"not masked", []frame{{with(func(h *ws.Header) { h.Masked = false }), "{}"}}, []string{"close 1002"}},
		{"reserved bit", []frame{{with(func(h *ws.Header) { h.Rsv = 4 }), "{}"}}, []string{"close 1002"}},
		{"reserved op code", []frame{{with(func(h *ws.Header) { h.OpCode = 3 }), "{}"}}, []string{"close 1002"}},
		{"reserved control", []frame{{with(func(h *ws.Header) { h.OpCode = 11 }), ""}}, []string{"close 1002"}},
		{"continuation of nothing", []frame{{with(func(h *ws.Header) { h.OpCode = ws.OpContinuation }), "{}"}}, []string{"close 1002"}},
		{"text within a text", []frame{{with(func(h *ws.Header) { h.Fin = false }), "{"}, {text, "}"}}, []string{"close 1002"}},
		{"fragmented ping", []frame{{with(func(h *ws.Header) { h.OpCode, h.Fin = ws.OpPing, false }), ""}}, []string{"close 1002"}},
		{"ping of 126 bytes", []frame{{with(func(h *ws.Header) { h.OpCode = ws.OpPing }), strings.Repeat("x", 126)}}, []string{"close 1002"}},
		{"close", []frame{{with(func(h *ws.Header) { h.OpCode = ws.OpClose }), "\x03\xe8bye"}}, []string{"close 1000"}},
		{"close without a code", []frame{{with(func(h *ws.Header) { h.OpCode = ws.OpClose }), ""}}, []string{"close 1000"}},
		{"close of the application", []frame{{with(func(h *ws.Header) { h.OpCode = ws.OpClose }), "\x0f\xa0"}}, []string{"close 4000"}},
		{"close with half a code", []frame{{with(func(h *ws.Header) { h.OpCode = ws.OpClose }), "\x03"}}, []string{"close 1002"}},
		{"close with a reserved code", []frame{{with(func(h *ws.Header) { h.OpCode = ws.OpClose }), "\x03\xed"}}, []string{"close 1002"}},
		{"close with a reason that is not UTF-8", []frame{{with(func(h *ws.Header) { h.OpCode = ws.OpClose }), "\x03\xe8\xff"}}, []string{"close 1002"}},
		{"frames, then close", []frame{
			{text, `{"subscribe":["b"],"ref":1}`},
			{with(func(h *ws.Header) { h.OpCode = ws.OpPing }), "p"},
			{text, `nonsense`},
			{with(func(h *ws.Header) { h.OpCode = ws.OpBinary }), ""},
			{text, `{"subscribe":["c"],"ref":2}`},
		}, []string{"ack 1", "pong p", "error invalid-frame", "close 1003"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			webSocketTest(t, halley.Options{MaxMessage: 4000}, func(t *testing.T, hub *halley.Hub, srv *transporttest.Server) {
				client := dialWebSocket(t, srv, "channel=a")
				client.want("open")
				for _, f := range c.frames {
					client.frame(f.header, f.payload)
				}
				var got []string
				for e := client.next(); ; e = client.next() {
					if got = append(got, e.String()); e.Control == "close" || e.Control == "end" {
						break
					}
				}
				if fmt.Sprint(sortPong(got)) != fmt.Sprint(sortPong(c.want)) {
					t.Errorf("got %q, want %q", got, c.want)
				}
				client.conn.Close()
				synctest.Wait()
				if n := hub.Connections(); n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

// sortPong puts a pong first: it may overtake what was asked before.
func sortPong(list []string) (sorted []string) {
	for _, s := range list {
		if strings.HasPrefix(s, "pong") {
			sorted = append([]string{s}, sorted...)
		} else {
			sorted = append(sorted, s)
		}
	}
	return sorted
}

// A server that closes waits for the client to close too, for a moment.
func TestWebSocketCloseHandshake(t *testing.T) {
	webSocketTest(t, halley.Options{DrainWindow: time.Millisecond}, func(t *testing.T, hub *halley.Hub, srv *transporttest.Server) {
		polite := dialWebSocket(t, srv, "channel=a")
		silent := dialWebSocket(t, srv, "channel=a")
		polite.want("open")
		silent.want("open")
		drained := make(chan error)
		go func() { drained <- hub.Drain(t.Context()) }()
		polite.want("reconnect", "close 1001")
		began := time.Now()
		polite.frame(ws.Header{Fin: true, OpCode: ws.OpClose, Masked: true}, "\x03\xe9")
		polite.want("end")
		if d := time.Since(began); d != 0 {
			t.Errorf("the polite client's connection ends after %v", d)
		}
		silent.want("reconnect", "close 1001")
		silent.want("end")
		if d := time.Since(began); d < time.Second || d > time.Second+20*time.Millisecond {
			t.Errorf("the silent client's connection ends after %v", d)
		}
		if err := <-drained; err != nil {
			t.Error(err)
		}

		late := dialWebSocket(t, srv, "channel=a")
		late.want("reconnect", "close 1013", "end")
	})
}

// Fragments and what comes between them are one message.
func TestWebSocketFragments(t *testing.T) {
	webSocketTest(t, halley.Options{}, func(t *testing.T, hub *halley.Hub, srv *transporttest.Server) {
		c := dialWebSocket(t, srv, "channel=a")
		c.want("open")
		message := `{"publish":{"channel":"a","data":"é 🌠"},"ref":1}`
		for i := range len(message) {
			op := ws.OpContinuation
			if i == 0 {
				op = ws.OpText
			}
			c.frame(ws.Header{OpCode: op, Masked: true}, message[i:i+1])
			if i%7 == 0 {
				c.frame(ws.Header{Fin: true, OpCode: ws.OpPing, Masked: true}, strconv.Itoa(i))
				c.want("pong " + strconv.Itoa(i))
			}
			if i%5 == 0 {
				c.frame(ws.Header{OpCode: ws.OpContinuation, Masked: true}, "")
				c.frame(ws.Header{Fin: true, OpCode: ws.OpPong, Masked: true}, "not asked for")
			}
		}
		c.frame(ws.Header{Fin: true, OpCode: ws.OpContinuation, Masked: true}, "")
		synctest.Wait()
		got := []string{c.next().String(), c.next().String()}
		if s := strings.Join(got, " "); s != `ack 1 a="é 🌠"` && s != `a="é 🌠" ack 1` {
			t.Errorf("got %s", s)
		}
		// The largest message that may be sent.
		limit := 1<<20 + 4096
		c.send(`{"publish":{"channel":"b","data":"` + strings.Repeat("x", 1<<20) + `"},"ref":2` + strings.Repeat(" ", 4096-41) + `}`)
		if e := c.next(); e.String() != "ack 2" {
			t.Errorf("a message of %d bytes: %+v", limit, e)
		}
	})
}

// Channels are added and removed while others publish: nothing is lost or
// doubled, for the old channels and for the new ones from the ack's position.
func TestWebSocketChanging(t *testing.T) {
	webSocketTest(t, halley.Options{Heartbeat: 50 * time.Millisecond}, func(t *testing.T, hub *halley.Hub, srv *transporttest.Server) {
		const channels, rounds = 5, 40
		publishTo := func(n int) {
			for i := range n {
				publish(t, hub, "c"+strconv.Itoa(i%channels), strconv.Itoa(i))
			}
		}
		publishTo(20)
		start := hub.End()
		c := dialWebSocket(t, srv, "channel=c0&cursor="+start.String())

		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range rounds {
					publishTo(channels * 2)
					time.Sleep(7 * time.Millisecond) // the bubble's time
				}
			})
		}
		// c1 to c3 come one after the other, c4 through a pattern; then c1 and
		// c2 go again.
		wg.Go(func() {
			for i, frame := range []string{
				`{"subscribe":["c1"],"ref":0}`, `{"subscribe":["c2","c3"],"ref":1}`, `{"subscribe":["*"],"ref":2}`,
				`{"unsubscribe":["*"],"ref":3}`, `{"unsubscribe":["c1","c2"],"ref":4}`, `{"subscribe":["c1"],"ref":5}`,
			} {
				c.send(frame)
				time.Sleep(time.Duration(30+i) * time.Millisecond)
			}
		})
		wg.Wait()
		synctest.Wait()
		c.send(`{"publish":{"channel":"c0","data":"end"}}`)
		synctest.Wait()

		// The client's account: from which position on it has which channel.
		has := map[string]bool{"c0": true}
		sets := []map[string]bool{
			{"c0": true, "c1": true},
			{"c0": true, "c1": true, "c2": true, "c3": true},
			{"c0": true, "c1": true, "c2": true, "c3": true, "c4": true},
			{"c0": true, "c1": true, "c2": true, "c3": true},
			{"c0": true, "c3": true},
			{"c0": true, "c1": true, "c3": true},
		}
		log := all(t, hub)
		at := start.Seq // what the client has been sent everything up to
		expect := func(upTo uint64) (list []string) {
			for _, m := range log {
				if m.ID.Seq > at && m.ID.Seq <= upTo && has[m.Channel] {
					list = append(list, m.ID.String())
				}
			}
			return list
		}
		var got []string
		messages := 0
		for {
			e := c.next()
			if e.Control == "end" {
				t.Fatal("the connection has ended")
			}
			if e.ID == "" {
				t.Fatalf("got %+v", e)
			}
			id, err := halley.ParseCursor(e.ID)
			if err != nil {
				t.Fatal(err)
			}
			if id.Seq < at {
				t.Fatalf("%+v goes back from %d", e, at)
			}
			if e.Control == "" {
				got = append(got, e.ID)
				messages++
			}
			if want := expect(id.Seq); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("up to %+v: got %v, want %v", e, got, want)
			}
			at, got = id.Seq, nil
			if e.Control == "ack" {
				ref, err := strconv.Atoi(string(e.Ref))
				if err != nil {
					t.Fatal(err)
				}
				has = sets[ref]
			}
			if string(e.Data) == `"end"` {
				break
			}
		}
		if messages < rounds*channels {
			t.Errorf("only %d messages came", messages)
		}
	})
}

// The position at which a channel is added is the last that the client was
// told, be it by a heartbeat.
func TestWebSocketPosition(t *testing.T) {
	webSocketTest(t, halley.Options{Heartbeat: time.Minute}, func(t *testing.T, hub *halley.Hub, srv *transporttest.Server) {
		c := dialWebSocket(t, srv, "channel=a")
		open := c.want("open")[0]
		first := publish(t, hub, "b", "1", "2")[1].String()
		beat := c.want("heartbeat")[0]
		publish(t, hub, "b", "3")
		c.send(`{"subscribe":["b"],"ref":1}`)
		ack := c.want("ack 1", `b="3"`)[0]
		if beat.ID != first || ack.ID != beat.ID || open.ID == beat.ID {
			t.Errorf("open at %s, messages up to %s, heartbeat at %s, ack at %s", open.ID, first, beat.ID, ack.ID)
		}
	})
}

// A channel that is added with a past that is gone gets a gap.
func TestWebSocketSubscribeGap(t *testing.T) {
	webSocketTest(t, halley.Options{}, func(t *testing.T, hub *halley.Hub, srv *transporttest.Server) {
		publish(t, hub, "a", "1")
		c := dialWebSocket(t, srv, "cursor=zzz-1")
		events := c.want("open", "gap")
		if events[0].ID != events[1].ID {
			t.Errorf("open at %s, gap at %s", events[0].ID, events[1].ID)
		}
		c.send(`{"subscribe":["a"],"ref":1}`)
		c.want("ack 1", `a="1"`)
	})
}
