package disk

import (
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestImport wants messages to keep their times, as far as the log's time does
// not go back, and nothing stored of a batch with a fault.
func TestImport(t *testing.T) {
	l := reopen(t, "log", Options{fs: vfs.NewMem()})
	defer l.Close()
	message := func(channel string, time int64) engine.Message {
		return engine.Message{Channel: channel, Time: time, ContentType: "text/plain", Data: []byte(channel)}
	}
	for _, batch := range [][]engine.Message{
		{message("a", 1000), message("b", 2000), message("a", 1500)},
		{message("b", 500), message("a", 2001)},
	} {
		if err := l.Import(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, "Import of a fault", l.Import(t.Context(), []engine.Message{message("a", 3000), message("a//b", 3000)}), engine.ErrInvalid)
	now := publish(t, l, "a", 1).Time
	var times []int64
	for _, m := range readAll(t, l, "**") {
		times = append(times, m.Time)
	}
	if want := []int64{1000, 2000, 2000, 2000, 2001, now}; !slices.Equal(times, want) {
		t.Errorf("times are %v, want %v", times, want)
	}
	if now < 1e12 {
		t.Errorf("a message published afterwards is of %d", now)
	}
	if _, err := l.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
