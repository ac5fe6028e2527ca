package halley_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/transport/transporttest"
)

func subscribe(t testing.TB, hub *halley.Hub, o halley.SubscribeOptions) *halley.Subscription {
	t.Helper()
	s, err := hub.Subscribe(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // it returns nil
	return s
}

// next returns the next events, as their data, or "gap" with its sequence.
func next(t testing.TB, s *halley.Subscription, n int) string {
	t.Helper()
	var list []string
	for range n {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		e, err := s.Next(ctx)
		cancel()
		if err != nil {
			t.Fatalf("after %q: %v", list, err)
		}
		if e.Cursor != s.Cursor() || e.Gap != (e.Message == nil) || !e.Gap && e.Cursor != e.Message.ID {
			t.Errorf("event %+v, cursor %v", e, s.Cursor())
		}
		if e.Gap {
			list = append(list, "gap"+strconv.FormatUint(e.Cursor.Seq, 10))
		} else {
			list = append(list, string(e.Message.Data))
		}
	}
	return strings.Join(list, " ")
}

// nothing checks that no event waits.
func nothing(t testing.TB, s *halley.Subscription) {
	t.Helper()
	synctest.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if e, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %+v, %v, want nothing", e, err)
	}
}

// Where a subscription from Go starts, and what it brings.
func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, halley.Options{Heartbeat: time.Second})
		ids := publish(t, hub, "a", "1", "2", "3")
		publish(t, hub, "b", "b1")
		both := []string{"a", "b", "*", "a"}
		foreign := halley.Cursor{Epoch: "zzz", Seq: 1}
		open := map[string]*halley.Subscription{}
		for _, c := range []struct {
			name string
			o    halley.SubscribeOptions
			want string // events
		}{
			{"now", halley.SubscribeOptions{Channels: both}, ""},
			{"earliest", halley.SubscribeOptions{Channels: both, Earliest: true}, "1 2 3 b1"},
			{"earliest, a cursor aside", halley.SubscribeOptions{Channels: both, Earliest: true, Cursor: foreign}, "1 2 3 b1"},
			{"a cursor", halley.SubscribeOptions{Channels: both, Cursor: ids[1]}, "3 b1"},
			{"sequence 0", halley.SubscribeOptions{Channels: both, Cursor: halley.Cursor{Epoch: ids[0].Epoch}}, "1 2 3 b1"},
			{"the end", halley.SubscribeOptions{Channels: both, Cursor: hub.End()}, ""},
			{"another epoch", halley.SubscribeOptions{Channels: both, Cursor: foreign}, "gap0 1 2 3 b1"},
			{"beyond the end", halley.SubscribeOptions{Channels: both, Cursor: halley.Cursor{Epoch: ids[0].Epoch, Seq: 99}}, "gap0 1 2 3 b1"},
			{"other starts", halley.SubscribeOptions{Channels: []string{"a", "b"}, Earliest: true, From: map[string]halley.Cursor{"a": ids[1]}}, "3 b1"},
			{"an earlier start", halley.SubscribeOptions{Channels: []string{"a", "b"}, Cursor: ids[1], From: map[string]halley.Cursor{"a": ids[0]}}, "3 b1"},
			{"a start of another epoch", halley.SubscribeOptions{Channels: []string{"a", "b"}, Earliest: true, From: map[string]halley.Cursor{"a": foreign}}, "1 2 3 b1"},
		} {
			s := subscribe(t, hub, c.o)
			if got := next(t, s, len(strings.Fields(c.want))); got != c.want {
				t.Errorf("%s: got %q, want %q", c.name, got, c.want)
			}
			nothing(t, s)
			open[c.name] = s
		}
		live := publish(t, hub, "a", "live")[0]
		for name, s := range open {
			if got := next(t, s, 1); got != "live" || s.Cursor() != live {
				t.Errorf("%s: then got %q at %v", name, got, s.Cursor())
			}
			nothing(t, s)
		}
		if n := hub.Connections(); n != len(open) {
			t.Errorf("%d connections of %d subscriptions", n, len(open))
		}
		for _, s := range open {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if n := hub.Connections(); n != 0 {
			t.Errorf("%d connections when all are closed", n)
		}
	})
}

// A subscription that starts in the midst of publishing has no hole and no
// double where the past meets the present.
func TestSubscribeWhilePublishing(t *testing.T) {
	// Nothing is to be removed before it is read.
	log, err := memory.New(memory.Options{Retention: engine.Retention{Count: 1 << 30}, Limit: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	hub := newHubOn(t, log, halley.Options{})
	defer hub.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for ctx.Err() == nil {
			publish(t, hub, "a", "x")
		}
	})
	defer publisher.Wait()
	defer cancel()
	for range 100 {
		start := hub.End()
		s := subscribe(t, hub, halley.SubscribeOptions{Channels: []string{"a", "*"}, Cursor: start})
		for i := range uint64(100) {
			e, err := s.Next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if e.Gap || e.Message.ID.Seq != start.Seq+i+1 {
				t.Fatalf("event %d after %v is %+v", i, start, e)
			}
		}
		_ = s.Close() // it returns nil
	}
}

