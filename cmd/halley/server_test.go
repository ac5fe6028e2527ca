package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
)

// A server is a halley serve that runs.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	client *comet.Client
	mu     sync.Mutex
	stderr bytes.Buffer  // guarded by mu
	read   chan struct{} // closed at the end of stderr
	ready  atomic.Int32  // how often it was: once more after each restart
}

// serve starts a server with its log on disk.
func serve(t *testing.T, dir string, flags ...string) *server {
	t.Helper()
	return serveBy(t, exec.Command("halley", append([]string{"serve", "--listen", "127.0.0.1:0", "--data-dir", dir}, flags...)...))
}

// serveBy starts a server by a command.
func serveBy(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{t: t, cmd: cmd, read: make(chan struct{})}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill() })
	found := make(chan string, 1)
	go func() {
		defer close(s.read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.mu.Lock()
			s.stderr.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if m := ready.FindStringSubmatch(lines.Text()); m != nil && s.ready.Add(1) == 1 {
				found <- m[1] + "://" + m[2] + "/comet"
			}
		}
	}()
	select {
	case url := <-found:
		s.client = &comet.Client{URL: url}
	case <-s.read:
		t.Fatalf("the server ended: %v\n%s", s.cmd.Wait(), s.printed())
	case <-time.After(time.Minute):
		t.Fatalf("the server is not ready; it printed\n%s", s.printed())
	}
	return s
}

func (s *server) printed() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stderr.String()
}

// stop ends the server and returns what it printed.
func (s *server) stop(signal syscall.Signal) string {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatal(err)
	}
	<-s.read
	if err := s.cmd.Wait(); err != nil && signal != syscall.SIGKILL {
		s.t.Errorf("the server ended with %v\n%s", err, s.printed())
	}
	return s.printed()
}

// publish publishes texts and returns their ids.
func (s *server) publish(channel string, texts ...string) []string {
	s.t.Helper()
	ids, err := s.tryPublish(channel, texts...)
	if err != nil {
		s.t.Fatalf("publish: %v\n%s", err, s.printed())
	}
	return ids
}

func (s *server) tryPublish(channel string, texts ...string) ([]string, error) {
	var list []comet.Publication
	for _, text := range texts {
		list = append(list, comet.Publication{Channel: channel, ContentType: "text/plain; charset=utf-8", Data: []byte(text)})
	}
	return s.client.Publish(context.Background(), list...)
}

// subscribe reads n messages of the channels after a cursor, and tells whether
// there was a gap before them.
func (s *server) subscribe(cursor string, n int, channels ...string) (messages []comet.Message, gap bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for e, err := range s.client.Subscribe(ctx, comet.Options{Channels: channels, Cursor: cursor}) {
		if err != nil {
			s.t.Fatalf("subscribe: %v after %d of %d messages", err, len(messages), n)
		}
		switch e.Control {
		case "":
			if messages = append(messages, e.Message); len(messages) == n {
				return messages, gap
			}
		case "gap":
			gap = true
		}
	}
	return messages, gap
}

// run runs a command, and returns what it printed.
func run(t *testing.T, stdin io.Reader, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.Command("halley", args...)
	var out, errors strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errors
	cmd.Env = os.Environ()
	err = cmd.Run()
	return out.String(), errors.String(), err
}

// mustRun runs a command that is to succeed.
func mustRun(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	stdout, stderr, err := run(t, nil, args...)
	if err != nil {
		t.Fatalf("halley %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout
}

// patience is how long a test waits for what is to happen.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
