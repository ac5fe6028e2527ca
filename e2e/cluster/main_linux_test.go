package cluster

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/halley-comet/halley/internal/crashtest"
	"github.com/halley-comet/halley/internal/natstest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "halley-cluster-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	defer natstest.Remove()
	return m.Run()
}

// scratch is a directory of this run.
var scratch string

// halley is the path of the command.
var halley = sync.OnceValues(func() (string, error) { return crashtest.Halley(scratch) })

// gate skips a test unless it was asked for.
func gate(t *testing.T) {
	t.Helper()
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("runs a cluster in network namespaces: set HALLEY_E2E=1")
	}
}
