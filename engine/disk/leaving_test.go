package disk

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestReadWhileRemoved reads from the disk when retention has told the disk and
// not the tail yet.
func TestReadWhileRemoved(t *testing.T) {
	opts := Options{fs: vfs.NewMem(), Rules: []engine.RetentionRule{{Pattern: "a/x", Retention: engine.Retention{Count: 1}}}}
	l, err := Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	publish(t, l, "a/x", 1)
	publish(t, l, "a/y", 1)
	publish(t, l, "a/x", 3)
	publish(t, l, "b/x", 1)
	for begin := time.Now(); l.Stats().Messages != 3; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("nothing is removed")
		}
	}
	time.Sleep(50 * time.Millisecond)
	// As it was before tail.remove.
	l.tail.mu.Lock()
	for s := l.tail.first; s < l.tail.next; s++ {
		l.tail.at(s).removed = false
	}
	if l.tail.leaving != nil {
		t.Error("some are leaving still")
	}
	l.tail.leaving = []uint64{1, 3, 4}
	l.tail.mu.Unlock()
	q := engine.Query{Channels: []string{"a/*"}, Limit: 1}
	page, err := l.readDisk(t.Context(), &q)
	if err != nil {
		t.Fatal(err)
	}
	// 2 and 5 are kept; removed were 1, 3 and 4.
	if len(page.Messages) != 1 || page.Messages[0].ID.Seq != 2 || !page.More || page.Start.Seq != 1 {
		t.Errorf("%+v", page)
	}
	q = engine.Query{Channels: []string{"a/*"}, Limit: 1, After: l.cursor(2), Until: 4}
	page, err = l.readDisk(t.Context(), &q)
	if err != nil || len(page.Messages) != 0 || page.More || !page.Gap {
		t.Errorf("%+v %v", page, err)
	}
	q = engine.Query{Channels: []string{"a/*"}, Limit: 1, Until: 4}
	page, err = l.readDisk(t.Context(), &q)
	if err != nil || len(page.Messages) != 1 || page.More {
		t.Errorf("until 4: More %v, %+v %v", page.More, page, err)
	}
	q = engine.Query{Channels: []string{"a/*"}, Limit: 2, Backward: true}
	page, err = l.readDisk(t.Context(), &q)
	if err != nil || len(page.Messages) != 2 || page.More {
		t.Errorf("backward: More %v, %+v %v", page.More, page, err)
	}
}
