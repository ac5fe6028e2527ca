package conformance

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

var webSocketCases = []testCase{
	{"websocket/subscribe", "15.6", `{"subscribe":[…]} … answered by {"control":"ack","ref":…,"id":C}`, wsSubscribe},
	{"websocket/new-channel-position", "15.7", "A new channel starts at the connection's position, which is the last id the connection was sent; the ack's id is that position", wsPosition},
	{"websocket/unsubscribe", "15.4", `{"unsubscribe":[…]} (exact strings)`, wsUnsubscribe},
	{"websocket/publish", "15.8", "a publish's ack: the message's id", wsPublish},
	{"websocket/publish-key", "16.11", `"key": a repeat gets the same answer`, wsPublishKey},
	{"websocket/ref", "15.5", "an optional ref (string or number); without ref only errors are answered", wsRef},
	{"websocket/refused-channel", "15.9", "One refused channel refuses its frame", wsRefusedChannel},
	{"websocket/malformed", "15.9", "Malformed JSON: an error, the connection stays", wsMalformed},
	{"websocket/binary", "15.12", "binary frame: close 1003", wsBinary},
	{"websocket/too-large", "15.12", "too large: 1009", wsTooLarge},
	{"websocket/rfc-6455", "15.1", "RFC 6455", wsRFC},
	{"websocket/handshake-refused", "8.14", "malformed cursors, channels and formats are 400", wsHandshakeRefused},
}

// wsOpen opens a WebSocket and returns it with its position.
func (s *server) wsOpen(t tb, q subscription) (*stream, string) {
	t.Helper()
	st := s.open(t, kindWebSocket, q)
	e := st.next()
	if e.control != "open" {
		t.Fatalf("websocket: got %v, want open", e)
	}
	return st, e.id
}

// reply returns the next event that is an answer, and the others before it.
func (st *stream) reply() (answer event, before []event) {
	st.t.Helper()
	for {
		switch e := st.nextMessage(); e.control {
		case "ack", "error":
			return e, before
		default:
			before = append(before, e)
		}
	}
}

// ask sends a frame with a ref and returns the id of its ack.
func (st *stream) ask(frame, ref string) string {
	st.t.Helper()
	st.say(strings.TrimSuffix(frame, "}") + `,"ref":` + ref + `}`)
	e, before := st.reply()
	if e.control != "ack" || string(e.Ref) != ref || len(before) > 0 {
		st.t.Fatalf("websocket: %s with the ref %s: got %v and then %v, want an ack", frame, ref, before, e)
	}
	return e.id
}

func list(channels ...string) string {
	b, _ := json.Marshal(channels)
	return string(b)
}

func wsSubscribe(t tb, s *server) {
	a, b := s.channel(), s.channel()
	st, _ := s.wsOpen(t, subscription{})
	st.ask(`{"subscribe":`+list(a, b+"/*")+`}`, `1`)
	want := s.text(t, a, "one")
	s.text(t, b, "not this")
	want = append(want, s.text(t, b+"/x", "two")...)
	isAll(t, "websocket", []event{st.nextMessage(), st.nextMessage()}, want)
	// Again: nothing comes twice.
	st.ask(`{"subscribe":`+list(a, a)+`}`, `2`)
	want = s.text(t, a, "three", "four")
	isAll(t, "websocket", []event{st.nextMessage(), st.nextMessage()}, want)
}

