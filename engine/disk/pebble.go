package disk

import (
	"errors"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// pebbleFormat is fixed, so that the version of a log on disk says all about
// it. In this one a write-ahead log tells a torn end from damage before it.
const pebbleFormat = pebble.FormatTableFormatV6

const (
	memTableBytes = 16 << 20
	walDir        = "wal" // where in the directory the write-ahead logs are
)

func (l *Log) pebbleOptions() *pebble.Options {
	note := listener{&l.fault}
	o := &pebble.Options{
		FS:                 files{l.opts.fs, l},
		Lock:               l.lock,
		WALDir:             pebble.MakeStoreRelativePath(l.opts.fs, walDir),
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
	return o
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
