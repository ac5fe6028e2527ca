package bayeux

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine/memory"
)

// FuzzParse compares what is read of messages with what encoding/json makes of
// them.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`[{"channel":"/a","id":"1","clientId":"x","data":{"a":[1,"]}",{}]},"ext":{"ack":-1e3}}]`,
		`{"channel":"\u002fa", "data" : null ,"advice":{"timeout":5},"subscription":["/a","/b"]}`,
		` [ 1 , -2.5e+3 , "a\"\\" , [ ] , { } , true, null ] `, `[]`, `{}`, `"x"`, `[{"a":1,"a":2}]`, "[{\"channel\":\"\xff\"}]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		messages, err := parse(bytes.Clone(b), 100)
		var list []json.RawMessage
		if json.Unmarshal(b, &list) != nil || list == nil {
			list = []json.RawMessage{b}
		}
		if !json.Valid(b) || len(list) == 0 || len(list) > 100 {
			if err == nil {
				t.Fatalf("%q is taken", b)
			}
			return
		}
		if err != nil || len(messages) != len(list) {
			t.Fatalf("%q: %d messages, %v; want %d", b, len(messages), err, len(list))
		}
		for i := range messages {
			m := &messages[i]
			var fields map[string]json.RawMessage
			if json.Unmarshal(list[i], &fields) != nil || fields == nil {
				if m.fault == "" {
					t.Errorf("%s is a message", list[i])
				}
				continue
			}
			if m.fault != "" {
				continue // which of two fields of one name was wrong is not told
			}
			var channel string
			_ = json.Unmarshal(fields["channel"], &channel)
			if _, ok := fields["channel"]; ok && string(fields["channel"]) != "null" && channel != m.channel {
				t.Errorf("%s: channel %q", list[i], m.channel)
			}
			if data := fields["data"]; !same(data, m.data) {
				t.Errorf("%s: data %s", list[i], m.data)
			}
			r := newReply(m, true).end()
			if !json.Valid(r) || !isASCII(r) {
				t.Errorf("%s: reply %s", list[i], r)
			}
		}
	})
}

func same(a, b json.RawMessage) bool {
	var x, y any
	_, _ = json.Unmarshal(a, &x), json.Unmarshal(b, &y) // both fail alike
	return reflect.DeepEqual(x, y)
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// FuzzServe sends requests of all kinds: each is answered with a JSON array,
// in JSONP or not.
func FuzzServe(f *testing.F) {
	for _, s := range []string{
		`[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"],"ext":{"replay":true,"ack":true,"timesync":{"tc":1,"l":2,"o":3}}}]`,
		`[{"channel":"/meta/connect","clientId":"ID","connectionType":"long-polling","advice":{"timeout":0},"ext":{"ack":0}}]`,
		`[{"channel":"/meta/subscribe","clientId":"ID","subscription":["/a","/b/**"],"ext":{"replay":{"/a":-2,"/b/**":0}}}]`,
		`[{"channel":"/meta/unsubscribe","clientId":"ID","subscription":"/a"}]`,
		`[{"channel":"/a","clientId":"ID","data":{"data":"vp#s"},"ext":{"binary":{}},"id":"x"},{"channel":"/service/x","data":1}]`,
		`message=%5B%5D&message=1`, `{"channel":"/meta/disconnect","clientId":"ID"}`,
	} {
		f.Add(s, "cb", false)
		f.Add(s, "", true)
	}
	log, err := memory.New(memory.Options{})
	if err != nil {
		f.Fatal(err)
	}
	hub, err := halley.New(log, nil)
	if err != nil {
		f.Fatal(err)
	}
	h, err := New(hub, &Options{Timeout: 1})
	if err != nil {
		f.Fatal(err)
	}
	do := func(method, target, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	f.Fuzz(func(t *testing.T, body, callback string, post bool) {
		var replies []struct{ ClientID string }
		_ = json.Unmarshal(do("POST", "/bayeux", `{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"],"ext":{"replay":true}}`).Body.Bytes(), &replies)
		if len(replies) != 1 || replies[0].ClientID == "" {
			t.Fatal("no session")
		}
		body = strings.ReplaceAll(body, "ID", replies[0].ClientID)
		var w *httptest.ResponseRecorder
		if post {
			w = do("POST", "/bayeux", body)
		} else {
			w = do("GET", "/bayeux?jsonp="+url.QueryEscape(callback)+"&message="+url.QueryEscape(body), "")
		}
		text := w.Body.String()
		if !post && w.Code == http.StatusOK {
			name := callback
			if name == "" {
				name = "jsonpcallback"
			}
			var ok bool
			if text, ok = strings.CutPrefix(text, "/**/"+name+"("); !ok {
				t.Fatalf("%q", w.Body)
			}
			text = strings.TrimSuffix(text, ");")
		}
		var list []map[string]any
		if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) == 0 || !isASCII([]byte(text)) {
			t.Fatalf("%q: %d %q: %v", body, w.Code, text, err)
		}
		if s := h.Session(replies[0].ClientID); s != nil {
			s.End()
		}
	})
}

// FuzzZ85 shows that what is encoded is decoded again, and that what is not the
// code of anything is told or is that of something.
func FuzzZ85(f *testing.F) {
	for _, s := range []string{"", "a", "ab", "abc", "abcd", "abcde", "HelloWorld", "#####", "%nSc0"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		text := appendZ85(nil, b)
		if back, err := decodeZ85(string(text)); err != nil || !bytes.Equal(back, b) {
			t.Errorf("%x is %q is %x, %v", b, text, back, err)
		}
		_, _ = decodeZ85(string(b))
	})
}

// FuzzDeliver shows that whatever is in the log is delivered as JSON.
func FuzzDeliver(f *testing.F) {
	f.Add([]byte(`{"a":1}`), "application/json", `"1"`, `{"x":2}`, `{"last":true}`)
	f.Add([]byte("\xff\x00"), "image/png", "", "", "")
	f.Add([]byte("ü\u2028"), "text/plain", "7", `{}`, "{}")
	f.Add([]byte(`{"event":{}}`), "application/json", "", `{"binary":{}}`, "")
	f.Fuzz(func(t *testing.T, data []byte, contentType, id, ext, beside string) {
		m := halley.Message{Channel: "a/b", ContentType: contentType, Data: data, Headers: map[string]string{}}
		for name, value := range map[string]string{idHeader: id, extHeader: ext, binaryHeader: beside} {
			m.Headers[name] = value // a Go program can set anything
		}
		if m.Check() != nil || strings.Contains(contentType, "json") && (!json.Valid(data) || !utf8.Valid(data)) {
			return
		}
		for _, f := range []framing{{}, {replay: true, timestamp: true}} {
			if b := f.append(nil, &m); !json.Valid(b) || !isASCII(b) {
				t.Errorf("%+v is %s", m, b)
			}
		}
	})
}
