package nats

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/enginetest"
	"github.com/halley-comet/halley/internal/natstest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	natstest.Remove()
	os.Exit(code)
}

// streams gives each directory a stream of its own.
type streams struct {
	mu    sync.Mutex
	byDir map[string]string
}

func (s *streams) of(dir string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byDir == nil {
		s.byDir = make(map[string]string)
	}
	if s.byDir[dir] == "" {
		s.byDir[dir] = fmt.Sprint("suite", len(s.byDir))
	}
	return s.byDir[dir]
}

// TestEngine runs the suite on a real server. A crash takes the node's disk as
// well: the stream has it all.
func TestEngine(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	var streams streams
	enginetest.Run(t, enginetest.Suite{
		Open: func(dir string, o enginetest.Options) (engine.Engine, error) {
			return Open(t.Context(), dir, Options{
				URL: server.URL, Stream: streams.of(dir), Replicas: 1, StreamBytes: 64 << 20,
				Replica: disk.Options{Retention: o.Retention, Rules: o.Rules, KeyWindow: o.KeyWindow, Limit: o.Limit},
			})
		},
		Durable: true,
		Crash: func(dir string, e engine.Engine) error {
			err := e.Close()
			if e := os.RemoveAll(dir); err == nil {
				err = e
			}
			return err
		},
		Tick: 300 * time.Millisecond,
	})
}

// open opens a node for the test.
func open(t *testing.T, server *natstest.Server, dir string, o Options) *Log {
	t.Helper()
	o.URL = server.URL
	o.Replicas = 1
	if o.StreamBytes == 0 {
		o.StreamBytes = 64 << 20
	}
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	l, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
