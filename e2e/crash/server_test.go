package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/e2e/process"
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

// halley is the path of the command. Under the race detector it has one too.
var halley = sync.OnceValues(func() (string, error) {
	if built := os.Getenv("HALLEY_BINARY"); built != "" {
		return built, nil
	}
	program := filepath.Join(scratch, "halley")
	build := exec.Command("go", "build", "-race="+strconv.FormatBool(raceDetector), "-o", program, "github.com/halley-comet/halley/cmd/halley")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, output)
	}
	return program, nil
})

// patience is for what happens at once unless something is wrong.
const patience = 2 * time.Minute

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
	return &comet.Client{URL: "http://" + s.address + "/comet", Attempts: 1000, Backoff: comet.Backoff{Min: 5 * time.Millisecond, Max: 50 * time.Millisecond}}
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
