package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// Backup makes a copy of the log in a directory that is not there yet, and
// returns when it is on the disk. It holds everything that was acknowledged
// before the call, and may hold some of what was after it. Publishers and
// readers go on meanwhile. Tables are linked where the directory is in the same
// file system, and else copied.
//
// The copy is made under the directory's name with ".partial" after it, so
// what has the name is whole. The first time that the copy is opened it begins a
// new epoch, since the log it was made of goes on giving out sequences.
//
// Errors: engine.ErrUnavailable if the log has stopped, engine.ErrClosed,
// fs.ErrExist, ctx's, or those of the file system. None of them stops the log.
func (l *Log) Backup(ctx context.Context, to string) error {
	if err := l.backup(ctx, to); err != nil {
		return fmt.Errorf("disk: %s: backup to %s: %w", l.dir, to, err)
	}
	return nil
}

func (l *Log) backup(ctx context.Context, to string) error {
	l.reading.RLock()
	defer l.reading.RUnlock()
	switch err := l.fault.get(); {
	case l.isClosed():
		return engine.ErrClosed
	case err != nil && !l.opts.ReadOnly:
		return fmt.Errorf("%w: the log has stopped: %w", engine.ErrUnavailable, err)
	}
	if !l.backups.making.TryLock() {
		return errors.New("another backup is being made")
	}
	defer l.backups.making.Unlock()

	files := l.opts.fs
	to = files.PathJoin(to) // as Pebble will write it
	partial := to + ".partial"
	for _, name := range []string{to, partial} {
		if _, err := files.Stat(name); err == nil {
			return fmt.Errorf("%s: %w", name, fs.ErrExist)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := makeDir(files, files.PathDir(to))
	if err == nil {
		err = l.copyTo(ctx, partial)
	}
	if err == nil {
		err = l.checkCopy(partial)
	}
	if err == nil {
		err = markCopy(files, partial)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = files.Rename(partial, to)
	}
	if err != nil {
		return errors.Join(err, files.RemoveAll(partial))
	}
	return syncDir(files, files.PathDir(to))
}

// copyTo makes a copy that can be opened as a log.
func (l *Log) copyTo(ctx context.Context, dir string) error {
	c := &copying{dir: dir, interrupted: func() error {
		if l.isClosed() {
			return engine.ErrClosed
		}
		return ctx.Err()
	}}
	if l.opts.ReadOnly {
		return l.copyFiles(c)
	}
	l.backups.now.Store(c)
	defer l.backups.now.Store(nil)
	// Flushed, since Pebble may have in a buffer what was committed.
	if err := l.db.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return err
	}
	if err := c.unsynced.Load(); err != nil {
		return *err
	}
	if err := l.fault.get(); err != nil {
		return fmt.Errorf("%w: the log has stopped: %w", engine.ErrUnavailable, err)
	}
	// Pebble puts all into one directory.
	files := l.opts.fs
	wal := files.PathJoin(dir, walDir)
	if err := files.MkdirAll(wal, 0o755); err != nil {
		return err
	}
	names, err := files.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			if err := files.Rename(files.PathJoin(dir, name), files.PathJoin(wal, name)); err != nil {
				return err
			}
		}
	}
	return errors.Join(syncDir(files, wal), syncDir(files, dir))
}

// copyFiles copies the files of a log that is open for reading: nobody writes
// them.
func (l *Log) copyFiles(c *copying) error {
	from, to := l.opts.fs, copyFS{l.opts.fs, c}
	wal := from.PathJoin(c.dir, walDir)
	if err := from.MkdirAll(wal, 0o755); err != nil {
		return err
	}
	for _, sub := range []string{"", walDir} {
		source, target := from.PathJoin(l.dir, sub), from.PathJoin(c.dir, sub)
		names, err := from.List(source)
		if err != nil {
			return err
		}
		for _, name := range names {
			// What is not Pebble's is left out, as are its lock and what it has
			// no more use for.
			path := from.PathJoin(source, name)
			var err error
			switch {
			case strings.HasSuffix(name, ".sst"):
				err = vfs.LinkOrCopy(to, path, from.PathJoin(target, name))
			case strings.HasSuffix(name, ".log"), strings.HasPrefix(name, "MANIFEST-"),
				strings.HasPrefix(name, "OPTIONS-"), strings.HasPrefix(name, "marker."):
				err = vfs.CopyAcrossFS(from, path, to, from.PathJoin(target, name))
			}
			if err != nil {
				return err
			}
		}
	}
	return errors.Join(syncDir(from, wal), syncDir(from, c.dir))
}

