package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine/memory"
)

// get returns the status and the body of a page.
func get(t *testing.T, url string, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if r.Header.Set(name, value); name == "Host" {
			r.Host = value
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestAdmin shows what the address for operators has, and that the server's own
// has none of it but health.
func TestAdmin(t *testing.T) {
	s := serve(t, t.TempDir(), "--admin-listen", "127.0.0.1:0")
	m := regexp.MustCompile(`INFO halley: metrics, health and profiles url=(\S+)`).FindStringSubmatch(s.printed())
	if m == nil {
		t.Fatalf("the server printed\n%s", s.printed())
	}
	admin, own := m[1], strings.TrimSuffix(s.client.URL, "/comet")
	s.publish("a", "hello")
	for _, tt := range []struct {
		url, header string
		status      int
		has         string
	}{
		{admin + "/metrics", "", 200, "\nhalley_published_bytes_total 5\n"},
		{admin + "/metrics", "", 200, "\nhalley_log_messages 1\n"},
		{admin + "/metrics", "", 200, "\ngo_goroutines "},
		{admin + "/metrics", "", 200, "\nprocess_cpu_seconds_total "},
		{admin + "/healthz", "", 200, `"connections":0`},
		{admin + "/readyz", "", 200, `{"ready":true}`},
		{admin + "/debug/pprof/", "", 200, "goroutine"},
		{admin + "/debug/pprof/goroutine?debug=1", "", 200, "goroutine profile"},
		{admin + "/comet/info", "", 404, ""},
		{admin + "/metrics", "Sec-Fetch-Site: cross-site", 403, ""},
		{admin + "/metrics", "Sec-Fetch-Site: same-site", 403, ""},
		{admin + "/metrics", "Sec-Fetch-Site: none", 200, "halley_"},
		{admin + "/metrics", "Host: rebound.example.com", 403, ""},
		{admin + "/metrics", "Host: localhost:1", 200, "halley_"},
		{own + "/healthz", "", 200, "ok\n"},
		{own + "/readyz", "", 200, "ok\n"},
		{own + "/metrics", "", 404, ""},
		{own + "/debug/pprof/", "", 404, ""},
		{own + "/debug/pprof/cmdline", "", 404, ""},
	} {
		var headers []string
		if tt.header != "" {
			headers = []string{tt.header}
		}
		if status, body := get(t, tt.url, headers...); status != tt.status || !strings.Contains(body, tt.has) {
			t.Errorf("%s %s: %d %.300s; want %d with %q", tt.url, tt.header, status, body, tt.status, tt.has)
		}
	}
	if out := s.stop(syscall.SIGTERM); !strings.HasSuffix(out, "halley: draining\nhalley: stopped\n") || strings.Count(out, "WARN") != 1 {
		t.Errorf("the server printed\n%s", out)
	}
}

// TestAdminNotReady shows that readyz is false while the log is being opened
// and from when draining begins.
func TestAdminNotReady(t *testing.T) {
	var logged bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, nil)))
	a, err := startAdmin("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	url := "http://" + a.addr.String() + "/readyz"
	ready := func(status int, has string) {
		t.Helper()
		if got, body := get(t, url); got != status || !strings.Contains(body, has) {
			t.Errorf("%d %s, want %d with %q", got, body, status, has)
		}
	}
	ready(503, "being opened")
	log, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	hub, err := halley.New(log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	a.show(hub, log)
	ready(200, "true")
	if err := hub.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready(503, "draining")
	if strings.Contains(logged.String(), "WARN") {
		t.Errorf("a loopback address is warned of: %s", &logged)
	}
	open, err := startAdmin("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	open.close()
	if !strings.Contains(logged.String(), "THE ADMIN ADDRESS IS NOT ON LOOPBACK") {
		t.Errorf("nobody is warned of 0.0.0.0: %s", &logged)
	}
}

// TestLogFormat shows that every line of the log is an object if that is asked
// for, from the first to the last.
func TestLogFormat(t *testing.T) {
	_, stderr, err := run(t, nil, "serve", "--listen", "nowhere:1", "--engine", "memory", "--log-format", "json", "--admin-listen", "127.0.0.1:0")
	if err == nil {
		t.Fatal("a server listens nowhere")
	}
	var messages []string
	for line := range strings.Lines(stderr) {
		var l struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Level == "" {
			t.Errorf("%q: %v", line, err)
		}
		messages = append(messages, l.Msg)
	}
	if len(messages) != 2 || messages[1] != "halley: ended" {
		t.Errorf("the server printed %q", stderr)
	}
	_, stderr, _ = run(t, nil, "serve", "--listen", "nowhere:1", "--engine", "memory", "--log-format", "json", "--admin-listen", "127.0.0.1:0", "--log-level", "error")
	if strings.Contains(stderr, "INFO") || !strings.Contains(stderr, "ERROR") {
		t.Errorf("at level error the server printed %q", stderr)
	}
}

// TestTellRefused shows that refusals make a line a minute at most, and none
// where there are none.
func TestTellRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		asked := 0
		refused := func() map[string]uint64 {
			if asked++; asked <= 3 {
				return map[string]uint64{"not-found": 3, "too-large": 0}
			}
			return map[string]uint64{"not-found": 1000, "too-large": 1}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			tellRefused(ctx, slog.New(slog.NewTextHandler(&logged, nil)), refused)
		}()
		time.Sleep(10*refusedEvery + time.Second)
		cancel()
		<-done
		if lines := strings.Count(logged.String(), "\n"); lines != 1 || !strings.Contains(logged.String(), "not-found=997 too-large=1") {
			t.Errorf("logged %s", &logged)
		}
	})
}
