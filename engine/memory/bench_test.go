package memory_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/memory"
)

func open(t testing.TB, opts memory.Options) *memory.Log {
	t.Helper()
	l, err := memory.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// BenchmarkAppend stores messages of 128 bytes one at a time.
func BenchmarkAppend(b *testing.B) {
	data := make([]byte, 128)
	for _, channels := range []int{1, 1000, 100_000} {
		for _, batch := range []int{1, 100} {
			b.Run(fmt.Sprintf("channels=%d/batch=%d", channels, batch), func(b *testing.B) {
				l := open(b, memory.Options{})
				names := make([]string, channels)
				for i := range names {
					names[i] = fmt.Sprintf("chat/room/%d", i)
				}
				messages := make([]engine.Message, batch)
				b.ReportAllocs()
				for i := 0; i < b.N; i += batch {
					for j := range messages {
						messages[j] = engine.Message{Channel: names[(i+j)%channels], ContentType: "application/json", Data: data}
					}
					if _, err := l.Append(b.Context(), engine.Batch{Messages: messages}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}

// million returns a log with two messages in each of a million channels, and
// its end after the first of the two rounds.
var million = sync.OnceValues(func() (*memory.Log, engine.Cursor) {
	l, err := memory.New(memory.Options{Limit: -1})
	if err != nil {
		panic(err)
	}
	var half engine.Cursor
	for range 2 {
		half = l.End()
		var batch engine.Batch
		for i := range 1_000_000 {
			batch.Messages = append(batch.Messages, engine.Message{
				Channel: fmt.Sprintf("user/%d/inbox", i), ContentType: "text/plain", Data: []byte("hello"),
			})
			if len(batch.Messages) == engine.MaxBatch {
				if _, err := l.Append(context.Background(), batch); err != nil {
					panic(err)
				}
				batch.Messages = batch.Messages[:0]
			}
		}
	}
	return l, half
})

// BenchmarkRead reads from a log of a million channels.
func BenchmarkRead(b *testing.B) {
	l, half := million()
	hundred := make([]string, 100)
	for i := range hundred {
		hundred[i] = fmt.Sprintf("user/%d/inbox", i*1000)
	}
	behind := l.End()
	behind.Seq -= 10
	for _, bb := range []struct {
		name string
		q    engine.Query
		want int
	}{
		{"at the end", engine.Query{Channels: []string{"**"}, After: l.End()}, 0},
		{"tail of 10", engine.Query{Channels: []string{"**"}, After: behind}, 10},
		{"one channel", engine.Query{Channels: []string{"user/4711/inbox"}, After: half}, 1},
		{"100 channels", engine.Query{Channels: hundred, After: half}, 100},
		{"pattern over all", engine.Query{Channels: []string{"user/**"}, After: half, Limit: 10}, 10},
		{"pattern over all, backward", engine.Query{Channels: []string{"user/**"}, After: half, Limit: 10, Backward: true}, 10},
		{"page of 1000", engine.Query{Channels: []string{"user/**"}, After: half}, 1000},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				page, err := l.Read(b.Context(), bb.q)
				if err != nil || len(page.Messages) != bb.want {
					b.Fatalf("got %d messages, %v, want %d", len(page.Messages), err, bb.want)
				}
			}
		})
	}
	b.Run("Tail of 10", func(b *testing.B) {
		buf := make([]*engine.Message, 0, 64)
		b.ReportAllocs()
		for b.Loop() {
			if tail, ok := l.Tail(behind, buf); !ok || len(tail) != 10 {
				b.Fatalf("got %d messages, %v, want 10", len(tail), ok)
			}
		}
	})
}
