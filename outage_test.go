package halley_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/transport/transporttest"
)

// An outage is an engine that can be made to fail at reading.
type outage struct {
	engine.Engine
	mu  sync.Mutex
	err error // guarded by mu
}

func (o *outage) set(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
}

func (o *outage) Read(ctx context.Context, q engine.Query) (engine.Page, error) {
	o.mu.Lock()
	err := o.err
	o.mu.Unlock()
	if err != nil {
		return engine.Page{}, err
	}
	return o.Engine.Read(ctx, q)
}

// streamed reads a stream until the bubble rests, and the whole of one that
// has ended.
func streamed(t *testing.T, srv *transporttest.Server, query string) func() (body string, over bool) {
	t.Helper()
	resp, err := srv.Client.Get(srv.URL + "/comet/subscribe?" + query)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		t.Fatalf("%s: status %d", query, resp.StatusCode)
	}
	var mu sync.Mutex
	var got strings.Builder
	over := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := resp.Body.Read(buf)
			mu.Lock()
			got.Write(buf[:n])
			over = err != nil
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		resp.Body.Close()
		<-done
	})
	return func() (string, bool) {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return got.String(), over
	}
}

// While the log cannot be read, streams wait for it and polls are told so;
// once it can, nothing is missing.
func TestEngineUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &outage{Engine: newLog(t)}
		hub := newHubOn(t, log, halley.Options{Heartbeat: 10 * time.Second})
		srv := transporttest.Serve(t, &http.Server{Handler: hub}, transporttest.HTTP1)
		start := publish(t, hub, "a", "1", "2")[0].String()
		live := streamed(t, srv, "channel=a&transport=xhr-streaming")
		if got, _ := live(); strings.Count(got, "\n") != 1 {
			t.Fatalf("got %q, want an open", got)
		}

		log.set(engine.ErrUnavailable)
		late := streamed(t, srv, "channel=a&transport=xhr-streaming&cursor="+start)
		began := time.Now()
		w := call(hub, "GET", "/comet/subscribe?channel=a&timeout=3&cursor="+start, "")
		if p := problemOf(t, w); p.Code != "engine-unavailable" || w.Header().Get("Retry-After") == "" {
			t.Errorf("a poll: %d %s", w.Code, w.Body)
		}
		if d := time.Since(began); d > 4*time.Second {
			t.Errorf("a poll of 3 s took %v", d)
		}
		w = call(hub, "GET", "/comet/subscribe?channel=a&timeout=0&transport=jsonp&callback=f&cursor="+start, "")
		if want := `/**/f({"control":"error","status":503,"code":"engine-unavailable",`; w.Code != 200 || !strings.HasPrefix(w.Body.String(), want) {
			t.Errorf("a poll by jsonp: %d %s", w.Code, w.Body)
		}
		publish(t, hub, "a", "3") // the tail is in memory
		if got, over := live(); over || !strings.Contains(got, `"data":"3"`) {
			t.Errorf("a live stream got %q, over is %v", got, over)
		}
		if got, over := late(); got != "" || over {
			t.Errorf("a stream from the past got %q, over is %v", got, over)
		}

		log.set(nil)
		time.Sleep(2 * time.Second) // the bubble's time
		got, over := late()
		if lines := strings.Split(got, "\n"); over || len(lines) != 4 || !strings.Contains(lines[0], `"control":"open","id":"`+start+`"`) ||
			!strings.Contains(lines[1], `"data":"2"`) || !strings.Contains(lines[2], `"data":"3"`) {
			t.Errorf("then it got %q, over is %v", got, over)
		}
	})
}

// An engine that fails for good ends streams with an error, and one that is
// closed sends them elsewhere.
func TestEngineFails(t *testing.T) {
	for _, c := range []struct {
		err     error
		sse, ws string
		poll    string
	}{
		{errors.New("secret"), "event: comet:error\ndata: {\"control\":\"error\",\"status\":500,\"code\":\"internal\",", "error internal, close 1011", `"code":"internal"`},
		{engine.ErrClosed, "event: comet:reconnect\ndata: {\"control\":\"reconnect\",\"delay\":", "reconnect, close 1001", `"code":"engine-unavailable"`},
	} {
		synctest.Test(t, func(t *testing.T) {
			log := &outage{Engine: newLog(t)}
			hub := newHubOn(t, log, halley.Options{})
			srv := transporttest.Serve(t, &http.Server{Handler: hub}, transporttest.HTTP1)
			start := publish(t, hub, "a", "1", "2")[0].String()
			log.set(c.err)
			got, over := streamed(t, srv, "channel=a&transport=sse&cursor="+start)()
			if !over || !strings.Contains(got, c.sse) || strings.Contains(got, "secret") {
				t.Errorf("%v: sse got %q, over is %v", c.err, got, over)
			}
			ws := dialWebSocket(t, srv, "channel=a&cursor="+start)
			if got := ws.next().String() + ", " + ws.next().String(); got != c.ws {
				t.Errorf("%v: websocket got %s, want %s", c.err, got, c.ws)
			}
			for _, cursor := range []string{start, "earliest", "zzz-1"} {
				w := call(hub, "GET", "/comet/subscribe?channel=a&cursor="+cursor, "")
				if !strings.Contains(w.Body.String(), c.poll) || strings.Contains(w.Body.String(), "secret") {
					t.Errorf("%v: a poll from %s got %d %s", c.err, cursor, w.Code, w.Body)
				}
			}
			s := subscribe(t, hub, halley.SubscribeOptions{Channels: []string{"a"}, Earliest: true})
			if e, err := s.Next(context.Background()); err == nil {
				t.Errorf("%v: a subscription got %+v", c.err, e)
			}
		})
	}
}
