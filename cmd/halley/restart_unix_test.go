//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
)

// load is what goes on while a server is restarted: a client over each
// transport, one that publishes, and those that connect all the time, each of
// which must be served.
type load struct {
	t          *testing.T
	stop       context.CancelFunc
	connecting sync.WaitGroup
	publishing sync.WaitGroup
	reading    sync.WaitGroup

	mu        sync.Mutex
	connected int              // guarded by mu
	waited    time.Duration    // guarded by mu: of who waited longest
	published []string         // guarded by mu: texts that were acknowledged
	received  map[string][]any // guarded by mu: by transport; texts, or nil for a gap
}

func loaded(t *testing.T, s *server) *load {
	t.Helper()
	u, err := url.Parse(s.client.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	l := &load{t: t, stop: stop, received: map[string][]any{}}
	t.Cleanup(stop)
	reading, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	for range 4 {
		l.connecting.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				if err := ask(u.Host); err != nil {
					t.Errorf("a client that comes during a restart: %v", err)
					return
				}
				l.mu.Lock()
				l.connected++
				l.waited = max(l.waited, time.Since(began))
				l.mu.Unlock()
			}
		})
	}
	info, err := s.client.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, transport := range comet.Transports {
		l.reading.Go(func() {
			for e, err := range s.client.Subscribe(reading, comet.Options{Channels: []string{"a"}, Cursor: info.Cursor, Transport: transport}) {
				if err != nil {
					t.Errorf("%s: %v", transport, err)
					return
				}
				var text any
				switch e.Control {
				case "":
					text = e.Message.Text()
				case comet.Gap: // text is nil
				default:
					continue
				}
				l.mu.Lock()
				l.received[string(transport)] = append(l.received[string(transport)], text)
				l.mu.Unlock()
				if text == "the end" {
					return
				}
			}
		})
	}
	l.publishing.Go(func() {
		for n := 0; ; n++ {
			text := fmt.Sprint("message ", n)
			if ctx.Err() != nil {
				text = "the end"
			}
			if _, err := s.tryPublish("a", text); err != nil {
				t.Errorf("publish: %v", err)
			}
			l.mu.Lock()
			l.published = append(l.published, text)
			l.mu.Unlock()
			if text == "the end" {
				return
			}
			time.Sleep(10 * time.Millisecond) // a steady rate
		}
	})
	return l
}

// ask asks a server over a connection of its own.
func ask(host string) error {
	conn, err := net.DialTimeout("tcp", host, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET /comet/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		return fmt.Errorf("got %q", answer)
	}
	return nil
}

// end ends the load, and checks that nobody has missed anything.
func (l *load) end() {
	l.t.Helper()
	l.stop()
	l.connecting.Wait()
	l.publishing.Wait()
	l.reading.Wait()
	for _, transport := range comet.Transports {
		got := l.received[string(transport)]
		var want []any
		for _, text := range l.published {
			want = append(want, text)
		}
		if !slices.Equal(got, want) {
			l.t.Errorf("%s: got %d of %d messages:\n%v", transport, len(got), len(want), got)
		}
	}
	l.t.Logf("%d connections, of which one was served after %v; %d messages", l.connected, l.waited, len(l.published))
}

// A server that is told to gives its place to the program that is installed
// under its name, whose socket is the same: no client is refused, and none
// misses anything.
func TestHandOver(t *testing.T) {
	s := serve(t, filepath.Join(t.TempDir(), "data"), "--drain-window", "300ms")
	l := loaded(t, s)
	for i := range int32(2) {
		time.Sleep(300 * time.Millisecond) // what goes on before
		if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the server is there again", func() bool { return s.ready.Load() == i+2 })
	}
	time.Sleep(300 * time.Millisecond) // and what goes on after it
	l.end()
	s.stop(syscall.SIGTERM)
}

