package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/e2e/process"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/crashtest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "halley-crash-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	return m.Run()
}

// scratch is a directory of this run.
var scratch string

// halley is the path of the command.
var halley = sync.OnceValues(func() (string, error) { return crashtest.Halley(scratch) })

const patience = crashtest.Patience

// A server is a `halley serve` that is killed and started again, on one
// address and one directory.
type server struct {
	t       *testing.T
	address string
	flags   []string
	process *process.Process // the one that runs, or ran last
}

// newServer returns a server that does not run yet.
func newServer(t *testing.T, dir string, flags ...string) *server {
	t.Helper()
	if _, err := halley(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, address: freeAddress(t)}
	s.flags = append([]string{"serve", "--listen", s.address, "--engine", "disk", "--data-dir", dir}, flags...)
	return s
}

// freeAddress returns an address below the ports that the system gives out by
// itself: a client that dials while the server is away could get the server's
// port for its own, and be connected to itself.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprint("127.0.0.1:", 15000+rand.IntN(15000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

func (s *server) client() *comet.Client {
	return &comet.Client{URL: s.mount(), Attempts: 1000, Backoff: comet.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond}}
}

// mount is where the server speaks the protocol.
func (s *server) mount() string { return "http://" + s.address + "/comet" }

// newPublisher returns a publisher to the server.
func newPublisher(t *testing.T, s *server, number int, random *rand.Rand, acks *crashtest.Pulse) *crashtest.Publisher {
	return crashtest.NewPublisher(t, number, random, acks, s.mount())
}

// newSubscriber returns a subscriber of the server, with connections of its own.
func newSubscriber(t *testing.T, s *server, transport comet.Transport, start engine.Cursor, channels ...string) *crashtest.Subscriber {
	client := s.client()
	client.HTTPClient = &http.Client{Transport: &http.Transport{}}
	return crashtest.NewSubscriber(t, client, transport, start, channels...)
}

// launch starts the server, and does not wait until it is ready.
func (s *server) launch(flags ...string) {
	s.t.Helper()
	program, err := halley()
	if err != nil {
		s.t.Fatal(err)
	}
	p, err := process.Start(exec.Command(program, append(s.flags[:len(s.flags):len(s.flags)], flags...)...))
	if err != nil {
		s.t.Fatal(err)
	}
	s.process = p
	s.t.Cleanup(func() {
		p.Stop()
		if fault := regexp.MustCompile(`DATA RACE|panic|goroutine \d+`).FindString(p.Output()); fault != "" {
			s.t.Errorf("the server printed %q:\n%s", fault, p.Output())
		}
	})
}

var ready = regexp.MustCompile(`halley: ready at `)

// start starts the server and waits until it is ready.
func (s *server) start(flags ...string) {
	s.t.Helper()
	s.launch(flags...)
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if _, err := s.process.Await(ctx, ready); err != nil {
		s.t.Fatal(err)
	}
}

// kill kills the server as kill -9 does.
func (s *server) kill() {
	s.t.Helper()
	if err := s.process.Signal(syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	s.wait()
}

// stop has the server drain, and returns how it ended.
func (s *server) stop() error {
	s.t.Helper()
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.wait()
	return s.process.Err()
}

func (s *server) wait() {
	s.t.Helper()
	select {
	case <-s.process.Done():
	case <-time.After(patience):
		s.t.Fatalf("the server goes on after a signal; it printed:\n%s", s.process.Output())
	}
}
