package disk

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestTorn cuts the write-ahead log at many places, as a crash does in the
// middle of a write, and flips bits in it. A log that is cut opens with the
// batches before. One that is damaged before its last blocks, of 32 KiB each,
// is not taken for one that is cut.
func TestTorn(t *testing.T) {
	mem := vfs.NewCrashableMem()
	l, err := Open("log", Options{fs: mem})
	if err != nil {
		t.Fatal(err)
	}
	const batches, size = 20, 3
	for i := range batches {
		var b engine.Batch
		for j := range size {
			b.Messages = append(b.Messages, engine.Message{Channel: "a", Data: bytes.Repeat(fmt.Append(nil, i, " ", j, "."), 600)})
		}
		if _, err := l.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	l.Close()
	dir := t.TempDir()
	if _, err := vfs.Clone(crashed, vfs.Default, "log", dir); err != nil {
		t.Fatal(err)
	}
	logs, err := filepath.Glob(filepath.Join(dir, walDir, "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("logs %v, %v", logs, err)
	}
	newest := logs[len(logs)-1] // An older one is kept to be used again.
	whole, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	reported := 0 // openings that told of a torn write
	// open returns how many messages there are, with what has been made of the
	// write-ahead log.
	open := func(wal []byte) (uint64, error) {
		t.Helper()
		if err := os.WriteFile(newest, wal, 0o600); err != nil {
			t.Fatal(err)
		}
		fs := vfs.NewMem()
		if _, err := vfs.Clone(vfs.Default, fs, dir, "log"); err != nil {
			t.Fatal(err)
		}
		l, err := Open("log", Options{fs: fs})
		if err != nil {
			return 0, err
		}
		defer l.Close()
		end := l.End().Seq
		if found := l.Opened(); found.New || !found.Unclean || found.NewEpoch != "" {
			t.Errorf("Opened after a crash: %+v", found)
		} else if found.Cut > 0 {
			reported++
		}
		if n := len(readAll(t, l, "a")); uint64(n) != end || end%size != 0 {
			t.Errorf("a torn log has %d messages, its end is %d", n, end)
		}
		return end, nil
	}
	last := uint64(0)
	for cut := 0; cut <= len(whole); cut += len(whole) / 97 {
		n, err := open(whole[:cut])
		if err != nil {
			// Without its first record it is not a log that was ever acknowledged.
			wantError(t, fmt.Sprintf("Open, cut at %d of %d", cut, len(whole)), err, ErrCorrupt)
			continue
		}
		if n < last {
			t.Errorf("cut at %d: %d messages, cut before that %d", cut, n, last)
		}
		last = n
	}
	// Some cuts are between batches.
	if reported < 60 {
		t.Errorf("only %d openings told of a torn write", reported)
	}
	reported = 0
	if n, err := open(whole); n != batches*size || err != nil {
		t.Errorf("the whole log has %d messages, %v, want %d", n, err, batches*size)
	}
	if reported != 0 {
		t.Error("opening a whole log told of a torn write")
	}
	for at := 100; at < len(whole)-3*32<<10; at += len(whole) / 31 {
		wal := bytes.Clone(whole)
		wal[at] ^= 0x10
		n, err := open(wal)
		if err == nil && n == batches*size {
			continue // in what is padding
		}
		wantError(t, fmt.Sprintf("Open, a bit at %d of %d flipped, %d messages", at, len(whole), n), err, ErrCorrupt)
	}
}
