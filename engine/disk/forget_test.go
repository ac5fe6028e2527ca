package disk

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestForgottenPattern removes an old message of a pattern whose record was
// dropped. The new record says less than what was removed before.
func TestForgottenPattern(t *testing.T) {
	l := reopen(t, "log", Options{fs: vfs.NewMem(), TailBytes: 1, maxTrims: 4, delay: 1, Rules: []engine.RetentionRule{
		{Pattern: "old", Retention: engine.Retention{}}, {Pattern: "**", Retention: engine.Retention{Count: 1}},
	}})
	defer l.Close()
	settle := func(floor bool) {
		t.Helper()
		for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
			var s state
			b, err := l.get(stateKey)
			if err != nil || !s.decode(b) {
				t.Fatalf("state %x, %v", b, err)
			}
			if s.messages == 3 && (!floor || s.floor >= 21 && s.trims == 0) {
				return
			}
		}
		t.Fatalf("%+v", l.Stats())
	}
	publish(t, l, "old", 1)    // 1 is kept, and the floor cannot be what is older than all
	publish(t, l, "b/1", 1)    // 2
	publish(t, l, "a/x/y", 20) // 3 to 22, of which 22 is kept; the records are dropped
	settle(true)
	publish(t, l, "b/1", 1) // 23, and 2 goes
	settle(false)
	page, err := l.Read(t.Context(), engine.Query{Channels: []string{"**"}, After: l.cursor(10)})
	if err != nil || !page.Gap {
		t.Errorf("11 to 21 were removed: gap %v, %v, %d messages", page.Gap, err, len(page.Messages))
	}
}
