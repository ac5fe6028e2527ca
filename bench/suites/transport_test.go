//go:build !race

package suites

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/ats"
	natsgo "github.com/nats-io/nats.go"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/nats"
	"github.com/halley-comet/halley/internal/transport/transporttest"
)

func TestMain(m *testing.M) {
	// The server shares a goroutine between all that there are. It must not be of
	// a bubble, where it would keep time from passing.
	ats.Register()
	os.Exit(m.Run())
}

// TestTransports leaves out "slow" where -skip says so: it measures the heap, which
// the server shares. The server keeps pools for the whole process, whose channels
// are of one bubble and now and then turn up in another, which is fatal. So it runs
// where it is asked for.
func TestTransports(t *testing.T) {
	if os.Getenv("HALLEY_SUITES") == "" {
		t.Skip("may end with a fatal error of testing/synctest: set HALLEY_SUITES=1")
	}
	transporttest.Run(t, func(t testing.TB, r engine.Retention) engine.Engine {
		s, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, MaxPayload: 8 << 20, JetStreamMaxStore: 4 << 30, JetStreamMaxMemory: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		go s.Start()
		if !s.ReadyForConnections(10 * time.Second) {
			t.Fatal("the server is not ready")
		}
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		l, err := nats.Open(context.Background(), t.TempDir(), nats.Options{
			Connect: []natsgo.Option{natsgo.InProcessServer(s)}, Replicas: 1, StreamBytes: 256 << 20,
			Logger:  slog.New(slog.DiscardHandler),
			Replica: disk.Options{Retention: r, TailBytes: 4 << 10, Limit: 32 << 20},
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
}
