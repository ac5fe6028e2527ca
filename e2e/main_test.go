package e2e

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/halley-comet/halley/e2e/browser"
	"github.com/halley-comet/halley/internal/natstest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "halley-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	defer natstest.Remove()
	defer func() {
		for _, e := range engines {
			e.Close()
		}
	}()
	flag.Parse()
	// The tests of the engines wait more than they work.
	if err := flag.Set("test.parallel", strconv.Itoa(len(engines))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// scratch is a directory of this run, for what all tests share.
var scratch string

// engines are the browsers of this run, each started by the first test that
// wants it and shared by those that follow.
var engines = browser.SharedEngines()

// each runs test in every engine, all at once, with a new tab for each.
func each(t *testing.T, test func(t *testing.T, p *page)) {
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("drives real browsers: set HALLEY_E2E=1")
	}
	for _, name := range browser.Engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := engines[name].Browser()
			if err != nil {
				t.Fatal(err)
			}
			test(t, newPage(t, b))
		})
	}
}
