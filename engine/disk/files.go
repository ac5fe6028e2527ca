package disk

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// files is the file system as Pebble gets it. It bends three things, for all
// but the files of a backup (see backups).
//
// An error of the write-ahead log never reaches Pebble, which would panic, at
// one place with a mutex in a state that ends the process. It sets the fault
// instead, which makes the commit in progress fail, and what goes to that log
// from then on is dropped: nothing of it was or will be acknowledged. The same
// holds for the sync of a directory, after which Pebble panics too.
//
// Once there is a fault, no file is created or removed, and the manifest is not
// written: what Pebble takes for stored may not be, and what it takes for
// replaced may be needed. Pebble tries again at once and for ever what fails in
// the background, so the refusal takes a while.
//
// With Never, the write-ahead log is not synced while it is written. A commit
// without sync would leave the batch in a buffer of this process, and a killed
// process would lose it; a commit with sync on such a file returns when the
// operating system has it. A replica does that once a second. A log that is
// complete is synced, since Pebble takes one that is torn for damage where another
// follows.
type files struct {
	vfs.FS
	log *Log
}

func (f files) Unwrap() vfs.FS { return f.FS }

// Open implements vfs.FS. Of a write-ahead log that is being written, which a
// backup reads, it opens what is written by now.
func (f files) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.Open(name, opts...)
	if w, ok := f.log.backups.logs.Load(name); ok && err == nil {
		return &wholePart{file, w.(*logFile).written.Load()}, nil
	}
	return file, err
}

// Create implements vfs.FS.
func (f files) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if copying := f.log.backups.has(f.FS, name); copying != nil {
		return copyFS{f.FS, copying}.Create(name, c)
	}
	return f.create(name, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

// ReuseForWrite implements vfs.FS.
func (f files) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(name, func() (vfs.File, error) { return f.FS.ReuseForWrite(old, name, c) })
}

// OpenDir implements vfs.FS.
func (f files) OpenDir(name string) (vfs.File, error) {
	if copying := f.log.backups.has(f.FS, name); copying != nil {
		return copyFS{f.FS, copying}.OpenDir(name)
	}
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &directory{dir, f.log}, nil
}

// Remove implements vfs.FS. What Pebble takes for replaced may not be.
func (f files) Remove(name string) error {
	if err := f.log.fault.get(); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f files) create(name string, create func() (vfs.File, error)) (vfs.File, error) {
	isLog := strings.HasSuffix(name, ".log")
	if err := f.log.fault.get(); err != nil && !isLog {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-f.log.done:
		}
		return nil, err
	} else if err != nil {
		return &logFile{File: vfs.NewMemFile(nil), log: f.log}, nil
	}
	file, err := create()
	if !isLog {
		if err == nil && strings.HasPrefix(f.PathBase(name), "MANIFEST-") {
			file = &manifest{file, f.log}
		}
		return file, err
	}
	if err != nil {
		f.log.fault.set(err)
		file = vfs.NewMemFile(nil)
	}
	w := &logFile{File: file, log: f.log, name: name}
	f.log.backups.logs.Store(name, w)
	return w, nil
}

// A directory is one whose failed sync is the log's fault.
type directory struct {
	vfs.File
	log *Log
}

// Sync implements vfs.File.
func (d *directory) Sync() error {
	if err := d.File.Sync(); err != nil {
		d.log.fault.set(err)
	}
	return nil
}

// A manifest says which tables there are.
type manifest struct {
	vfs.File
	log *Log
}

// Write implements vfs.File.
func (m *manifest) Write(p []byte) (int, error) {
	if err := m.log.fault.get(); err != nil {
		return 0, err
	}
	return m.File.Write(p)
}

// A logFile is a write-ahead log that is being written.
type logFile struct {
	vfs.File
	log     *Log
	name    string
	written atomic.Int64 // bytes
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
	f.written.Add(int64(len(p)))
	return len(p), nil
}

// Preallocate implements vfs.File. There may be room for what is written, if
// not for all of it.
func (f *logFile) Preallocate(offset, length int64) error {
	if f.log.fault.get() == nil {
		_ = f.File.Preallocate(offset, length)
	}
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
	f.log.backups.logs.Delete(f.name)
	f.try(f.File.Sync)
	if err := f.File.Close(); err != nil {
		f.log.fault.set(err)
	}
	return nil
}
