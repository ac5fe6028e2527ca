package nats

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/natstest"
)

// BenchmarkAppend is of publishers that each wait for their acknowledgement, on
// one NATS server. Go run -C bench . -scenario nodes-publish is of three.
func BenchmarkAppend(b *testing.B) {
	for _, publishers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint("publishers=", publishers), func(b *testing.B) {
			server := natstest.Start(b, b.TempDir(), "")
			l, err := Open(b.Context(), b.TempDir(), Options{URL: server.URL, Replicas: 1, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			data := make([]byte, 200)
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(publishers)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				channel := fmt.Sprint("chat/", n.Add(1)%100)
				for pb.Next() {
					if _, err := l.Append(b.Context(), engine.Batch{Messages: []engine.Message{{Channel: channel, ContentType: "text/plain", Data: data}}}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
