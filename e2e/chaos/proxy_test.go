package chaos_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/halley-comet/halley/e2e/chaos"
)

// origin answers with a length, in chunks, with nothing, and with an echo over
// a WebSocket; stream goes on until its client is gone.
func origin(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/length", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "as long as it says") })
	mux.HandleFunc("/nothing", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	mux.HandleFunc("/chunks", func(w http.ResponseWriter, r *http.Request) {
		for i := range 1000 {
			fmt.Fprintf(w, "line %d\n", i)
			if i%100 == 0 {
				w.(http.Flusher).Flush()
			}
		}
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for i := 0; r.Context().Err() == nil; i++ {
			fmt.Fprintf(w, "line %d\n", i)
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
	})
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			text, err := wsutil.ReadClientText(conn)
			if err != nil || wsutil.WriteServerText(conn, text) != nil {
				return
			}
		}
	})
	s := httptest.NewUnstartedServer(mux)
	s.Config.ErrorLog = nil
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func start(t *testing.T, hosts int) *chaos.Proxy {
	t.Helper()
	p, err := chaos.Start(origin(t), hosts, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// client is one with connections of its own.
func client(t *testing.T) *http.Client {
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(t *testing.T, c *http.Client, url string) (*http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Do(request)
}

// check fails unless everything passes as it should.
func check(t *testing.T, p *chaos.Proxy) {
	t.Helper()
	c := client(t)
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, "line %d\n", i)
	}
	for range 2 { // the second time on the first one's connection
		for path, want := range map[string]string{"/length": "as long as it says", "/nothing": "", "/chunks": lines.String()} {
			response, err := get(t, c, "http://"+p.Host(0)+path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(response.Body)
			response.Body.Close()
			if string(got) != want || err != nil {
				t.Errorf("%s: %.60q, %v, want %.60q", path, got, err, want)
			}
		}
		for _, body := range []io.Reader{strings.NewReader("with a length"), io.MultiReader(strings.NewReader("in "), strings.NewReader("chunks"))} {
			response, err := c.Post("http://"+p.Host(0)+"/echo", "text/plain", body)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(response.Body)
			response.Body.Close()
			if len(got) < 9 || err != nil {
				t.Errorf("/echo: %q, %v", got, err)
			}
		}
	}
	conn, err := socket(t, p)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, text := range []string{"one", "two"} {
		if err := wsutil.WriteClientText(conn, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := wsutil.ReadServerText(conn); string(got) != text || err != nil {
			t.Errorf("echo %q, %v, want %q", got, err, text)
		}
	}
	if pending := p.Pending("/socket"); len(pending) != 1 {
		t.Errorf("pending %q, want the WebSocket", pending)
	}
}

func socket(t *testing.T, p *chaos.Proxy) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, _, _, err := ws.Dial(ctx, "ws://"+p.Host(0)+"/socket")
	return conn, err
}

func TestPass(t *testing.T) {
	p := start(t, 3)
	check(t, p)
	for i := range 4 {
		response, err := get(t, client(t), "http://"+p.Host(i)+"/length")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	if p.Host(3) != p.Host(0) || p.Host(1) == p.Host(0) {
		t.Errorf("hosts %s, %s, %s, %s, want three", p.Host(0), p.Host(1), p.Host(2), p.Host(3))
	}
}

// Every fault happens, is over when it is switched off, and is on record.
func TestFaults(t *testing.T) {
	for _, kind := range chaos.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			p := start(t, 1)
			before := time.Now()
			end := p.Begin(kind)
			faults[kind](t, p)
			end()
			end()
			check(t, p)
			w := p.Windows()
			if len(w) != 1 || w[0].Kind != kind || w[0].Begin.Before(before) || w[0].End.Before(w[0].Begin) || time.Now().Before(w[0].End) {
				t.Errorf("windows %v, want this one", w)
			}
		})
	}
}

