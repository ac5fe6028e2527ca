// Package crashtest has what tests of crashes share: how many rounds they go,
// and random numbers that can be had again, which script/crash sets both; and
// publishers and subscribers that note what they see, and a ledger that it is
// compared with.
package crashtest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// Patience is for what happens at once unless something is wrong.
const Patience = 2 * time.Minute

// Rounds returns how many rounds a test goes: HALLEY_CRASH_ROUNDS if that is
// set, else n, or few with -short.
func Rounds(t *testing.T, n, few int) int {
	t.Helper()
	if s := os.Getenv("HALLEY_CRASH_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("HALLEY_CRASH_ROUNDS is %q, not a number of rounds", s)
		}
		return n
	}
	if testing.Short() {
		return few
	}
	return n
}

// Seeded returns random numbers whose seed is in the test's log, or is
// HALLEY_CRASH_SEED.
func Seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("HALLEY_CRASH_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("HALLEY_CRASH_SEED: %v", err)
		}
	}
	t.Logf("HALLEY_CRASH_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
