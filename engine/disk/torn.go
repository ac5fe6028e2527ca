package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"
)

// findTorn returns how many bytes the newest write-ahead log has of a write
// that was torn, which Pebble leaves out without a word. Damage in the middle
// is not its concern: Pebble's Open has found that.
func (l *Log) findTorn() (int64, error) {
	logs, err := wal.Scan(wal.Dir{FS: l.opts.fs, Dirname: l.walDir()})
	if err != nil || len(logs) == 0 {
		return 0, err
	}
	last := logs[len(logs)-1]
	if at, err := wholePartOf(last); errors.Is(err, record.ErrUnexpectedEOF) {
		return l.tornAt(at, uint32(last.Num))
	}
	return 0, nil
}

func (l *Log) walDir() string { return l.opts.fs.PathJoin(l.dir, walDir) }

// wholePartOf returns where a write-ahead log ends to be readable, and why. If
// that is where it ended, the error is io.EOF.
func wholePartOf(log wal.LogicalLog) (wal.Offset, error) {
	r := log.OpenForRead()
	defer r.Close()
	for {
		rec, at, err := r.NextRecord()
		if err == nil {
			_, err = io.Copy(io.Discard, rec)
		}
		if err != nil {
			return at, err
		}
	}
}

// cutUnsynced opens a log that could not be opened for cause, if that is what
// becomes of one that was not synced: after a crash of the machine its
// write-ahead log has holes. All from the first one on is cut off.
func (l *Log) cutUnsynced(cause error) (*pebble.DB, error) {
	// The record of the session was synced into a table.
	db, err := l.openForReading(withoutLogs{l.opts.fs, l.walDir()})
	if err != nil {
		return nil, cause
	}
	l.db = db
	err = l.recall()
	l.db = nil
	if err := errors.Join(err, db.Close()); err != nil || !l.last.lost(l.opts.bootID()) {
		return nil, cause
	}
	logs, err := wal.Scan(wal.Dir{FS: l.opts.fs, Dirname: l.walDir()})
	if err != nil {
		return nil, err
	}
	cutting := false
	for _, log := range logs {
		var whole int64
		if !cutting {
			at, err := wholePartOf(log)
			if errors.Is(err, io.EOF) {
				continue
			}
			cutting, whole = true, at.Physical
		}
		_, name := log.SegmentLocation(0)
		n, err := l.truncate(name, whole)
		if err != nil {
			return nil, err
		}
		l.opened.Cut += n
	}
	return l.openForReading(l.opts.fs)
}

// truncate cuts a file to a size, and returns how many bytes it had beyond.
// Nothing of it is left if the size is 0.
func (l *Log) truncate(name string, size int64) (int64, error) {
	files := l.opts.fs
	info, err := files.Stat(name)
	if err != nil {
		return 0, err
	}
	if size == 0 {
		if err := files.Remove(name); err != nil {
			return 0, err
		}
		return info.Size(), syncDir(files, l.walDir())
	}
	from, err := files.Open(name)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	partial := name + ".partial"
	to, err := files.Create(partial, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(to, io.LimitReader(from, size))
	if err := errors.Join(err, to.Sync(), to.Close()); err != nil {
		return 0, err
	}
	if err := files.Rename(partial, name); err != nil {
		return 0, err
	}
	return info.Size() - size, syncDir(files, l.walDir())
}

// A withoutLogs is a file system in which a directory has no write-ahead logs.
type withoutLogs struct {
	vfs.FS
	dir string
}

// List implements vfs.FS.
func (f withoutLogs) List(dir string) ([]string, error) {
	names, err := f.FS.List(dir)
	if dir == f.dir {
		names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, ".log") })
	}
	return names, err
}

// A write-ahead log of Pebble's has blocks of chunks.
const (
	blockSize = 32 << 10
	maxHeader = 19
)

// tornAt counts the bytes from the end of what is whole. The file may go on
// with zeros, since it was made larger than what is written, or with what a
// log that was there before left: its chunks bear another number.
func (l *Log) tornAt(at wal.Offset, number uint32) (int64, error) {
	f, err := l.opts.fs.Open(at.PhysicalFile)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	rest := make([]byte, max(info.Size()-at.Physical, 0))
	if n, err := f.ReadAt(rest, at.Physical); err != nil && err != io.EOF {
		return 0, err
	} else {
		rest = bytes.TrimRight(rest[:n], "\x00")
	}
	// No chunk begins where its header does not fit into the block.
	if left := blockSize - int(at.Physical%blockSize); left < maxHeader && left <= len(rest) && len(bytes.TrimRight(rest[:left], "\x00")) == 0 {
		rest = rest[left:]
	}
	// A header has a checksum of 4 bytes, a size of 2, a kind of 1, and the
	// number of the log of 4.
	if len(rest) >= 11 && binary.LittleEndian.Uint32(rest[7:]) != number {
		return 0, nil
	}
	return int64(len(rest)), nil
}
