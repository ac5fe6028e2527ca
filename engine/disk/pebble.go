package disk

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// pebbleFormat is fixed, so that the version of a log on disk says all about
// it. In this one a write-ahead log tells a torn end from damage before it.
const pebbleFormat = pebble.FormatTableFormatV6

const memTableBytes = 16 << 20

func (l *Log) pebbleOptions() *pebble.Options {
	note := listener{&l.fault}
	o := &pebble.Options{
		FS:                 l.opts.fs,
		Lock:               l.lock,
		FormatMajorVersion: pebbleFormat,
		CacheSize:          l.opts.CacheBytes,
		MemTableSize:       memTableBytes,
		Logger:             note,
		EventListener: &pebble.EventListener{
			BackgroundError: note.backgroundError,
			DataCorruption:  note.corruption,
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	if l.opts.Fsync == Never {
		o.FS = unsynced{o.FS}
	}
	return o
}

// unsynced is a file system that does not sync write-ahead logs while they are
// written. A commit without sync would leave the batch in a buffer of this
// process, and a killed process would lose it; a commit with sync on this file
// system returns when the operating system has it. A log that is complete is
// synced, as Pebble takes an older one that is torn for damage.
type unsynced struct{ vfs.FS }

func (fs unsynced) Unwrap() vfs.FS { return fs.FS }

func (fs unsynced) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return unsyncedLog(name, f, err)
}

func (fs unsynced) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.ReuseForWrite(old, name, c)
	return unsyncedLog(name, f, err)
}

func unsyncedLog(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return unsyncedFile{f}, nil
}

type unsyncedFile struct{ vfs.File }

func (f unsyncedFile) Sync() error                { return nil }
func (f unsyncedFile) SyncData() error            { return nil }
func (f unsyncedFile) SyncTo(int64) (bool, error) { return true, nil }

func (f unsyncedFile) Close() error {
	err := f.File.Sync()
	if e := f.File.Close(); err == nil {
		err = e
	}
	return err
}

// makeDir makes a directory with its parents, and syncs the entry of each in
// the one above.
func makeDir(files vfs.FS, dir string) error {
	var missing []string
	for d := dir; ; d = files.PathDir(d) {
		if _, err := files.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, d)
		if d == files.PathDir(d) {
			break
		}
	}
	if err := files.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, d := range missing {
		if err := syncDir(files, files.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}
