package transport_test

import (
	"testing"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/internal/transport/transporttest"
)

func TestTransports(t *testing.T) {
	transporttest.Run(t, func(t testing.TB, r engine.Retention) engine.Engine {
		log, err := memory.New(memory.Options{Retention: r})
		if err != nil {
			t.Fatal(err)
		}
		return log
	})
}

// TestTransportsOnDisk has little in memory, so that those who come back are
// read for from the disk, and told of gaps by it. With a small limit Pebble
// gathers little, which the race detector's builds count in the heap.
func TestTransportsOnDisk(t *testing.T) {
	transporttest.Run(t, func(t testing.TB, r engine.Retention) engine.Engine {
		log, err := disk.Open(t.TempDir(), disk.Options{Retention: r, TailBytes: 4 << 10, Limit: 32 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return log
	})
}
