package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/crashtest"
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

// TestTornLast cuts the power at random moments, and has the disk tear what was
// being written to the write-ahead log: what followed the last sync is cut at
// any byte, has sectors that were written and others that were not, or ends in
// zeros or garbage. See [TestCrash] for the number of rounds.
func TestTornLast(t *testing.T) {
	for _, mode := range []Fsync{Group, Always, Never} {
		t.Run(mode.String(), func(t *testing.T) {
			c := newCrasher(t, Options{Fsync: mode})
			c.run(crashtest.Rounds(t, 8, 2), c.tear)
		})
	}
}

// tear returns what is on the disk after a power cut that tears the newest
// write-ahead log.
func (c *crasher) tear(l *Log) *vfs.MemFS {
	var name string
	if c.opts.Fsync == Never {
		// It is not synced until it is complete.
		name = newestLog(c.T, c.fs)
	} else {
		// The power goes when something was written, and before it is synced.
		held, release := c.syncs.hold()
		defer release()
		name = await(l, held)
	}
	crashed := c.fs.CrashClone(vfs.CrashCloneCfg{})
	if name == "" {
		return crashed
	}
	before := readFile(c.T, crashed, name)
	after := readFile(c.T, c.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: c.rand}), name)
	if before == nil || after == nil {
		return crashed // it was never synced that there is one, or it is complete by now
	}
	// What was not synced begins where the two differ. A log that is used again
	// has something else there, of its first use.
	same := 0
	for same < min(len(before), len(after)) && before[same] == after[same] {
		same++
	}
	writeFile(c.T, crashed, name, c.tearTail(before, after, same))
	return crashed
}

// tearTail returns a file that was synced up to a length with something of
// what was written after that.
func (c *crasher) tearTail(before, after []byte, synced int) []byte {
	cut := synced + c.rand.IntN(len(after)-synced+1)
	torn := bytes.Clone(after[:cut])
	garbage := func(n int) {
		for range n {
			torn = append(torn, byte(c.rand.Uint32()))
		}
	}
	switch c.rand.IntN(5) {
	case 0:
	case 1: // what was in that place before
		torn = append(torn, before[min(cut, len(before)):]...)
	case 2: // the file was made longer first
		torn = append(torn, make([]byte, c.rand.IntN(100<<10))...)
	case 3:
		garbage(c.rand.IntN(100 << 10))
	case 4: // sectors are written in any order
		size := 512 << c.rand.IntN(7)
		torn = bytes.Clone(after)
		for from := cut; from < len(torn); {
			to := min((from/size+1)*size, len(torn))
			switch c.rand.IntN(4) {
			case 0:
				clear(torn[from:to])
				if from < len(before) {
					copy(torn[from:to], before[from:])
				}
			case 1:
				sector := torn[from:from]
				for range to - from {
					sector = append(sector, byte(c.rand.Uint32()))
				}
			}
			from = to
		}
	}
	return torn
}

// newestLog returns the write-ahead log that was last begun, "" if there is
// none.
func newestLog(t *testing.T, files vfs.FS) string {
	t.Helper()
	dir := files.PathJoin("log", walDir)
	names, err := files.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".log") })
	if len(names) == 0 {
		return ""
	}
	return files.PathJoin(dir, slices.Max(names))
}

// readFile returns nil where there is no such file.
func readFile(t *testing.T, files vfs.FS, name string) []byte {
	t.Helper()
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeFile replaces a file, and syncs it.
func writeFile(t *testing.T, files vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := files.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close(), syncDir(files, files.PathDir(name))); err != nil {
		t.Fatal(err)
	}
}
