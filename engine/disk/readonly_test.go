package disk

import (
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// crashed returns what a crash leaves of a log in memory.
func crashed(t *testing.T, l *Log, mem *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	c := mem.CrashClone(vfs.CrashCloneCfg{})
	l.Close()
	return c
}

// TestReadOnlyDamage opens a log for reading whose newest messages are damaged,
// and in no list yet: the others can be saved.
func TestReadOnlyDamage(t *testing.T) {
	mem := vfs.NewCrashableMem()
	opts := Options{fs: mem, group: 10}
	l, err := Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, l, "a", 15)
	mem = crashed(t, l, mem)
	edit(t, mem, "log", func(db *pebble.DB) error { return db.Set(messageKey(nil, 13), []byte("x"), pebble.Sync) })
	opts.fs, opts.ReadOnly, opts.TailBytes = mem, true, 1
	l, err = Open("log", opts)
	if err != nil {
		t.Fatalf("Open for reading: %v", err)
	}
	defer l.Close()
	page, err := l.Read(t.Context(), engine.Query{Channels: []string{"**"}, Limit: 12})
	if err != nil || len(page.Messages) != 12 || !page.More {
		t.Errorf("Read before what is damaged: %d messages, %v", len(page.Messages), err)
	}
	page, err = l.Read(t.Context(), engine.Query{Channels: []string{"**"}, Limit: 2, Backward: true})
	if err != nil || len(page.Messages) != 2 || !page.More {
		t.Errorf("Read after what is damaged: %d messages, %v", len(page.Messages), err)
	}
	for _, p := range []string{"**", "a", "*"} {
		_, err = l.Read(t.Context(), engine.Query{Channels: []string{p}})
		wantError(t, "Read of "+p, err, ErrCorrupt, engine.ErrUnavailable)
	}
}

// TestReadOnlyTail wants Tail to go on from End.
func TestReadOnlyTail(t *testing.T) {
	mem := vfs.NewCrashableMem()
	opts := Options{fs: mem}
	l, err := Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, l, "a", 15)
	opts.fs = crashed(t, l, mem)
	opts.ReadOnly = true
	l, err = Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, ok := l.Tail(l.End(), make([]*engine.Message, 0, 4)); !ok || len(got) != 0 {
		t.Errorf("Tail from End: %d, %v", len(got), ok)
	}
}

// TestReadOnlyFormat wants the format that the files have.
func TestReadOnlyFormat(t *testing.T) {
	mem := vfs.NewMem()
	if _, err := vfs.Clone(vfs.Default, mem, "testdata/format-1", "log"); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, formatVersion} {
		l, err := Open("log", Options{fs: mem, ReadOnly: i == 0})
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Stats().Format; got != want {
			t.Errorf("format %d, want %d", got, want)
		}
		l.Close()
	}
}
