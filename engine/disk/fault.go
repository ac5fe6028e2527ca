package disk

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

// A fault stops the log: once it is set, nothing is written any more.
type fault struct {
	err     atomic.Pointer[error]
	stopped chan struct{} // closed when err is set
	stuck   atomic.Bool   // Pebble holds its locks for ever
}

func (f *fault) init() { f.stopped = make(chan struct{}) }

func (f *fault) get() error {
	if p := f.err.Load(); p != nil {
		return *p
	}
	return nil
}

// set keeps the first error.
func (f *fault) set(err error) {
	if f.err.CompareAndSwap(nil, &err) {
		close(f.stopped)
	}
}

// unavailable is what publishers get once the log has stopped.
func (l *Log) unavailable() error {
	return fmt.Errorf("disk: %s: %w: %w", l.dir, engine.ErrUnavailable, l.fault.get())
}

// apply hands a batch to Pebble, and does not wait until it is synced.
func (l *Log) apply(b *pebble.Batch) error {
	return l.try(func() error { return l.db.ApplyNoSyncWait(b, pebble.Sync) })
}

// sync waits until an applied batch is as safe as the log promises. It returns
// nil only then, and else stops the log.
func (l *Log) sync(b *pebble.Batch) error {
	err := l.try(b.SyncWait)
	if err != nil {
		return err
	}
	return b.Close()
}

// commit commits a batch. It returns nil only if the batch is as safe as asked
// for, and else stops the log.
func (l *Log) commit(b *pebble.Batch, o *pebble.WriteOptions) error {
	if err := l.try(func() error { return b.Commit(o) }); err != nil {
		return err
	}
	return b.Close()
}

// try writes, unless the log has stopped. An error stops it. No batch is used
// again then.
func (l *Log) try(do func() error) (err error) {
	if err := l.fault.get(); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			l.fault.stuck.Store(true)
			l.fault.set(fmt.Errorf("write: %v", r))
			err = l.fault.get()
		}
	}()
	if err := do(); err != nil {
		l.fault.set(err)
	}
	// Errors of the write-ahead log are told to the fault alone: see files.
	return l.fault.get()
}

// damage marks an error that tells of damage.
func damage(err error) error {
	if err != nil && pebble.IsCorruptionError(err) && !errors.Is(err, ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrCorrupt, pebbleError{err})
	}
	return err
}

// A pebbleError leaves out of Pebble's text a line that is for programs.
type pebbleError struct{ err error }

func (e pebbleError) Error() string {
	return strings.TrimSuffix(e.err.Error(), "\n<corruption detail carrier>")
}

func (e pebbleError) Unwrap() error { return e.err }

// A listener is Pebble's Logger. Pebble holds its Fatalf for the end of the
// process. Here it ends the log: what Pebble does when it returns touches
// nothing that was acknowledged.
type listener struct{ fault *fault }

func (listener) Infof(string, ...any)  {}
func (listener) Errorf(string, ...any) {}

func (l listener) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if len(args) == 1 {
		if cause, ok := args[0].(error); ok {
			err = fmt.Errorf("%s%w", strings.TrimRight(format, "%sv"), cause)
		}
	}
	l.fault.set(err)
}

// backgroundError is told what flushes and compactions fail with. Pebble tries
// them again; but while they fail the write-ahead log grows, and an operator
// is to see it before the disk is full of it.
func (l listener) backgroundError(err error) {
	if !errors.Is(err, pebble.ErrCancelledCompaction) {
		l.fault.set(damage(err))
	}
}

func (l listener) corruption(info pebble.DataCorruptionInfo) {
	l.fault.set(fmt.Errorf("%w: %s", ErrCorrupt, info.String()))
}

// corrupt returns an error that tells of damage.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}
