package doctor

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine/memory"
)

// serve starts a server, and what stands in its way if that is not nil, and
// returns the mount as clients reach it.
func serve(t *testing.T, proxy func(target *url.URL) http.Handler) string {
	t.Helper()
	return serveBeating(t, 300*time.Millisecond, proxy)
}

// quiet is a heartbeat that does not fill buffers while they are measured.
const quiet = 25 * time.Second

func serveBeating(t *testing.T, heartbeat time.Duration, proxy func(target *url.URL) http.Handler) string {
	t.Helper()
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := halley.New(log, &halley.Options{Heartbeat: heartbeat, Path: "/comet"})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(hub)
	t.Cleanup(func() {
		hub.Close()
		server.Close()
		log.Close()
	})
	if proxy == nil {
		return server.URL + "/comet"
	}
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(proxy(target))
	t.Cleanup(front.Close)
	return front.URL + "/comet"
}

// look runs the doctor. For what is held back there is less time, since all of
// it has to go by.
func look(t *testing.T, mount string, o Options) *Report {
	t.Helper()
	if o.Wait == 0 {
		o.Wait = 5 * time.Second
	}
	if o.Patience == 0 {
		o.Patience = time.Second
	}
	r, err := Run(t.Context(), mount, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			var b strings.Builder
			r.Print(&b)
			t.Log(b.String())
		}
	})
	return r
}

func (r *Report) of(transport string) *Result {
	for i := range r.Transports {
		if r.Transports[i].Transport == transport {
			return &r.Transports[i]
		}
	}
	return &Result{}
}

// wantVerdicts compares verdicts, as "websocket:refused sse:held"; transports
// that are not named work.
func wantVerdicts(t *testing.T, r *Report, exceptions string, exit int) {
	t.Helper()
	want := map[string]Verdict{}
	for e := range strings.FieldsSeq(exceptions) {
		name, verdict, _ := strings.Cut(e, ":")
		want[name] = Verdict(verdict)
	}
	if len(r.Transports) != len(Transports) {
		t.Errorf("got %d transports, want %d", len(r.Transports), len(Transports))
	}
	for _, x := range r.Transports {
		w := want[x.Transport]
		if w == "" {
			w = Works
		}
		if x.Verdict != w {
			t.Errorf("%s: got %s (%s), want %s", x.Transport, x.Verdict, x.Detail, w)
		}
	}
	if r.Exit() != exit {
		t.Errorf("got exit status %d, want %d", r.Exit(), exit)
	}
}

func wantAdvice(t *testing.T, r *Report, want string) {
	t.Helper()
	if !strings.Contains(strings.Join(r.Advice, "\n"), want) {
		t.Errorf("got advice %q, want %q in it", r.Advice, want)
	}
}

const allHeld = "websocket:refused xhr-streaming:held sse:held iframe:held multipart:held"

func TestDirect(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, nil), Options{Origin: "http://localhost:3000"})
	wantVerdicts(t, r, "", 0)
	if r.Server.Via != "" || r.Server.HTTP != "HTTP/1.1" || r.Publish != "works" || r.Server.Origin != "may read the answers" || len(r.Advice) > 0 {
		t.Errorf("got %+v", r)
	}
	for _, x := range r.Transports {
		if x.Received != messages || x.Messages != messages || x.Latency <= 0 || x.Worst < x.Latency || len(x.Lost) > 0 || x.Cut != "" {
			t.Errorf("got %+v", x)
		}
		if polls(x.Transport) {
			continue
		}
		if x.Open <= 0 || !strings.HasPrefix(x.Heartbeat, "after ") {
			t.Errorf("%s: got open %v, heartbeat %q", x.Transport, x.Open, x.Heartbeat)
		}
	}
	for _, name := range []string{"websocket", "iframe", "long-polling", "jsonp"} {
		if end := r.of(name).End; !strings.HasPrefix(end, "seen") {
			t.Errorf("%s: got end %q", name, end)
		}
	}
}

// pass is a proxy that does nothing but pass on, by the name of wire.
func pass(target *url.URL) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("Via", "1.1 wire")
			return nil
		},
	}
}

func TestPassing(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, func(u *url.URL) http.Handler { return pass(u) }), Options{})
	wantVerdicts(t, r, "", 0)
	if r.Server.Via != "1.1 wire" || r.of("sse").Via != "1.1 wire" || len(r.Advice) > 0 {
		t.Errorf("got %+v", r)
	}
}

func TestStrippedUpgrade(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, func(u *url.URL) http.Handler {
		p := pass(u)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Upgrade")
			r.Header.Del("Connection")
			p.ServeHTTP(w, r)
		})
	}), Options{})
	wantVerdicts(t, r, "websocket:refused", 0)
	if x := r.of("websocket"); x.Status != 426 || !strings.Contains(x.Detail, "Upgrade was taken out of the request") {
		t.Errorf("got %+v", x)
	}
	wantAdvice(t, r, "WebSockets do not get through: have what stands between pass Upgrade")
}

