package conformance

import (
	"testing"
	"time"
)

// SetPatience changes how long the suite waits, until t ends.
func SetPatience(t *testing.T, d time.Duration) {
	before := patience
	patience = d
	t.Cleanup(func() { patience = before })
}
