package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Go lets a heap grow to twice what is live before it collects. Most of a large
// one here is the log, or the newest messages of one on disk, which are to take
// what they were given, and not twice that.
// So what may be garbage is bounded: by as much as is live while that is
// little, by a part of it, or by least, while it is more.
const (
	least    = 16 << 20 // bytes
	part     = 5
	lookEach = time.Second
)

// boundGarbage keeps the garbage of the program small next to its log, until
// ctx ends.
func boundGarbage(ctx context.Context) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for ticker := time.NewTicker(lookEach); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			ticker.Stop()
			return
		}
		metrics.Read(live)
		if n := live[0].Value.Uint64(); n > 0 {
			debug.SetGCPercent(int(min(100, max(100*least/n, 100/part))))
		}
	}
}
