package proxy

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/e2e/process"
)

const patience = 20 * time.Second

// scale is how much faster time goes here: the configurations' time-outs and
// the server's own are divided by it, but for the heartbeat, which is so short
// as a slow machine can keep.
const (
	scale     = 100
	heartbeat = time.Second
)

// halley is the command, built for this run unless HALLEY_BINARY names one.
var halley = sync.OnceValues(func() (string, error) {
	if built := os.Getenv("HALLEY_BINARY"); built != "" {
		return built, nil
	}
	dir, err := os.MkdirTemp("", "halley-proxy-")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "halley")
	build := exec.Command("go", "build", "-o", program, "github.com/halley-comet/halley/cmd/halley")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, output)
	}
	return program, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests of the transports wait more than they work.
	if err := flag.Set("test.parallel", "10"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if os.Getenv("HALLEY_E2E") != "" && os.Getenv("HALLEY_BINARY") == "" {
		if program, err := halley(); err == nil {
			_ = os.RemoveAll(filepath.Dir(program)) // it is a temporary one
		}
	}
	os.Exit(code)
}

// start starts a program until the test ends.
func start(t *testing.T, name string, args ...string) *process.Process {
	t.Helper()
	p, err := process.Start(exec.Command(name, args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s printed:\n%s", filepath.Base(name), p.Output())
		}
	})
	return p
}

func find(t *testing.T, name string) string {
	t.Helper()
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if program, err := exec.LookPath(path); err == nil {
			return program
		}
	}
	t.Fatalf("%s is missing: run script/browsers", name)
	return ""
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A proxy is one in front of a server, with a tap between.
type proxy struct {
	name    string
	address string
	tap     *tap
}

func (p *proxy) mount() string { return "http://" + p.address + "/comet" }

// each runs a test behind each proxy.
func each(t *testing.T, test func(t *testing.T, p *proxy)) {
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("runs nginx and HAProxy: set HALLEY_E2E=1")
	}
	for name, run := range map[string]func(t *testing.T, p *proxy){"nginx": nginx, "haproxy": haproxy} {
		t.Run(name, func(t *testing.T) {
			program, err := halley()
			if err != nil {
				t.Fatal(err)
			}
			server := start(t, program, "serve", "--listen", "127.0.0.1:0", "--engine", "memory", "--trusted-proxies", "127.0.0.1",
				"--heartbeat", heartbeat.String(), "--multipart-limit", (5 * time.Minute / scale).String())
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			ready, err := server.Await(ctx, regexp.MustCompile(`127\.0\.0\.1:[1-9]\d*`))
			if err != nil {
				t.Fatal(err)
			}
			p := &proxy{name: name, address: free(t), tap: newTap(t, ready[0])}
			run(t, p)
			for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
				resp, err := http.Get(p.mount() + "/info")
				if err == nil {
					resp.Body.Close()
					if resp.StatusCode == http.StatusOK {
						break
					}
				}
				if time.Now().After(end) {
					t.Fatalf("%s: %v %v", name, resp, err)
				}
			}
			test(t, p)
		})
	}
}

// configured returns one of our configurations with other addresses and with
// its time-outs scaled. Each of the changes must be one.
func configured(t *testing.T, file string, changes ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", file))
	if err != nil {
		t.Fatal(err)
	}
	config := string(b)
	for c := range slices.Chunk(changes, 2) {
		if !strings.Contains(config, c[0]) {
			t.Fatalf("%s has no %q", file, c[0])
		}
		config = strings.ReplaceAll(config, c[0], c[1])
	}
	return config
}

func nginx(t *testing.T, p *proxy) {
	config := configured(t, "nginx/halley.conf", "127.0.0.1:8080", p.tap.address, "listen 80", "listen "+p.address,
		"read_timeout 10m", fmt.Sprintf("read_timeout %ds", int((10*time.Minute/scale).Seconds())),
		"send_timeout 1m", fmt.Sprintf("send_timeout %dms", (time.Minute/scale).Milliseconds()))
	dir := t.TempDir()
	main := fmt.Sprintf(`daemon off; user root; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 512; }
http {
	access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
%[2]s}
`, dir, config)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(main), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, find(t, "nginx"), "-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", file)
}

func haproxy(t *testing.T, p *proxy) {
	config := configured(t, "haproxy/halley.cfg", "127.0.0.1:8080", p.tap.address, "bind :80", "bind "+p.address,
		"client 10m", fmt.Sprintf("client %dms", (10*time.Minute/scale).Milliseconds()),
		"server 10m", fmt.Sprintf("server %dms", (10*time.Minute/scale).Milliseconds()),
		"tunnel 10m", fmt.Sprintf("tunnel %dms", (10*time.Minute/scale).Milliseconds()))
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, find(t, "haproxy"), "-db", "-f", file)
}

