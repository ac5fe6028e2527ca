package disk

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

// payload is text, as much as is published: it compresses, but not to nothing.
var payload = func() []byte {
	b := make([]byte, 150)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return base64.StdEncoding.AppendEncode(nil, b)
}()

// BenchmarkAppend publishes messages of 200 bytes to 100 channels of two
// segments, each publisher waiting for its receipt. "pebble" is the same
// number of writers that each commit 200 bytes with a sync to a bare Pebble,
// which groups commits by itself: one key a message, and two.
func BenchmarkAppend(b *testing.B) {
	for _, mode := range []Fsync{Group, Always, Never} {
		for _, n := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("%v/publishers=%d", mode, n), func(b *testing.B) {
				l, err := Open(b.TempDir(), Options{Fsync: mode})
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				concurrently(b, n, func(i int64) error {
					_, err := l.Append(context.Background(), engine.Batch{Messages: []engine.Message{{Channel: fmt.Sprint("chat/", i%100), Data: payload}}})
					return err
				})
			})
		}
	}
	// A message under its sequence, and under its channel as well.
	for _, keys := range []int{1, 2} {
		for _, n := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("pebble/keys=%d/publishers=%d", keys, n), func(b *testing.B) {
				db, err := pebble.Open(b.TempDir(), &pebble.Options{MemTableSize: memTableBytes, FormatMajorVersion: pebbleFormat, Logger: listener{}})
				if err != nil {
					b.Fatal(err)
				}
				defer db.Close()
				concurrently(b, n, func(i int64) error {
					batch := db.NewBatch()
					defer batch.Close()
					batch.Set(messageKey(nil, uint64(i)), payload, nil)
					if keys == 2 {
						batch.Set(appendUint64(listPrefix(nil, fmt.Sprint("chat/", i%100), engine.Exact), uint64(i)), nil, nil)
					}
					return batch.Commit(pebble.Sync)
				})
			})
		}
	}
}

func concurrently(b *testing.B, n int, do func(i int64) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// filled returns the directory of a log of a million messages in so many
// channels.
func filled(b *testing.B, channels int) string {
	dir := b.TempDir()
	l, err := Open(dir, Options{Fsync: Never, Retention: engine.Retention{Bytes: 1 << 40}})
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < 1_000_000; {
		var batch engine.Batch
		for range engine.MaxBatch {
			batch.Messages = append(batch.Messages, engine.Message{Channel: fmt.Sprint("chat/", i%channels), Data: payload})
			i++
		}
		if _, err := l.Append(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkOpen opens a log of a million messages.
func BenchmarkOpen(b *testing.B) {
	for _, channels := range []int{1, 1000, 1_000_000} {
		b.Run(fmt.Sprintf("channels=%d", channels), func(b *testing.B) {
			dir := filled(b, channels)
			for b.Loop() {
				l, err := Open(dir, Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				l.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkRead reads pages of 1,000 messages from disk, of one channel of
// 1,000, of ten and of a pattern that matches all.
func BenchmarkRead(b *testing.B) {
	l, err := Open(filled(b, 1000), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var ten []string
	for i := range 10 {
		ten = append(ten, fmt.Sprint("chat/", 100*i))
	}
	for name, channels := range map[string][]string{"channel": ten[:1], "ten": ten, "pattern": {"chat/*"}, "all": {"**"}} {
		b.Run(name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				page, err := l.Read(context.Background(), engine.Query{Channels: channels})
				if err != nil || len(page.Messages) == 0 {
					b.Fatal(len(page.Messages), err)
				}
				n += len(page.Messages)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
