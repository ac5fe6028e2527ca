// Package natstest runs NATS servers for tests: the real one, of the version
// that the module of the benchmarks names.
package natstest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/process"
)

// Build builds the server, once a process, and returns its path. The go command
// keeps what it has built. HALLEY_NATS_SERVER names one to take in its place.
var Build = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("HALLEY_NATS_SERVER"); path != "" {
		return path, nil
	}
	module, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("natstest: go env: %w", err)
	}
	dir, err := os.MkdirTemp("", "halley-nats-")
	if err != nil {
		return "", err
	}
	built.Store(&dir)
	path := filepath.Join(dir, "nats-server")
	build := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2")
	build.Dir = filepath.Join(filepath.Dir(strings.TrimSpace(string(module))), "bench")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("natstest: %s: %w\n%s", build, err, out)
	}
	return path, nil
})

// built is the directory of what Build has built, nil for nothing.
var built atomic.Pointer[string]

// Remove removes what Build has built: for TestMain.
func Remove() {
	if dir := built.Load(); dir != nil {
		os.RemoveAll(*dir)
	}
}

// A Server is a NATS server with JetStream, on loopback.
type Server struct {
	URL     string
	config  string
	process *process.Process
}

// Start starts a server, whose data is in dir. More is added to its
// configuration. The test ends it.
func Start(t testing.TB, dir, more string) *Server {
	t.Helper()
	s := &Server{config: filepath.Join(dir, "nats.conf")}
	config := fmt.Sprintf("listen: 127.0.0.1:-1\nmax_payload: 8MB\njetstream { store_dir: %q, max_file_store: 64GB }\n%s\n", filepath.Join(dir, "store"), more)
	if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.launch(t)
	// From now on at the address that it has found.
	config = strings.Replace(config, "127.0.0.1:-1", strings.TrimPrefix(s.URL, "nats://"), 1)
	if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

var listening = regexp.MustCompile(`Listening for client connections on (\S+)`)
var ready = regexp.MustCompile(`Server is ready`)

func (s *Server) launch(t testing.TB) {
	t.Helper()
	path, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(exec.Command(path, "-c", s.config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	match, err := p.Await(ctx, listening)
	if err == nil {
		_, err = p.Await(ctx, ready)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.URL, s.process = "nats://"+match[1], p
}

// Kill ends the server as kill -9 does.
func (s *Server) Kill() { s.process.Stop() }

// Pause has the server stand still until Resume.
func (s *Server) Pause(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Resume lets a server go on that stands still.
func (s *Server) Resume(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Restart starts a server again that was killed, on its data and its address.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.launch(t)
}
