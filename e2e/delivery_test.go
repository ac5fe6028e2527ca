package e2e

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// messages are data that transports and pages have broken before.
var messages = []struct {
	name string
	body
}{
	{"plain", text("a comet")},
	{"the end of a script", text(`</script><!--<script>alert("1")</script>-->]]>`)},
	{"line separators", text("a\u2028b\u2029c\u0085d")},
	{"quotes", text(`"double" 'single' \ back ` + "`grave` ${x} %s &amp; &#39;")},
	{"emoji", text("\U0001F469\u200D\U0001F680 \u2604\uFE0F \u00E9 e\u0301 \u05D0")},
	{"newlines", text("a\nb\r\nc\rd\n\ne: f\nid: 7\ndata: g\n")},
	{"controls", text("\x00\x01\x1f\x7f\uFEFF")},
	{"nothing", text("")},
	{"a type", body{"said", "text/plain", []byte("typed")}},
	{"JSON", body{"", "application/json", []byte(`{"html":"</script>","n":[0,-1.5e3,null,true],"s":"\u2028 "}`)}},
	{"a JSON string", body{"", "application/json", []byte(`"</script>"`)}},
	{"bytes", body{"", "application/octet-stream", []byte("\x00\xff\x80</script>\r\n")}},
	{"long", text(strings.Repeat("\u2604 comet \U0001F680\n", 5000))},
}

// Messages come one by one while the response stays open, and whole: each is
// published only after the page has the one before.
func TestDelivery(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		p.visit(s.mount())
		eachWay(t, p, func(t *testing.T, p *page, w way) {
			stream := p.open(w, s.mount(), s.cursor())
			for i, m := range messages {
				id := s.publish(m.body)
				got := stream.message(i)
				if got.ID != id {
					t.Errorf("%s: id %q, want %q", m.name, got.ID, id)
				}
				if got.Type != m.kind {
					t.Errorf("%s: type %q, want %q", m.name, got.Type, m.kind)
				}
				if w.raw {
					checkRaw(t, p.engine, m.name, m.body, got)
				} else {
					checkEnvelope(t, m.name, m.body, got)
				}
			}
			if w.stream {
				checkOpen(t, stream)
			}
			stream.close()
		})
	})
}

func checkEnvelope(t *testing.T, name string, sent body, got envelope) {
	t.Helper()
	if got.Channel != "news" {
		t.Errorf("%s: channel %q, want news", name, got.Channel)
	}
	switch {
	case strings.HasPrefix(sent.contentType, "text/"):
		if want := decode(t, []byte(quote(string(sent.data)))); !reflect.DeepEqual(decode(t, got.Data), want) {
			t.Errorf("%s: data %.200s, want the text %.200q", name, got.Data, sent.data)
		}
	case sent.contentType == "application/json":
		if !reflect.DeepEqual(decode(t, got.Data), decode(t, sent.data)) {
			t.Errorf("%s: data %.200s, want %.200s", name, got.Data, sent.data)
		}
	default:
		if got.Data64 == nil || *got.Data64 != base64.StdEncoding.EncodeToString(sent.data) {
			t.Errorf("%s: data64 %v, want that of %q", name, got.Data64, sent.data)
		}
		if got.ContentType != sent.contentType {
			t.Errorf("%s: contentType %q, want %q", name, got.ContentType, sent.contentType)
		}
	}
}

// checkRaw knows what an event stream does to data: every line end is a line
// feed, and what is no text comes in base64. Firefox leaves out NUL.
func checkRaw(t *testing.T, engine, name string, sent body, got envelope) {
	t.Helper()
	want := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(sent.data))
	if engine == "firefox" {
		want = strings.ReplaceAll(want, "\x00", "")
	}
	if sent.contentType == "application/octet-stream" {
		want = base64.StdEncoding.EncodeToString(sent.data)
	}
	if data := decode(t, got.Data); data != want {
		t.Errorf("%s: data %.200q, want %.200q", name, data, want)
	}
}

// checkOpen fails unless the one response of the stream still goes on.
func checkOpen(t *testing.T, s stream) {
	t.Helper()
	var requests int
	s.get("s.requests", &requests)
	if requests != 1 {
		t.Errorf("%d requests, want 1", requests)
	}
	for _, event := range s.events() {
		if event != "open" {
			t.Errorf("event %q while the stream is open", event)
		}
	}
}

func decode(t *testing.T, data []byte) any {
	t.Helper()
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Errorf("%q: %v", data, err)
	}
	return value
}