var faults = map[chaos.Kind]func(t *testing.T, p *chaos.Proxy){
	// Where the bytes end differs, and so does how.
	chaos.Cut: func(t *testing.T, p *chaos.Proxy) {
		lengths, errs := make(map[int]bool), make(map[bool]bool)
		for range 30 {
			got, err := raw(t, p, "/stream", 10*time.Second)
			lengths[len(got)] = true
			errs[errors.Is(err, syscall.ECONNRESET)] = true
			if errors.Is(err, context.DeadlineExceeded) || len(got) > 4096 {
				t.Errorf("%d bytes, %v, want a cut", len(got), err)
			}
		}
		if len(lengths) < 15 || len(errs) != 2 {
			t.Errorf("cut after %v bytes, by a reset and not: %v", lengths, errs)
		}
	},
	chaos.Delay: func(t *testing.T, p *chaos.Proxy) {
		began := time.Now()
		response, err := get(t, client(t), "http://"+p.Host(0)+"/length")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if took := time.Since(began); took < 100*time.Millisecond {
			t.Errorf("an answer after %v", took)
		}
	},
	chaos.Stall: func(t *testing.T, p *chaos.Proxy) {
		got, err := raw(t, p, "/stream", 2*time.Second)
		if len(got) > 4096 || !errors.Is(err, errQuiet) {
			t.Errorf("%d bytes and %v, want silence", len(got), err)
		}
	},
	// What ends passes, what is large passes in part.
	chaos.Hold: func(t *testing.T, p *chaos.Proxy) {
		response, err := get(t, client(t), "http://"+p.Host(0)+"/length")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		got, err := raw(t, p, "/stream", time.Second)
		if len(got) > 400 || !errors.Is(err, errQuiet) {
			t.Errorf("%d bytes and %v, want no more than a head", len(got), err)
		}
		got, _ = raw(t, p, "/stream", 20*time.Second)
		if len(got) < 64<<10 {
			t.Errorf("%d bytes, want 64 KiB", len(got))
		}
	},
	chaos.NoWebSocket: func(t *testing.T, p *chaos.Proxy) {
		conn, err := socket(t, p)
		if err == nil {
			conn.Close()
			t.Error("a WebSocket opened")
		}
		response, err := get(t, client(t), "http://"+p.Host(0)+"/length")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	},
	chaos.BadGateway: func(t *testing.T, p *chaos.Proxy) {
		c := client(t)
		for range 2 {
			response, err := c.Post("http://"+p.Host(0)+"/echo", "text/plain", strings.NewReader("lost"))
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusBadGateway {
				t.Errorf("status %s, want 502", response.Status)
			}
		}
	},
	chaos.Strip: func(t *testing.T, p *chaos.Proxy) {
		conn, err := socket(t, p)
		if err == nil {
			conn.Close()
			t.Error("a WebSocket opened")
		}
	},
	chaos.Refuse: func(t *testing.T, p *chaos.Proxy) {
		_, err := get(t, client(t), "http://"+p.Host(0)+"/length")
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v, want a refused connection", err)
		}
	},
}

var errQuiet = errors.New("nothing came for too long")