// checkCopy makes sure that a copy can be opened.
func (l *Log) checkCopy(dir string) error {
	const little = 1 << 20
	c, err := Open(dir, Options{ReadOnly: true, TailBytes: little, CacheBytes: little, fs: l.opts.fs})
	if err != nil {
		return err
	}
	return c.Close()
}

// copyMark is a file in a backup that was not opened yet. A record in the log
// would have to be written by Pebble, which first writes tables of all that is
// in the write-ahead log, and waits for ever on a disk that is full.
const (
	copyMark     = "BACKUP"
	copyMarkText = "This is a backup. When it is opened it begins a new epoch, and this file goes.\n"
)

func markCopy(files vfs.FS, dir string) error {
	f, err := files.Create(files.PathJoin(dir, copyMark), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(copyMarkText))
	return errors.Join(err, f.Sync(), f.Close(), syncDir(files, dir))
}

// isCopy tells whether the directory is a backup that was not opened yet.
func isCopy(files vfs.FS, dir string) (bool, error) {
	_, err := files.Stat(files.PathJoin(dir, copyMark))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// unmarkCopy is for a copy whose new epoch is on the disk.
func unmarkCopy(files vfs.FS, dir string) error {
	if err := files.Remove(files.PathJoin(dir, copyMark)); err != nil {
		return err
	}
	return syncDir(files, dir)
}

// backups are those of a log, one at a time.
type backups struct {
	making sync.Mutex // held while one is made
	now    atomic.Pointer[copying]
	logs   sync.Map // the write-ahead logs being written, *logFile by name
}

// A copying is a copy that is being made.
type copying struct {
	dir         string
	interrupted func() error // tells why it is to end, nil if it is not
	unsynced    atomic.Pointer[error]
}

// has tells whether a file is one of the copy's, or the directory that it is
// in. What fails there is no fault of the log.
func (b *backups) has(fs vfs.FS, name string) *copying {
	c := b.now.Load()
	if c != nil && (strings.HasPrefix(name, c.dir) || name == fs.PathDir(c.dir)) {
		return c
	}
	return nil
}

// A copyFS is a file system whose new files and directories are a copy's.
type copyFS struct {
	vfs.FS
	c *copying
}

// Create implements vfs.FS.
func (f copyFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.c.interrupted(); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	return &copyFile{file, f.c}, nil
}

// OpenDir implements vfs.FS.
func (f copyFS) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &copyDir{dir, f.c}, nil
}

// A copyDir keeps it from Pebble that a directory could not be synced. Pebble
// would panic.
type copyDir struct {
	vfs.File
	c *copying
}

// Sync implements vfs.File.
func (d *copyDir) Sync() error {
	if err := d.File.Sync(); err != nil {
		d.c.unsynced.Store(&err)
	}
	return nil
}

// A copyFile is a file of a copy. Large ones take a while.
type copyFile struct {
	vfs.File
	c *copying
}

// Write implements vfs.File.
func (f *copyFile) Write(p []byte) (int, error) {
	if err := f.c.interrupted(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

// A wholePart is the part of a write-ahead log that is written. Behind it the
// file may go on with anything, and be written while it is read: then it would
// have a hole.
type wholePart struct {
	vfs.File
	left int64
}

// Read implements vfs.File.
func (f *wholePart) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	n, err := f.File.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, err
}
