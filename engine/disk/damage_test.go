package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestDamage changes what was stored, in every way that the layout has a check
// for. Opening or reading finds it, and the log stops.
func TestDamage(t *testing.T) {
	set := func(key, value []byte) func(*pebble.DB) error {
		return func(db *pebble.DB) error { return db.Set(key, value, pebble.Sync) }
	}
	change := func(key []byte, f func([]byte) []byte) func(*pebble.DB) error {
		return func(db *pebble.DB) error {
			v, closer, err := db.Get(key)
			if err != nil {
				return err
			}
			v = f(bytes.Clone(v))
			return errors.Join(closer.Close(), db.Set(key, v, pebble.Sync))
		}
	}
	for name, damage := range map[string]func(*pebble.DB) error{
		"a bit of a message":           change(messageKey(nil, 3), func(v []byte) []byte { v[len(v)/2] ^= 1; return v }),
		"a short message":              change(messageKey(nil, 3), func(v []byte) []byte { return v[:10] }),
		"a message in another's place": change(messageKey(nil, 4), func(v []byte) []byte { v[len(v)-5]++; return v }),
		"a missing message":            func(db *pebble.DB) error { return db.Delete(messageKey(nil, 3), pebble.Sync) },
		"a trim record":                set(trimKey(nil, "a", engine.Exact), []byte("x")),
		"a channel's entry":            set(appendUint64(listPrefix(nil, "a", engine.Exact), 3), nil),
		"the state":                    set(stateKey, []byte("x")),
		"the epoch":                    set(epochKey, []byte("UPPER")),
		"the session":                  set(sessionKey, nil),
	} {
		t.Run(name, func(t *testing.T) { testDamage(t, damage) })
	}
}

func testDamage(t *testing.T, damage func(*pebble.DB) error) {
	mem := vfs.NewMem()
	// Nothing stays in memory.
	opts := Options{fs: mem, TailBytes: 1, Retention: engine.Retention{Count: 7}}
	l, err := Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, l, "a", 9)
	for begin := time.Now(); len(readAll(t, l, "a")) > 7; publish(t, l, "b", 1) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("nothing is removed")
		}
	}
	l.Close()
	edit(t, mem, "log", damage)

	l, err = Open("log", opts)
	if err != nil {
		wantError(t, "Open", err, ErrCorrupt)
		return
	}
	defer l.Close()
	page, err := l.Read(context.Background(), engine.Query{Channels: []string{"a"}})
	if err == nil {
		for i, m := range page.Messages {
			if m.ID.Seq != uint64(i+3) || string(m.Data) != string(rune('0'+i+2)) || m.Channel != "a" {
				t.Errorf("message %d is %v, %s %q", i, m.ID, m.Channel, m.Data)
			}
		}
		// A channel's entries are for its bounds.
		_, err = l.Append(context.Background(), engine.Batch{Messages: []engine.Message{{Channel: "a"}}})
	}
	wantError(t, "what is damaged", err, ErrCorrupt, engine.ErrUnavailable)
	_, err = l.Append(context.Background(), engine.Batch{Messages: []engine.Message{{Channel: "b"}}})
	wantError(t, "Append afterwards", err, engine.ErrUnavailable)
}

// TestDamagedFile flips bits in Pebble's tables, and wants what is read to be
// right or an error.
func TestDamagedFile(t *testing.T) {
	mem := vfs.NewMem()
	opts := Options{TailBytes: 1, fs: mem}
	l, err := Open("log", opts)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, l, "a", 300)
	if err := errors.Join(l.db.Flush(), l.Close()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := vfs.Clone(mem, vfs.Default, "log", dir); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	found := 0
	for _, table := range tables {
		whole, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		for at := 10; at < len(whole); at += len(whole)/12 + 1 {
			broken := bytes.Clone(whole)
			broken[at] ^= 0x40
			if err := os.WriteFile(table, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			if wrong(t, dir, opts) {
				found++
			}
		}
		if err := os.WriteFile(table, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if found == 0 {
		t.Error("no damage was found")
	}
	if wrong(t, dir, opts) {
		t.Error("the whole file is taken for damaged")
	}
}

// wrong tells whether opening or reading finds damage.
func wrong(t *testing.T, dir string, opts Options) bool {
	t.Helper()
	fs := vfs.NewMem()
	if _, err := vfs.Clone(vfs.Default, fs, dir, "log"); err != nil {
		t.Fatal(err)
	}
	opts.fs = fs
	l, err := Open("log", opts)
	if err != nil {
		wantError(t, "Open", err, ErrCorrupt)
		return true
	}
	defer l.Close()
	for _, q := range []engine.Query{{Channels: []string{"a"}}, {Channels: []string{"**"}}, {Channels: []string{"*"}, Backward: true}} {
		page, err := l.Read(context.Background(), q)
		if err != nil {
			wantError(t, "Read", err, ErrCorrupt, engine.ErrUnavailable)
			return true
		}
		if len(page.Messages) != 300 {
			t.Errorf("Read %v of a damaged log: %d messages and no error", q.Channels, len(page.Messages))
		}
	}
	return false
}