func TestRefusedUpgrade(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, func(u *url.URL) http.Handler {
		p := pass(u)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				w.Header().Set("Server", "nginx/1.2")
				http.Error(w, "no", http.StatusForbidden)
				return
			}
			p.ServeHTTP(w, r)
		})
	}), Options{})
	wantVerdicts(t, r, "websocket:refused", 0)
	if x := r.of("websocket"); x.Detail != "nginx/1.2 answers 403 Forbidden" {
		t.Errorf("got %+v", x)
	}
	wantAdvice(t, r, "nginx: `proxy_http_version 1.1;")
}

// relay is a proxy by hand. Copy passes the body on, and Flush what was
// written.
func relay(target *url.URL, copy func(w io.Writer, flush func(), body io.Reader)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = target.Scheme, target.Host, ""
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
		resp, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for name, values := range resp.Header {
			w.Header()[name] = values
		}
		w.Header().Del("X-Accel-Buffering")
		w.Header().Del("Content-Length")
		w.Header().Set("Server", "nginx/1.2")
		w.WriteHeader(resp.StatusCode)
		copy(w, func() { _ = http.NewResponseController(w).Flush() }, resp.Body)
	})
}

func TestBuffering4KiB(t *testing.T) {
	t.Parallel()
	const size = 4096
	r := look(t, serveBeating(t, quiet, func(u *url.URL) http.Handler {
		return relay(u, func(w io.Writer, flush func(), body io.Reader) {
			buf := make([]byte, size)
			for {
				n, err := io.ReadFull(body, buf)
				_, _ = w.Write(buf[:n])
				flush()
				if err != nil {
					return
				}
			}
		})
	}), Options{Wait: 2 * time.Second, Patience: -1})
	wantVerdicts(t, r, allHeld, 1)
	for _, name := range []string{"xhr-streaming", "sse", "iframe", "multipart"} {
		x := r.of(name)
		if b := x.Buffer; b == nil || b.Freed || b.Bytes < size-200 || b.Bytes > size+size/8 {
			t.Errorf("%s: got buffer %+v, want one of %d bytes", name, b, size)
		}
		if len(x.Lost) != 1 || x.Lost[0] != "X-Accel-Buffering" {
			t.Errorf("%s: got lost headers %q", name, x.Lost)
		}
	}
	wantAdvice(t, r, "Streams are held back on the way: nginx: `proxy_buffering off;`")
}

func TestHoldingTheBeginning(t *testing.T) {
	t.Parallel()
	const size = 1500
	r := look(t, serveBeating(t, quiet, func(u *url.URL) http.Handler {
		return relay(u, func(w io.Writer, flush func(), body io.Reader) {
			beginning := make([]byte, size)
			n, err := io.ReadFull(body, beginning)
			_, _ = w.Write(beginning[:n])
			flush()
			for buf := make([]byte, 4096); err == nil; {
				n, err = body.Read(buf)
				_, _ = w.Write(buf[:n])
				flush()
			}
		})
	}), Options{Wait: 2 * time.Second, Patience: -1})
	// A forever frame begins with more than that.
	wantVerdicts(t, r, "websocket:refused xhr-streaming:held sse:held multipart:held", 0)
	for _, name := range []string{"xhr-streaming", "sse", "multipart"} {
		if b := r.of(name).Buffer; b == nil || !b.Freed || b.Bytes < size-200 || b.Bytes > size+size/8 {
			t.Errorf("%s: got buffer %+v, want %d bytes at the beginning", name, b, size)
		}
	}
	wantAdvice(t, r, "or have clients ask for padding=")
}

func TestHoldingEverything(t *testing.T) {
	t.Parallel()
	r := look(t, serveBeating(t, quiet, func(u *url.URL) http.Handler {
		return relay(u, func(w io.Writer, _ func(), body io.Reader) {
			all, err := io.ReadAll(body)
			if err == nil {
				_, _ = w.Write(all)
			}
		})
	}), Options{Wait: 2 * time.Second, Patience: -1})
	wantVerdicts(t, r, allHeld, 1)
	if x := r.of("sse"); x.Buffer == nil || x.Buffer.Bytes != 0 || x.Received != 0 || !strings.Contains(x.Detail, "not even of 65536 bytes") {
		t.Errorf("got %+v", x)
	}
}

// What is passed on now and then comes late and together.
func TestBursts(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, func(u *url.URL) http.Handler {
		return relay(u, func(w io.Writer, flush func(), body io.Reader) {
			var mu sync.Mutex
			b := bufio.NewWriterSize(w, 1<<20)
			done := make(chan struct{})
			defer close(done)
			go func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(1500 * time.Millisecond):
					}
					mu.Lock()
					_ = b.Flush()
					flush()
					mu.Unlock()
				}
			}()
			buf := make([]byte, 4096)
			for {
				n, err := body.Read(buf)
				mu.Lock()
				_, _ = b.Write(buf[:n])
				mu.Unlock()
				if err != nil {
					mu.Lock()
					_ = b.Flush()
					mu.Unlock()
					return
				}
			}
		})
	}), Options{Wait: 2 * time.Second, Patience: -1})
	for _, name := range []string{"xhr-streaming", "sse", "iframe", "multipart"} {
		if x := r.of(name); x.Verdict != Late || x.Received != messages || time.Duration(x.Worst) < time.Second {
			t.Errorf("%s: got %+v, want all messages, late", name, x)
		}
	}
}

