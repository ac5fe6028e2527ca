package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/process"
	"github.com/halley-comet/halley/internal/crashtest"
)

const patience = crashtest.Patience

// A program is one that is killed, paused and started again, behind one port.
type program struct {
	t       *testing.T
	name    string
	port    *port
	args    []string // the path first
	process *process.Process
	started int
}

func (p *program) String() string { return p.name }

// start starts the program, and does not wait until it is ready.
func (p *program) start() {
	p.t.Helper()
	run, err := process.Start(p.port.command(p.args[0], p.args[1:]...))
	if err != nil {
		p.t.Fatal(err)
	}
	p.process = run
	p.started++
	name := fmt.Sprintf("%s.%d", p.name, p.started)
	p.t.Cleanup(func() {
		run.Stop()
		output := run.Output()
		if fault := regexp.MustCompile(`DATA RACE|panic|goroutine \d+ \[`).FindString(output); fault != "" {
			p.t.Errorf("%s printed %q:\n%s", name, fault, output)
		}
		// For go test -artifacts.
		if err := os.WriteFile(filepath.Join(p.t.ArtifactDir(), name+".log"), []byte(output), 0o600); err != nil {
			p.t.Error(err)
		}
	})
}

func (p *program) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v; it printed:\n%s", p.name, err, p.process.Output())
	}
}

// kill kills the program as kill -9 does.
func (p *program) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait()
}

func (p *program) wait() {
	p.t.Helper()
	select {
	case <-p.process.Done():
	case <-time.After(patience):
		p.t.Fatalf("%s goes on after a signal; it printed:\n%s", p.name, p.process.Output())
	}
}

// runs tells whether the program has not ended.
func (p *program) runs() bool {
	select {
	case <-p.process.Done():
		return false
	default:
		return true
	}
}

// stop has the program drain, and wants it to end in order.
func (p *program) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.wait()
	if err := p.process.Err(); err != nil {
		p.t.Errorf("%s ended with %v; it printed:\n%s", p.name, err, p.process.Output())
	}
}
