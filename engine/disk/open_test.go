package disk

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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

// TestReadOnly wants a log that is open for reading to stay as it was, to the
// byte.
func TestReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	_, err := Open(dir, Options{ReadOnly: true})
	wantError(t, "Open of what is not there", err, fs.ErrNotExist)
	if _, err := os.Stat(dir); err == nil {
		t.Error("Open for reading made the directory")
	}
	l, err := Open(dir, Options{Rules: []engine.RetentionRule{{Pattern: "few", Retention: engine.Retention{Count: 1}}}})
	if err != nil {
		t.Fatal(err)
	}
	if found := l.Opened(); found != (Opened{New: true}) {
		t.Errorf("Opened of a new log: %+v", found)
	}
	// What is in no list yet has holes.
	for range 50 {
		publish(t, l, "a", 2)
		publish(t, l, "few", 1)
	}
	for begin := time.Now(); l.Stats().Messages != 101; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("nothing is removed")
		}
	}
	end := l.End()
	// As if it had been killed. What retention wrote is with the system.
	killed := filepath.Join(t.TempDir(), "log")
	if err := errors.Join(l.db.LogData(nil, nil), os.CopyFS(killed, os.DirFS(dir)), l.Close()); err != nil {
		t.Fatal(err)
	}
	dir = killed
	before := contents(t, dir)
	l, err = Open(dir, Options{ReadOnly: true, TailBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Options{})
	wantError(t, "Open while it is open for reading", err, ErrInUse)
	_, err = l.Append(t.Context(), engine.Batch{Messages: []engine.Message{{Channel: "a"}}})
	wantError(t, "Append", err, engine.ErrUnavailable)
	if n := len(readAll(t, l, "a")); n != 100 || len(readAll(t, l, "*")) != 101 || len(readAll(t, l, "few")) != 1 || l.End() != end || l.Opened() != (Opened{Unclean: true}) {
		t.Errorf("%d messages, end %v, want %v; %+v", n, l.End(), end, l.Opened())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(contents(t, dir), before) {
		t.Error("opening for reading changed files")
	}
}

// contents returns what the files below a directory hold, by name.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestNewEpoch wants another epoch where sequences could be given out twice: in
// a copy of the directory, and where it is asked for.
func TestNewEpoch(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	open := func(dir string, opts Options) (epoch string, found Opened) {
		t.Helper()
		l, err := Open(dir, opts)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		publish(t, l, "a", 1)
		return l.End().Epoch, l.Opened()
	}
	first, _ := open(from, Options{})
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if epoch, found := open(from, Options{}); epoch != first || found != (Opened{}) {
		t.Errorf("opened again: epoch %s, was %s; %+v", epoch, first, found)
	}
	if dirIdentity(dir) == "" {
		t.Log("copies cannot be told from their originals here")
	} else if epoch, found := open(to, Options{}); epoch == first || found.NewEpoch == "" {
		t.Errorf("a copy has the epoch %s of its original; %+v", epoch, found)
	}
	if epoch, found := open(from, Options{NewEpoch: true}); epoch == first || found.NewEpoch == "" {
		t.Errorf("with NewEpoch: epoch %s, was %s; %+v", epoch, first, found)
	}
}

// TestMoved opens a log in another place, which is the same log.
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
