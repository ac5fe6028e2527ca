package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/wal"
)

// findTorn returns how many bytes the newest write-ahead log has of a write
// that was torn, which Pebble leaves out without a word. Damage in the middle
// is not its concern: Pebble's Open has found that.
func (l *Log) findTorn() (int64, error) {
	logs, err := wal.Scan(wal.Dir{FS: l.opts.fs, Dirname: l.opts.fs.PathJoin(l.dir, walDir)})
	if err != nil || len(logs) == 0 {
		return 0, err
	}
	last := logs[len(logs)-1]
	r := last.OpenForRead()
	defer r.Close()
	for {
		rec, at, err := r.NextRecord()
		if err == nil {
			_, err = io.Copy(io.Discard, rec)
		}
		switch {
		case err == nil:
		case errors.Is(err, record.ErrUnexpectedEOF):
			return l.tornAt(at, uint32(last.Num))
		default:
			return 0, nil
		}
	}
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