func wsPosition(t tb, s *server) {
	a, b := s.channel(), s.channel()
	old := s.text(t, b, "old")[0]
	st, open := s.wsOpen(t, on(a, old.id))
	if open != old.id {
		t.Errorf("open at %s, want %s", open, old.id)
	}
	s.text(t, b, "before a's")
	one := s.text(t, a, "one")
	last := ""
	for e := st.next(); ; e = st.next() {
		if last = e.id; e.control != "heartbeat" {
			isAll(t, "websocket", []event{e}, one)
			break
		}
	}
	between := s.text(t, b, "after a's")
	// A heartbeat may come in between: the position is read up to the ack.
	st.say(`{"subscribe":` + list(b) + `,"ref":"r"}`)
	var ack event
	for ack = st.next(); ack.control == "heartbeat"; ack = st.next() {
		last = ack.id
	}
	if ack.control != "ack" || ack.id != last {
		t.Fatalf("got %v, want an ack with the last id sent, %s", ack, last)
	}
	if position(t, last) < position(t, between[0].id) {
		isAll(t, "the new channel", []event{st.nextMessage()}, between)
	}
	// In one order with the channel that was there.
	more := append(s.text(t, a, "two"), s.text(t, b, "three")...)
	isAll(t, "both", []event{st.nextMessage(), st.nextMessage()}, more)
}

func wsUnsubscribe(t tb, s *server) {
	a, b := s.channel(), s.channel()
	st, _ := s.wsOpen(t, subscription{channels: []string{a, a + "/*", b}, cursor: "now"})
	st.ask(`{"unsubscribe":`+list(a)+`}`, `1`)
	s.text(t, a, "not this")
	want := append(s.text(t, a+"/x", "one"), s.text(t, b, "two")...)
	isAll(t, "without the name", []event{st.nextMessage(), st.nextMessage()}, want)
	// A name does not take a pattern's part away.
	st.say(`{"unsubscribe":` + list(a+"/x") + `}`)
	want = append(s.text(t, a+"/x", "three"), s.text(t, b, "four")...)
	got := st.nextMessage()
	if got.control == "error" { // that it was not subscribed
		got = st.nextMessage()
	}
	isAll(t, "with the pattern", []event{got, st.nextMessage()}, want)
	st.ask(`{"unsubscribe":`+list(a+"/*")+`}`, `2`)
	s.text(t, a+"/x", "not this")
	want = s.text(t, b, "five")
	isAll(t, "without the pattern", []event{st.nextMessage()}, want)
}

func wsPublish(t tb, s *server) {
	ch := s.channel()
	st, _ := s.wsOpen(t, on(ch, "now"))
	for i, c := range []struct{ data, contentType, want string }{
		{`"text"`, "text/plain", "text"}, {`{"n":1.0e5}`, "application/json", `{"n":1.0e5}`}, {`null`, "application/json", "null"}, {`12345678901234567890`, "application/json", "12345678901234567890"},
	} {
		ref := fmt.Sprint(i)
		st.say(fmt.Sprintf(`{"publish":{"channel":%q,"type":"said","data":%s},"ref":%s}`, ch, c.data, ref))
		// Its own subscription has it, too, before or after the ack.
		x, y := st.nextMessage(), st.nextMessage()
		if x.control == "" {
			x, y = y, x
		}
		if x.control != "ack" || string(x.Ref) != ref {
			t.Fatalf("got %v and %v, want an ack and the message", x, y)
		}
		want := &publication{channel: ch, typ: "said", contentType: c.contentType, data: c.want, id: x.id}
		isAll(t, "websocket", []event{y}, []*publication{want})
	}
	for _, frame := range []string{
		`{"publish":{"channel":"a//b","data":1}}`, `{"publish":{"data":1}}`, `{"publish":{"channel":"a/*","data":1}}`,
		fmt.Sprintf(`{"publish":{"channel":%q,"type":"comet:x","data":1}}`, ch),
	} {
		st.say(strings.TrimSuffix(frame, "}") + `,"ref":"bad"}`)
		if e, _ := st.reply(); e.control != "error" || string(e.Ref) != `"bad"` || e.Status < 400 || e.Status > 499 {
			t.Errorf("%s: got %v, want an error with its ref", frame, e)
		}
	}
	if n := len(s.history(t, "channel", ch).messages); n != 4 {
		t.Errorf("got %d messages in the log, want 4", n)
	}
}

