package nats

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// Those who wait for a position ask again and again, also where it never comes,
// and leave without a word. Each is told once.
func TestClaimsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each, rounds = 100, 50
		var q claims
		told := make([]int, each*rounds)
		most := 0
		for n := range told {
			if n%each == 0 {
				time.Sleep(waitTime / 2)
			}
			q.mu.Lock()
			old := q.wait(uint64(n), func() { told[n]++ })
			most = max(most, len(q.waiting))
			q.mu.Unlock()
			for _, c := range old {
				c.known()
			}
		}
		if allowed := each * 6; most > allowed {
			t.Errorf("%d wait at once, want %d at most", most, allowed)
		}
		q.tell(math.MaxUint64)
		for n, times := range told {
			if times != 1 {
				t.Fatalf("claim %d was told %d times", n, times)
			}
		}
	})
}