// raw reads the bytes of a response until it ends, nothing comes for 300 ms or
// the limit is over.
func raw(t *testing.T, p *chaos.Proxy, path string, limit time.Duration) ([]byte, error) {
	t.Helper()
	conn, err := net.Dial("tcp", p.Host(0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, p.Host(0))
	var got bytes.Buffer
	piece := make([]byte, 4096)
	for deadline, quiet := time.Now().Add(limit), limit; time.Now().Before(deadline); {
		conn.SetReadDeadline(time.Now().Add(min(quiet, time.Until(deadline)+time.Millisecond)))
		n, err := conn.Read(piece)
		got.Write(piece[:n])
		var late net.Error
		switch {
		case errors.As(err, &late) && late.Timeout():
			return got.Bytes(), errQuiet
		case err != nil:
			return got.Bytes(), err
		}
		if got.Len() >= 64<<10 {
			return got.Bytes(), nil
		}
	}
	return got.Bytes(), errQuiet
}

// A fault meets the connections that are there.
func TestFaultOnStreams(t *testing.T) {
	for _, kind := range chaos.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			p := start(t, 1)
			path := "/stream"
			if kind == chaos.NoWebSocket || kind == chaos.Strip {
				conn, err := socket(t, p)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				defer p.Begin(kind)()
				conn.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := conn.Read(make([]byte, 1)); errors.As(err, new(net.Error)) && err.(net.Error).Timeout() || err == nil {
					t.Errorf("reading: %v, want the end", err)
				}
				return
			}
			response, err := get(t, client(t), "http://"+p.Host(0)+path)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			lines := bufio.NewReader(response.Body)
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			if pending := p.Pending("/stream"); len(pending) != 1 || pending[0] != "GET /stream HTTP/1.1" {
				t.Errorf("pending %q, want the stream", pending)
			}
			end := p.Begin(kind)
			defer end()
			ended := make(chan error, 1)
			arrived := make(chan time.Time, 1<<20)
			go func() {
				for {
					if _, err := lines.ReadString('\n'); err != nil {
						ended <- err
						return
					}
					arrived <- time.Now()
				}
			}()
			switch kind {
			case chaos.Cut, chaos.BadGateway, chaos.Refuse:
				select {
				case <-ended:
				case <-time.After(10 * time.Second):
					t.Error("the stream goes on")
				}
			case chaos.Stall, chaos.Hold:
				quiet(t, arrived, ended, 300*time.Millisecond)
			case chaos.Delay:
				quiet(t, arrived, ended, 50*time.Millisecond)
			}
		})
	}
}

// quiet waits for a time without lines.
func quiet(t *testing.T, arrived <-chan time.Time, ended <-chan error, pause time.Duration) {
	t.Helper()
	for deadline := time.After(10 * time.Second); ; {
		select {
		case <-arrived:
		case err := <-ended:
			t.Fatalf("the stream ended: %v", err)
		case <-deadline:
			t.Fatal("lines without a pause")
		case <-time.After(pause):
			return
		}
	}
}

func TestSilence(t *testing.T) {
	p := start(t, 1)
	response, err := get(t, client(t), "http://"+p.Host(0)+"/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	p.Silence("/stream")
	check(t, p)
	if pending := p.Pending("/stream"); len(pending) != 1 {
		t.Errorf("pending %q, want the silent stream", pending)
	}
}

func TestBreak(t *testing.T) {
	p := start(t, 1)
	response, err := get(t, client(t), "http://"+p.Host(0)+"/stream?of=lines")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	conn, err := socket(t, p)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.Break("of=lines")
	if _, err := io.Copy(io.Discard, response.Body); err == nil {
		t.Error("the stream ended well, want a cut")
	}
	if pending := p.Pending(""); len(pending) != 1 || !strings.Contains(pending[0], "/socket") {
		t.Errorf("pending %q, want the WebSocket alone", pending)
	}
	if heads := p.Requests("of=lines"); len(heads) != 1 || !strings.Contains(heads[0], "\r\nHost: "+p.Host(0)) {
		t.Errorf("heads %q, want the stream's", heads)
	}
}

func TestSchedule(t *testing.T) {
	steps := chaos.Schedule(7, 3, time.Second, 2*time.Second, time.Minute)
	if len(steps) != 3*len(chaos.Kinds) {
		t.Fatalf("%d steps, want three of each kind", len(steps))
	}
	count := make(map[chaos.Kind]int)
	for i, s := range steps {
		count[s.Kind]++
		if s.For < time.Second || s.For > 2*time.Second || s.Recovery != time.Minute {
			t.Errorf("step %d: %v", i, s)
		}
		if again := chaos.Schedule(7, 3, time.Second, 2*time.Second, time.Minute)[i]; again != s {
			t.Errorf("step %d: %v and %v by the same seed", i, s, again)
		}
	}
	for _, kind := range chaos.Kinds {
		if count[kind] != 3 {
			t.Errorf("%s %d times, want three", kind, count[kind])
		}
	}
}
