package sharetest

import (
	"log/slog"
	"testing"

	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/nats"
	"github.com/halley-comet/halley/internal/natstest"
)

// OpenNATS opens a node on a real NATS server for the test, with a replica of its
// own.
func OpenNATS(t testing.TB, s *natstest.Server, logger *slog.Logger) *nats.Log {
	t.Helper()
	log, err := nats.Open(t.Context(), t.TempDir(), nats.Options{
		URL: s.URL, Replicas: 1, StreamBytes: 64 << 20, Logger: logger, Replica: disk.Options{Limit: 64 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	return log
}
