package process_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/process"
)

func TestAwait(t *testing.T) {
	p := start(t, "echo listening on port 4711; exec cat")
	match, err := p.Await(within(t), regexp.MustCompile(`port (\d+)`))
	if err != nil {
		t.Fatal(err)
	}
	if match[1] != "4711" {
		t.Errorf("port %q, want 4711", match[1])
	}
}

func TestAwaitEnd(t *testing.T) {
	p := start(t, "echo no such display >&2; exit 3")
	_, err := p.Await(within(t), regexp.MustCompile(`port (\d+)`))
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no such display") {
		t.Errorf("error %v, want the exit status and what was printed", err)
	}
}

// A child of the program must not outlive Stop: it holds a pipe that ends with
// its last holder.
func TestStopEndsTheGroup(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("process groups are killed on Linux only")
	}
	held, holder, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	cmd := exec.Command("sh", "-c", "sleep 60 & echo child; wait")
	cmd.ExtraFiles = []*os.File{holder}
	p, err := process.Start(cmd)
	holder.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Await(within(t), regexp.MustCompile("child")); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	p.Stop()
	held.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := held.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("reading the pipe that the child held: %v, want EOF", err)
	}
}

func start(t *testing.T, script string) *process.Process {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}