// What Subscribe refuses.
func TestSubscribeErrors(t *testing.T) {
	hub := newHub(t, halley.Options{})
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range []struct {
		ctx  context.Context
		o    halley.SubscribeOptions
		want error
	}{
		{context.Background(), halley.SubscribeOptions{}, halley.ErrInvalid},
		{context.Background(), halley.SubscribeOptions{Channels: []string{"a", ""}}, halley.ErrInvalid},
		{context.Background(), halley.SubscribeOptions{Channels: []string{"a*"}}, halley.ErrInvalid},
		{context.Background(), halley.SubscribeOptions{Channels: []string{"meta/a"}}, halley.ErrInvalid},
		{context.Background(), halley.SubscribeOptions{Channels: []string{"a"}, From: map[string]halley.Cursor{"b": {}}}, halley.ErrInvalid},
		{canceled, halley.SubscribeOptions{Channels: []string{"a"}}, context.Canceled},
	} {
		if s, err := hub.Subscribe(c.ctx, c.o); !errors.Is(err, c.want) {
			if err == nil {
				_ = s.Close() // it returns nil
			}
			t.Errorf("%+v: got %v, want %v", c.o, err, c.want)
		}
	}
}

// A context ends Next, which can be called again; Close ends it for good.
func TestSubscriptionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, halley.Options{})
		s := subscribe(t, hub, halley.SubscribeOptions{Channels: []string{"a"}})
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		if _, err := s.Next(ctx); err != context.Canceled {
			t.Errorf("Next: %v", err)
		}
		publish(t, hub, "a", "1")
		if got := next(t, s, 1); got != "1" {
			t.Errorf("got %q", got)
		}
		time.AfterFunc(time.Second, func() { _ = s.Close() }) // it returns nil
		for range 2 {
			if _, err := s.Next(context.Background()); err != halley.ErrClosed {
				t.Errorf("after Close: %v", err)
			}
		}
	})
}

// Events ends with its context silently, with the loop, or with an error.
func TestSubscriptionEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, halley.Options{})
		s := subscribe(t, hub, halley.SubscribeOptions{Channels: []string{"a"}})
		publish(t, hub, "a", "1", "2", "3")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var got []string
		for e, err := range s.Events(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, string(e.Message.Data)); len(got) == 2 {
				break
			}
		}
		time.AfterFunc(time.Second, cancel)
		for e, err := range s.Events(ctx) {
			if err != nil {
				t.Fatalf("the end of the context: %v", err)
			}
			got = append(got, string(e.Message.Data))
		}
		if list := strings.Join(got, " "); list != "1 2 3" {
			t.Errorf("got %q", list)
		}
		time.AfterFunc(time.Second, func() { _ = hub.Close() }) // it returns nil
		var last error
		for e, err := range s.Events(context.Background()) {
			if last = err; err == nil {
				t.Errorf("got %+v", e)
			}
		}
		if last != halley.ErrClosed {
			t.Errorf("the last error: %v", last)
		}
	})
}

// A reader that is overtaken by retention is told, and goes on.
func TestSubscriptionGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, err := memory.New(memory.Options{Retention: engine.Retention{Count: 2}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = log.Close() }) // it returns nil
		hub := newHubOn(t, log, halley.Options{})
		first := publish(t, hub, "a", "1", "2", "3", "4")[0]
		s := subscribe(t, hub, halley.SubscribeOptions{Channels: []string{"a"}, Cursor: first})
		if got := next(t, s, 3); got != "gap2 3 4" {
			t.Errorf("got %q", got)
		}
		// While it does not read, much more is published than is kept.
		for i := range 9000 {
			publish(t, hub, "a", "x"+strconv.Itoa(i))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		last := ""
		gaps := 0
		for last != "x8999" {
			e, err := s.Next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if e.Gap {
				gaps++
				continue
			}
			last = string(e.Message.Data)
		}
		if gaps == 0 {
			t.Error("no gap was told")
		}
		nothing(t, s)
	})
}

// A program and its HTTP clients see one log in one order, whoever publishes.
func TestOneOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, halley.Options{})
		srv := transporttest.Serve(t, &http.Server{Handler: hub}, transporttest.HTTP1)
		s := subscribe(t, hub, halley.SubscribeOptions{Channels: []string{"a", "b/**"}})
		resp, err := srv.Client.Get(srv.URL + "/comet/subscribe?transport=sse&channel=a&channel=b/**")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		ws := dialWebSocket(t, srv, "channel=a&channel=b/**")
		ws.want("open")
		synctest.Wait()

		const n = 60
		var wg sync.WaitGroup
		wg.Go(func() {
			for range n {
				publish(t, hub, "a", "go")
			}
		})
		wg.Go(func() {
			for i := range n {
				w := call(hub, "POST", "/comet/publish?channel=b/"+strconv.Itoa(i%3), "http", "Content-Type: text/plain")
				if w.Code != 200 {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			}
		})
		wg.Go(func() {
			for range n {
				ws.send(`{"publish":{"channel":"a","data":"ws"}}`)
			}
		})
		wg.Wait()
		synctest.Wait()
		want := all(t, hub)
		if len(want) != 3*n {
			t.Fatalf("%d messages are stored, want %d", len(want), 3*n)
		}
		var stream strings.Builder
		for _, m := range want {
			e, err := s.Next(context.Background())
			if err != nil || e.Message == nil || e.Message.ID != m.ID || string(e.Message.Data) != string(m.Data) {
				t.Fatalf("got %+v, %v, want %+v", e, err, m)
			}
			if f := ws.next(); f.ID != m.ID.String() || f.Channel != m.Channel {
				t.Fatalf("over websocket got %+v, want %+v", f, m)
			}
			stream.WriteString("data: " + string(m.Data) + "\nid: " + m.ID.String() + "\n\n")
		}
		nothing(t, s)
		buf, got := make([]byte, 4096), ""
		for len(got) < stream.Len() {
			k, err := resp.Body.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got += string(buf[:k])
			if _, after, ok := strings.Cut(got, "event: comet:open\n"); ok {
				_, got, _ = strings.Cut(after, "\n\n")
			}
		}
		if got != stream.String() {
			t.Errorf("over sse got %q, want %q", got, &stream)
		}
	})
}
