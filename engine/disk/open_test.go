package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestOpen opens what cannot be opened.
func TestOpen(t *testing.T) {
	mem := vfs.NewMem()
	opts := Options{fs: mem}
	l, err := Open("a/b/log", opts)
	if err != nil {
		t.Fatalf("Open in a directory that is missing: %v", err)
	}
	_, err = Open("a/b/log", opts)
	wantError(t, "Open while it is open", err, ErrInUse)
	if err == nil || !strings.Contains(err.Error(), "disk: a/b/log: ") {
		t.Errorf("the error does not name the directory: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	edit(t, mem, "a/b/log", func(db *pebble.DB) error { return db.Set(formatKey, []byte{0, 0, 0, 9}, pebble.Sync) })
	_, err = Open("a/b/log", opts)
	wantError(t, "Open of another version", err, ErrFormat)
	if err == nil || !strings.Contains(err.Error(), "version 9") {
		t.Errorf("the error does not name the version: %v", err)
	}
	edit(t, mem, "other", func(db *pebble.DB) error { return db.Set([]byte("k"), nil, pebble.Sync) })
	_, err = Open("other", opts)
	wantError(t, "Open of another store", err, ErrFormat)

	for field, bad := range map[string]Options{
		"Fsync":            {Fsync: 9},
		"GroupWait":        {GroupWait: -1},
		"KeyWindow":        {KeyWindow: -1},
		"TailBytes":        {TailBytes: -1},
		"CacheBytes":       {CacheBytes: -1},
		"Retention":        {Retention: engine.Retention{Count: -1}},
		"Rules[0].Pattern": {Rules: []engine.RetentionRule{{Pattern: "a*"}}},
	} {
		_, err := Open("new", bad)
		wantError(t, "Open with a bad "+field, err, engine.ErrInvalid)
		if err == nil || !strings.Contains(err.Error(), "Options."+field+":") {
			t.Errorf("the error does not name %s: %v", field, err)
		}
	}
}

// edit changes what a closed log holds, behind its back.
func edit(t *testing.T, fs vfs.FS, dir string, f func(db *pebble.DB) error) {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{
		FS: fs, WALDir: pebble.MakeStoreRelativePath(fs, walDir), FormatMajorVersion: pebbleFormat, Logger: listener{},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f(db), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestMoved opens a log in another place, as after a backup is restored.
func TestMoved(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	l, err := Open(from, Options{})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, l, "a", 10)
	end := l.End()
	if err := errors.Join(l.Close(), os.Rename(from, to)); err != nil {
		t.Fatal(err)
	}
	l, err = Open(to, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.End() != end || len(readAll(t, l, "a")) != 10 {
		t.Errorf("the log ends at %v, want %v", l.End(), end)
	}
}