func TestCompressing(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, func(u *url.URL) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				pass(u).ServeHTTP(w, r)
				return
			}
			r.Header.Del("Accept-Encoding")
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Cache-Control", "public")
			z := gzip.NewWriter(w)
			relay(u, func(_ io.Writer, flush func(), body io.Reader) {
				for buf := make([]byte, 4096); ; {
					n, err := body.Read(buf)
					_, _ = z.Write(buf[:n])
					_ = z.Flush()
					flush()
					if err != nil {
						_ = z.Close()
						return
					}
				}
			}).ServeHTTP(w, r)
		})
	}), Options{})
	wantVerdicts(t, r, "websocket:refused", 0)
	if x := r.of("sse"); x.Compressed != "gzip" {
		t.Errorf("got %+v", x)
	}
	wantAdvice(t, r, "Streams are compressed on the way (gzip)")
}

// A silence that is shorter than a heartbeat's is seen from the outside alone.
func TestCutting(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, func(u *url.URL) http.Handler {
		return relay(u, func(w io.Writer, flush func(), body io.Reader) {
			parts := make(chan []byte)
			go func() {
				defer close(parts)
				for {
					buf := make([]byte, 4096)
					n, err := body.Read(buf)
					if n > 0 {
						parts <- buf[:n]
					}
					if err != nil {
						return
					}
				}
			}()
			defer func() {
				_ = body.(io.Closer).Close()
				for range parts {
				}
			}()
			heartbeats := 0
			for part := range parts {
				if strings.Contains(string(part), heartbeat) {
					if heartbeats++; heartbeats == 3 {
						return
					}
				}
				_, _ = w.Write(part)
				flush()
			}
		})
	}), Options{Patience: 3 * time.Second})
	wantVerdicts(t, r, "websocket:refused xhr-streaming:late sse:late iframe:late multipart:late", 1)
	if x := r.of("sse"); !strings.HasPrefix(x.Cut, "after ") || !strings.HasPrefix(x.Heartbeat, "after ") {
		t.Errorf("got %+v", x)
	}
	wantAdvice(t, r, "nginx: `proxy_read_timeout`")
}

func TestNoRightToPublish(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, func(u *url.URL) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			pass(u).ServeHTTP(w, r)
		})
	}), Options{})
	wantVerdicts(t, r, "", 0)
	if !strings.HasPrefix(r.Publish, "refused on the way, 403") || r.of("sse").Messages != 0 || r.of("sse").Open == 0 {
		t.Errorf("got %+v", r)
	}
}

func TestForbiddenOrigin(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, nil), Options{Origin: "https://stranger.example"})
	for _, x := range r.Transports {
		if x.Verdict != Refused || x.code != "forbidden-origin" {
			t.Errorf("got %+v", x)
		}
	}
	if r.Exit() != 2 || r.Server.Origin != "may not read the answers" {
		t.Errorf("got %d, %+v", r.Exit(), r.Server)
	}
	wantAdvice(t, r, "add it to its origins")
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"another", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "no Halley server"},
		{"missing", http.NotFound, "404 Not Found"},
		{"down", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", "nginx")
			w.WriteHeader(http.StatusBadGateway)
		}, "502 Bad Gateway by nginx"},
		{"moved", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://push.example.com"+r.URL.Path, http.StatusMovedPermanently)
		}, "to https://push.example.com/comet: use that URL"},
		{"mute", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(tt.answer)
			defer s.Close()
			r := look(t, s.URL+"/comet", Options{})
			if !strings.Contains(r.Server.Error, tt.want) || r.Exit() != 2 || len(r.Advice) == 0 {
				t.Errorf("got %+v, want %q in it", r.Server, tt.want)
			}
		})
	}
}

func TestClockSkew(t *testing.T) {
	t.Parallel()
	r := look(t, serve(t, func(u *url.URL) http.Handler {
		p := pass(u)
		p.ModifyResponse = func(r *http.Response) error {
			r.Header.Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			return nil
		}
		return p
	}), Options{Patience: -1})
	if skew := time.Duration(r.Server.ClockSkew); skew > -59*time.Minute || skew < -61*time.Minute {
		t.Errorf("got %v", skew)
	}
	wantAdvice(t, r, "The clock of the server is")
}

func TestInvalidURL(t *testing.T) {
	for _, u := range []string{"", "localhost:8080", "ftp://x/comet", "http://", "http://%zz"} {
		if _, err := Run(context.Background(), u, Options{}); err == nil {
			t.Errorf("%q: got no error", u)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, "http://127.0.0.1:1/comet", Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMain(m *testing.M) {
	// Proxies of the environment are none of the tests'.
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		os.Unsetenv(name)
	}
	os.Exit(m.Run())
}
