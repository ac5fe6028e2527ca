package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/halley-comet/halley/internal/crashtest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "halley-cluster-"); err != nil {
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

// natsServer is the path of nats-server, in the version that bench has.
var natsServer = sync.OnceValues(func() (string, error) {
	if built := os.Getenv("NATS_SERVER_BINARY"); built != "" {
		return built, nil
	}
	program := filepath.Join(scratch, "nats-server")
	build := exec.Command("go", "build", "-C", filepath.FromSlash("../../bench"), "-o", program, "github.com/nats-io/nats-server/v2")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, output)
	}
	return program, nil
})

// gate skips a test unless it was asked for.
func gate(t *testing.T) {
	t.Helper()
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("runs a cluster in network namespaces: set HALLEY_E2E=1")
	}
}
