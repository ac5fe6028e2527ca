package bayeux

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine/memory"
)

// A connect that is held is answered before it knows of a channel that was
// subscribed to meanwhile, and of another that was unsubscribed. The first has its
// messages in the log's order all the same, and nothing comes of the other.
func TestAlteredLate(t *testing.T) {
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := halley.New(log, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		hub.Close()
		_ = log.Close()
	})
	h, err := New(hub, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	send := func(body string) string {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/bayeux", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(w, r)
		return w.Body.String()
	}
	publish := func(channel string) (*halley.Message, []byte) {
		m := halley.Message{Channel: channel, ContentType: jsonType, Data: []byte(`"of ` + channel + `"`)}
		ids, err := hub.Publish(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		m.ID = ids[0]
		return &m, framing{}.append(nil, &m)
	}
	_, id, _ := strings.Cut(send(`{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}`), `"clientId":"`)
	id, _, _ = strings.Cut(id, `"`)
	s := h.Session(id)
	if s == nil {
		t.Fatal("there is no session")
	}
	do := func(what, channel string) {
		if a := send(`{"channel":"/meta/` + what + `","clientId":"` + id + `","subscription":"` + channel + `"}`); !strings.Contains(a, `"successful":true`) {
			t.Fatal(a)
		}
	}
	do("subscribe", "/a")
	do("subscribe", "/gone")
	request := httptest.NewRequest("POST", "/bayeux", nil)
	held := func() *connect {
		c := &connect{m: &message{channel: "/meta/connect", timeout: -1}}
		if err := s.begin(request, c, time.Minute, replyType); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := held()
	do("unsubscribe", "/gone")
	gone, goneText := publish("gone")
	before, beforeText := publish("a")
	publish("b")
	do("subscribe", "/b")
	end := hub.End()
	publish("b")
	after, afterText := publish("a")
	// The pump had come to all of them before it was told.
	text := string(c.answer(halley.PollAnswer{
		Messages: [][]byte{goneText, beforeText, afterText}, Of: []*halley.Message{gone, before, after}, Position: after.ID,
	}))
	if n := strings.Count(text, "of a"); n != 1 {
		t.Errorf("the first answer has %d messages of a, want what came before the subscription: %s", n, text)
	}
	if strings.Contains(text, "of gone") {
		t.Errorf("the first answer has what was unsubscribed: %s", text)
	}
	p := held().poll
	for i, name := range p.Channels {
		if p.From[i] != end {
			t.Errorf("%s goes on after %v, want %v", name, p.From[i], end)
		}
	}
	if !slices.Equal(p.Channels, []string{"a", "b"}) {
		t.Errorf("the second connect waits for %q", p.Channels)
	}
}