func wsPublishKey(t tb, s *server) {
	ch := s.channel()
	st, _ := s.wsOpen(t, subscription{})
	frame := fmt.Sprintf(`{"publish":{"channel":%q,"data":"once","key":%q}}`, ch, ch)
	first := st.ask(frame, `1`)
	if again := st.ask(frame, `2`); again != first {
		t.Errorf("got the ids %s and %s for one key", first, again)
	}
	st.say(fmt.Sprintf(`{"publish":{"channel":%q,"data":"other","key":%q},"ref":3}`, ch, ch))
	if e, _ := st.reply(); e.control != "error" || e.Status != http.StatusUnprocessableEntity {
		t.Errorf("got %v, want the error 422", e)
	}
	if n := len(s.history(t, "channel", ch).messages); n != 1 {
		t.Errorf("got %d messages in the log, want 1", n)
	}
}

func wsRef(t tb, s *server) {
	st, _ := s.wsOpen(t, subscription{})
	for _, ref := range []string{`0`, `7`, `"a"`, `"7"`, `"é\"\\"`, `""`} {
		ch := s.channel()
		st.say(`{"subscribe":` + list(ch) + `,"ref":` + ref + `}`)
		var got, want any
		e, _ := st.reply()
		json.Unmarshal(e.Ref, &got)
		json.Unmarshal([]byte(ref), &want)
		if e.control != "ack" || got != want {
			t.Errorf("ref %s: got %v", ref, e)
		}
	}
	// Without a ref there is no ack: the next answer is that of the next frame.
	ch := s.channel()
	st.say(`{"subscribe":` + list(ch) + `}`)
	st.say(fmt.Sprintf(`{"publish":{"channel":%q,"data":1}}`, s.channel()))
	st.say(`{"unsubscribe":` + list(s.channel()+"/*") + `}`)
	st.ask(`{"subscribe":`+list(ch)+`}`, `"next"`)
	st.say(`{"subscribe":["a//b"]}`)
	if e, _ := st.reply(); e.control != "error" || e.Status != http.StatusBadRequest || len(e.Ref) > 0 && string(e.Ref) != "null" {
		t.Errorf("without a ref: got %v, want the error 400 without a ref", e)
	}
}

func wsRefusedChannel(t tb, s *server) {
	good, known := s.channel(), s.channel()
	st, _ := s.wsOpen(t, on(known, "now"))
	for _, bad := range append([]string{"a//b", "meta/x"}, badPatterns...) {
		st.say(`{"subscribe":` + list(good, bad) + `,"ref":9}`)
		if e, _ := st.reply(); e.control != "error" || string(e.Ref) != "9" || e.Status < 400 || e.Status > 499 {
			t.Errorf("%q: got %v, want an error", bad, e)
		}
	}
	s.text(t, good, "not this")
	want := s.text(t, known, "this")
	isAll(t, "after refusals", []event{st.nextMessage()}, want)
}

func wsMalformed(t tb, s *server) {
	ch := s.channel()
	st, _ := s.wsOpen(t, on(ch, "now"))
	for _, text := range []string{`{`, `x`, ``, `{"subscribe":"not a list"}`, `{"subscribe":[5]}`, `{"publish":5}`, `{"subscribe":[]} {}`, `[]`, `5`, `{}`, `{"nosuch":1}`,
		fmt.Sprintf(`{"subscribe":[%q],"unsubscribe":[%q]}`, ch, ch), `{"subscribe":["a"],"ref":{}}`, `{"subscribe":["a"],"ref":[1]}`, `{"subscribe":["a"],"ref":true}`} {
		st.say(text)
		if e, _ := st.reply(); e.control != "error" || e.Status < 400 || e.Status > 499 {
			t.Errorf("%q: got %v, want an error", text, e)
		}
	}
	want := s.text(t, ch, "still here")
	isAll(t, "after errors", []event{st.nextMessage()}, want)
}