// A server that cannot be followed goes on.
func TestHandOverFails(t *testing.T) {
	halley, err := exec.LookPath("halley")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(halley)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "halley")
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	s := serveBy(t, exec.Command(program, "serve", "--listen", "127.0.0.1:0", "--data-dir", filepath.Join(dir, "data")))
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server says why", func() bool { return strings.Contains(s.printed(), "none can follow it") })
	s.publish("a", "1")
	s.stop(syscall.SIGTERM)
}

// A server whose successor would not start goes on, whatever is wrong, and says
// why. Once that is mended, it is followed.
func TestHandOverRefused(t *testing.T) {
	dir := t.TempDir()
	config, secret, file := filepath.Join(dir, "halley.yaml"), filepath.Join(dir, "secret"), filepath.Join(dir, "file")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(secret, testSecret)
	write(file, "")
	good := "listen: 0.0.0.0:0\ndata-dir: " + filepath.Join(dir, "data") + "\ndrain-window: 300ms\n"
	write(config, good+"open: true\n")
	s := serveBy(t, exec.Command("halley", "serve", "--config", config))
	s.client.URL = strings.Replace(s.client.URL, "[::]", "127.0.0.1", 1)
	l := loaded(t, s)
	for _, tt := range []struct{ yaml, why string }{
		{good + "open: true\nheartbeat: often\n", "heartbeat expected duration"},
		{good + "open: true\nretain-cuont: 1\n", "did you mean retain-count"},
		{good + "open: true\nmax-message: 9999GiB\n", "max-message is"},
		{good + "open: true\nauth-secret-file: " + secret + "\n", "--open is for everybody and everything"},
		{good + "auth-secret-file: " + filepath.Join(dir, "none") + "\n", "none: no such file"},
		{good + "auth-secret-file: " + file + "\n", "auth"},
		{good, "who may publish and subscribe is not decided"},
		{good + "open: true\ntls-cert: " + file + "\ntls-key: " + file + "\n", "--tls-cert and --tls-key: tls:"},
		{good + "open: true\nadmin-listen: 192.0.2.1:1\n", "--admin-listen: listen tcp 192.0.2.1:1"},
		{strings.Replace(good, filepath.Join(dir, "data"), file, 1) + "open: true\n", "file is not a directory"},
	} {
		write(config, tt.yaml)
		before := len(s.printed())
		if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the server says why", func() bool { return strings.Contains(s.printed()[before:], "none can follow it") })
		if said := s.printed()[before:]; !strings.Contains(said, tt.why) || strings.Contains(said, "draining") {
			t.Errorf("%q: got %q, want %q", tt.yaml, said, tt.why)
		}
	}
	write(config, good+"open: true\nmax-channels: 1\n")
	if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server is there again", func() bool { return s.ready.Load() == 2 })
	if status, answer := s.post("GET", "/subscribe?channel=a&channel=b&timeout=0", ""); status != 400 {
		t.Errorf("its settings are not the new ones: %d %s", status, answer)
	}
	l.end()
	s.stop(syscall.SIGTERM)
}

// A socket that systemd holds is served, and is there between two servers.
func TestSocketActivation(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	dir := filepath.Join(t.TempDir(), "data")
	activated := func() *server {
		cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec halley serve --drain-window 300ms --data-dir "$0"`, dir)
		cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
		cmd.ExtraFiles = []*os.File{socket} // 3, as sd_listen_fds(3) has it
		return serveBy(t, cmd)
	}
	s := activated()
	if want := "http://" + listener.Addr().String() + "/comet"; s.client.URL != want {
		t.Fatalf("it serves %s, want %s", s.client.URL, want)
	}
	l := loaded(t, s)
	for range 2 {
		time.Sleep(300 * time.Millisecond) // what goes on before
		s.stop(syscall.SIGTERM)
		s = activated()
	}
	time.Sleep(300 * time.Millisecond) // and what goes on after it
	l.end()
	s.stop(syscall.SIGTERM)
}
