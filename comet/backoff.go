package comet

import (
	"context"
	"math/rand/v2"
	"time"
)

// A Backoff says how long to wait before trying again: a random time between
// zero and a bound that starts at Min and doubles up to Max ("full jitter"),
// so that the clients of a server that went away do not come back at once.
type Backoff struct {
	// Min is the first bound; 0 means a second. A server that streams sse may
	// raise it (`retry:`).
	Min time.Duration
	// Max is the highest bound; 0 means 30 seconds.
	Max time.Duration
}

// delay returns the wait before attempt n, from 0, where the first bound is at
// least floor.
func (b Backoff) delay(n int, floor time.Duration) time.Duration {
	lowest, highest := b.Min, b.Max
	if lowest <= 0 {
		lowest = time.Second
	}
	if highest <= 0 {
		highest = 30 * time.Second
	}
	bound := min(max(lowest, floor), highest)
	for ; n > 0 && bound < highest; n-- {
		bound = min(2*bound, highest)
	}
	return rand.N(bound) + 1 // #nosec G404 -- no secret: it parts clients
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
