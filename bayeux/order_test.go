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

// A channel that is subscribed to while a connect is held, which is answered
// before it knows of the channel, has its messages in the log's order all the
// same.
func TestSubscribedLate(t *testing.T) {
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
	subscribe := func(channel string) {
		if a := send(`{"channel":"/meta/subscribe","clientId":"` + id + `","subscription":"` + channel + `"}`); !strings.Contains(a, `"successful":true`) {
			t.Fatal(a)
		}
	}
	subscribe("/a")
	request := httptest.NewRequest("POST", "/bayeux", nil)
	held := func() *connect {
		c := &connect{m: &message{channel: "/meta/connect", timeout: -1}}
		if err := s.begin(request, c, time.Minute, replyType); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := held()
	before, beforeText := publish("a")
	subscribe("/b")
	publish("b")
	after, afterText := publish("a")
	// The pump had come to the messages of a before it was told of b.
	text := string(c.answer(halley.PollAnswer{
		Messages: [][]byte{beforeText, afterText}, Of: []*halley.Message{before, after}, Position: after.ID,
	}))
	if n := strings.Count(text, "of a"); n != 1 {
		t.Errorf("the first answer has %d messages of a, want what came before the subscription: %s", n, text)
	}
	p := held().poll
	for i, name := range p.Channels {
		if p.From[i] != before.ID {
			t.Errorf("%s goes on after %v, want %v", name, p.From[i], before.ID)
		}
	}
	if !slices.Equal(p.Channels, []string{"a", "b"}) {
		t.Errorf("the second connect waits for %q", p.Channels)
	}
}
