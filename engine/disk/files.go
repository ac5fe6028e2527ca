package disk

import (
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// files is the file system as Pebble gets it. It bends three things.
//
// An error of the write-ahead log never reaches Pebble, which would panic, at
// one place with a mutex in a state that ends the process. It sets the fault
// instead, which makes the commit in progress fail, and what goes to that log
// from then on is dropped: nothing of it was or will be acknowledged.
//
// Once there is a fault, no file is created. Pebble tries again at once and for
// ever what fails in the background, so the refusal takes a while.
//
// With Never, the write-ahead log is not synced while it is written. A commit
// without sync would leave the batch in a buffer of this process, and a killed
// process would lose it; a commit with sync on such a file returns when the
// operating system has it. A log that is complete is synced, since Pebble takes
// one that is torn for damage where another follows.
type files struct {
	vfs.FS
	log *Log
}

func (f files) Unwrap() vfs.FS { return f.FS }

// Create implements vfs.FS.
func (f files) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(name, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

// ReuseForWrite implements vfs.FS.
func (f files) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(name, func() (vfs.File, error) { return f.FS.ReuseForWrite(old, name, c) })
}

// OpenDir implements vfs.FS.
func (f files) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil || f.PathBase(name) != walDir {
		return dir, err
	}
	return &logDir{dir, f.log}, nil
}

func (f files) create(name string, create func() (vfs.File, error)) (vfs.File, error) {
	isLog := strings.HasSuffix(name, ".log")
	if err := f.log.fault.get(); err != nil && !isLog {
		select {
		case <-time.After(time.Second):
		case <-f.log.done:
		}
		return nil, err
	} else if err != nil {
		return &logFile{vfs.NewMemFile(nil), f.log}, nil
	}
	file, err := create()
	if !isLog {
		return file, err
	}
	if err != nil {
		f.log.fault.set(err)
		file = vfs.NewMemFile(nil)
	}
	return &logFile{file, f.log}, nil
}

// A logDir is the directory of the write-ahead logs.
type logDir struct {
	vfs.File
	log *Log
}

// Sync implements vfs.File.
func (d *logDir) Sync() error {
	if err := d.File.Sync(); err != nil {
		d.log.fault.set(err)
	}
	return nil
}

// A logFile is a write-ahead log that is being written.
type logFile struct {
	vfs.File
	log *Log
}

// try does something with the file, unless the log has stopped.
func (f *logFile) try(do func() error) {
	if f.log.fault.get() != nil {
		return
	}
	if err := do(); err != nil {
		f.log.fault.set(err)
	}
}

// Write implements vfs.File.
func (f *logFile) Write(p []byte) (int, error) {
	f.try(func() error { _, err := f.File.Write(p); return err })
	return len(p), nil
}

// Preallocate implements vfs.File.
func (f *logFile) Preallocate(offset, length int64) error {
	f.try(func() error { return f.File.Preallocate(offset, length) })
	return nil
}

// Sync implements vfs.File.
func (f *logFile) Sync() error {
	if f.log.opts.Fsync != Never {
		f.try(f.File.Sync)
	}
	return nil
}

// SyncData implements vfs.File.
func (f *logFile) SyncData() error {
	if f.log.opts.Fsync != Never {
		f.try(f.File.SyncData)
	}
	return nil
}

// SyncTo implements vfs.File.
func (f *logFile) SyncTo(length int64) (full bool, err error) {
	if f.log.opts.Fsync != Never {
		f.try(func() error { full, err = f.File.SyncTo(length); return err })
	}
	return full, nil
}

// Stat implements vfs.File. Pebble asks for the size of a log that it uses
// again.
func (f *logFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		f.log.fault.set(err)
		return vfs.NewMemFile(nil).Stat()
	}
	return info, nil
}

// Close implements vfs.File.
func (f *logFile) Close() error {
	f.try(f.File.Sync)
	if err := f.File.Close(); err != nil {
		f.log.fault.set(err)
	}
	return nil
}