// Each transport delivers within a second. It lasts longer than the proxy lets
// a connection be silent, since heartbeats pass.
func TestTransports(t *testing.T) {
	each(t, func(t *testing.T, p *proxy) {
		client := &comet.Client{URL: p.mount()}
		info, err := client.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, transport := range comet.Transports {
			t.Run(string(transport), func(t *testing.T) {
				t.Parallel()
				channel := "to/" + string(transport)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				open, got, heartbeats := 0, make(chan string), make(chan struct{}, 1000)
				go func() {
					o := comet.Options{Channels: []string{channel}, Transport: transport, Cursor: info.Cursor, Hold: 2 * time.Second,
						Retrying: func(err error, _ time.Duration) { t.Errorf("the connection was lost: %v", err) }}
					for e, err := range client.Subscribe(ctx, o) {
						switch {
						case err != nil:
							return
						case e.Control == comet.Open:
							open++
						case e.Control == comet.Heartbeat:
							heartbeats <- struct{}{}
						case e.Control == "":
							got <- e.Message.Text()
						}
					}
				}()
				fastest := patience // a slow machine may take longer for some, a proxy that holds back for all
				deliver := func(text string) {
					t.Helper()
					began := time.Now()
					if _, err := client.Publish(ctx, comet.Publication{Channel: channel, ContentType: "text/plain", Data: []byte(text)}); err != nil {
						t.Fatal(err)
					}
					select {
					case g := <-got:
						if fastest = min(fastest, time.Since(began)); g != text {
							t.Errorf("got %q, want %q", g, text)
						}
					case <-ctx.Done():
						t.Fatalf("%q did not come", text)
					}
				}
				for i := range 5 {
					deliver(fmt.Sprint("message ", i))
				}
				if fastest > time.Second {
					t.Errorf("no message came within a second, the first one after %v", fastest)
				}
				silence := 10*time.Minute/scale + time.Second // nothing is published meanwhile
				time.Sleep(silence)
				deliver("after a long time")
				polls := transport == comet.LongPolling || transport == comet.JSONP
				if n := len(heartbeats); !polls && n < int(silence/heartbeat)/2 {
					t.Errorf("%d heartbeats in %v", n, silence)
				}
				if !polls && open != 1 {
					t.Errorf("it was opened %d times", open)
				}
			})
		}
		// A raw multipart stream is silent until the server ends it.
		t.Run("raw multipart", func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			resp, err := http.Get(p.mount() + "/subscribe?channel=nothing&transport=multipart&padding=1")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b := make([]byte, 64)
			n := 0
			for err == nil && n < len(b) {
				var m int
				m, err = resp.Body.Read(b[n:])
				n += m
			}
			if d := time.Since(began); !strings.HasSuffix(string(b[:n]), "--\r\n") || d < 5*time.Minute/scale*9/10 {
				t.Errorf("it ended with %q, %v after %v", b[:n], err, d)
			}
		})
	})
}

// What a client says of whom it passes on does not reach the server: the proxy
// says who it is.
func TestClientAddress(t *testing.T) {
	each(t, func(t *testing.T, p *proxy) {
		for _, path := range []string{"/info?mark", "/subscribe?channel=a&timeout=0&mark"} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", p.mount()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header["X-Forwarded-For"] = []string{"6.6.6.6", "7.7.7.7, 127.0.0.1"}
			r.Header["Forwarded"] = []string{"for=6.6.6.6"}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
		requests, _ := p.tap.sent()
		if strings.Count(requests, "mark HTTP/1.1\r\n") != 2 {
			t.Fatalf("the server got %q", requests)
		}
		for head := range strings.SplitSeq(requests, "\r\n\r\n") {
			lines := regexp.MustCompile(`(?mi)^x-forwarded-for: .*\r`).FindAllString(head+"\r", -1)
			if strings.Contains(head, "mark HTTP") && (len(lines) != 1 || strings.ToLower(strings.TrimSpace(lines[0])) != "x-forwarded-for: 127.0.0.1") {
				t.Errorf("the server is told %q", lines)
			}
		}
		if regexp.MustCompile(`(?i)forwarded:|6\.6\.6\.6`).MatchString(requests) {
			t.Errorf("what a stranger said reached the server: %q", requests)
		}
	})
}
