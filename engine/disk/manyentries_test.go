package disk

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestManyEntries removes many messages with an entry each in one step.
func TestManyEntries(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	const n = 30000
	mem := vfs.NewMem()
	opts := Options{fs: mem, group: 1, Fsync: Never, Retention: engine.Retention{Count: 1 << 40}, TailBytes: 1 << 20}
	l, err := Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	for range n / 1000 {
		b := engine.Batch{}
		for i := range 1000 {
			b.Messages = append(b.Messages, engine.Message{Channel: fmt.Sprint("a/b/", i%10)})
		}
		if _, err := l.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	opts.Retention.Count = 1
	opts.group = 0
	l, err = Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	for p := range 40 {
		wg.Go(func() {
			for range 4 {
				b := engine.Batch{}
				for i := range 1000 {
					b.Messages = append(b.Messages, engine.Message{Channel: fmt.Sprintf("c%d-%d", p, i)})
				}
				begin := time.Now()
				if _, err := l.Append(context.Background(), b); err != nil {
					t.Error(err)
				}
				if d := time.Since(begin); p == 0 {
					t.Log(d, l.Stats().Messages)
				}
			}
		})
	}
	wg.Wait()
	t.Log(l.Stats().Messages)
}