// closed waits for the close frame and returns its code; 0 if the connection
// ended without.
func (st *stream) closed() int {
	st.t.Helper()
	code, found := 0, false
	st.wait("a close frame", func(data []byte, ended error) bool {
		for !found {
			op, payload, n, err := readFrame(data[st.pos:])
			if err != nil || n == 0 {
				break
			}
			st.pos += n
			if found = op == opClose; found && len(payload) >= 2 {
				code = int(binary.BigEndian.Uint16(payload))
			}
		}
		return found || ended != nil
	})
	return code
}

func wsBinary(t tb, s *server) {
	st, _ := s.wsOpen(t, subscription{})
	st.write(0x80|opBinary, []byte(`{"subscribe":["a"]}`))
	if code := st.closed(); code != 1003 {
		t.Errorf("got the close code %d, want 1003", code)
	}
}

func wsTooLarge(t tb, s *server) {
	st, _ := s.wsOpen(t, subscription{})
	// Larger than any limit of a body, and than what is worth reading first.
	header := binary.BigEndian.AppendUint64([]byte{0x80 | opText, 0x80 | 127}, uint64(s.o.MaxBody)*4)
	if _, err := st.conn.Write(append(header, 0, 0, 0, 0, 'x')); err != nil {
		t.Fatalf("write: %v", err)
	}
	if code := st.closed(); code != 1009 {
		t.Errorf("got the close code %d, want 1009", code)
	}
}

func wsRFC(t tb, s *server) {
	ch := s.channel()
	st, _ := s.wsOpen(t, on(ch, "now"))
	// 5.5.2: a ping is answered by a pong with its data.
	st.write(0x80|opPing, []byte("are you there"))
	st.wait("a pong", func(data []byte, _ error) bool {
		for rest := data; ; {
			op, payload, n, err := readFrame(rest)
			if n == 0 || err != nil {
				return false
			}
			if op == opPong && bytes.Equal(payload, []byte("are you there")) {
				return true
			}
			rest = rest[n:]
		}
	})
	// 5.4: a message may come in fragments, with a control frame between.
	frame := `{"subscribe":` + list(s.channel()) + `,"ref":"fragments"}`
	st.write(opText, []byte(frame[:5]))
	st.write(0x80|opPong, nil)
	st.write(0, []byte(frame[5:9]))
	st.write(0x80, []byte(frame[9:]))
	if e, _ := st.reply(); e.control != "ack" || string(e.Ref) != `"fragments"` {
		t.Errorf("a frame in fragments: got %v, want an ack", e)
	}
	// 5.5.1: a close is answered by a close.
	st.write(0x80|opClose, []byte("\x03\xe8"))
	if code := st.closed(); code != 1000 {
		t.Errorf("a close with 1000: got %d, want 1000", code)
	}
	st.wait("the connection's end", func(_ []byte, ended error) bool { return ended != nil })
	// 8.1: text that is not UTF-8 ends the connection.
	st, _ = s.wsOpen(t, subscription{})
	st.write(0x80|opText, []byte("{\"\xff\":1}"))
	if code := st.closed(); code != 1007 {
		t.Errorf("text that is not UTF-8: got the close code %d, want 1007", code)
	}
	// So do frames that break the rules: 5.1, 5.2.
	for what, raw := range map[string]string{"unmasked": "\x81\x02{}", "reserved opcode": "\x83\x80\x00\x00\x00\x00", "reserved bit": "\xf1\x80\x00\x00\x00\x00"} {
		st, _ := s.wsOpen(t, subscription{})
		st.conn.Write([]byte(raw))
		if code := st.closed(); code != 0 && code != 1002 {
			t.Errorf("%s: got the close code %d, want 1002", what, code)
		}
	}
}

func wsHandshakeRefused(t tb, s *server) {
	ch := s.channel()
	for _, q := range []subscription{
		{channels: []string{"a//b"}}, {channels: []string{ch, "a*"}}, {channels: []string{ch}, cursor: "malformed"},
	} {
		s.refused(t, kindWebSocket, q, http.StatusBadRequest)
	}
}
