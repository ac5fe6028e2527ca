package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/internal/bell"
)

// Errors of Open that callers branch on.
var (
	// ErrInUse means that another Log, of this process or another, has the
	// directory open. The caller does not retry before that one is closed.
	ErrInUse = errors.New("the directory is in use")
	// ErrFormat means that the directory holds something else than a log, or a
	// log of a format that this version does not know. It was not changed.
	ErrFormat = errors.New("unknown format")
	// ErrCorrupt means that a checksum or the structure of what was stored is
	// wrong. Reading may return it too, wrapped with engine.ErrUnavailable.
	ErrCorrupt = errors.New("corrupt")
	// ErrNotReplica means that the directory holds a log of its own, which is
	// not to be taken for a replica. It was not changed.
	ErrNotReplica = errors.New("a log of its own, not a replica")
)

// A Log is an engine.Engine on disk.
type Log struct {
	opts   Options
	dir    string
	epoch  string
	format int // of the layout on the disk
	db     *pebble.DB
	caches caches
	gate   gate
	lock   *pebble.Lock
	// What Open found.
	opened Opened
	last   session // the record of the session before
	// Whether it was a replica. What it is now is in opts.
	replica bool
	mark    atomic.Uint64 // a replica's, of End
	fault   fault
	tail    tail
	end     atomic.Uint64 // stored under tail.mu, after its message was pushed
	bell    bell.Bell     // rung after end has moved
	queue   queue
	// Those that are answered. Each log has its own: their channels may be of a
	// bubble of testing/synctest.
	requests sync.Pool
	// What the writer has applied, on its way to be synced. There is room for
	// none: one is synced while the writer makes the next.
	syncing  chan *commit
	inFlight atomic.Int64 // requests
	// acknowledged has one after a commit was.
	acknowledged chan struct{}
	done         chan struct{} // closed by Close
	// written is closed when the writer has ended.
	written chan struct{}

	reading sync.RWMutex // shared by who uses db; Close takes it
	closing sync.Once

	writer writer // its goroutine's alone
	kept   kept   // what Stats tells

	backups backups
}

var (
	_ engine.Engine  = (*Log)(nil)
	_ engine.Stopper = (*Log)(nil)
)

const never = math.MaxInt64

// Open opens the log in a directory, which it makes where there is none. The
// error names the option that is wrong, or the path, as dir was given.
func Open(dir string, opts Options) (*Log, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{opts: opts, dir: dir, done: make(chan struct{}), opened: Opened{New: true}}
	l.queue.init()
	l.fault.init()
	if err := l.open(); err != nil {
		l.release()
		return nil, fmt.Errorf("disk: %s: %w", dir, err)
	}
	l.written, l.syncing, l.acknowledged = make(chan struct{}), make(chan *commit), make(chan struct{}, 1)
	go func() {
		defer close(l.syncing)
		l.write()
	}()
	go func() {
		defer close(l.written)
		l.acknowledge()
	}()
	return l, nil
}

func (l *Log) open() error {
	if !l.opts.ReadOnly {
		if err := makeDir(l.opts.fs, l.dir); err != nil {
			return err
		}
	}
	lock, err := pebble.LockDirectory(l.dir, l.opts.fs)
	if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
		return err // of the file, not of the lock
	} else if err != nil {
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	l.lock = lock
	l.caches.init(l.opts.CacheBytes, l.memTable())
	if err := l.look(); err != nil {
		return err
	}
	if !l.opts.ReadOnly {
		if l.db, err = l.openForWriting(); err != nil {
			return err
		}
		if err := l.begin(); err != nil {
			return err
		}
	}
	load := l.loadTail
	if l.opts.ReadOnly {
		load = l.loadUnlisted
	}
	if err := load(); err != nil {
		return err
	}
	return l.initWriter()
}

// look reads what every opening reads, before anything is changed. So a log
// that is damaged, or is none, stays as it was.
func (l *Log) look() error {
	desc, err := pebble.Peek(l.dir, l.opts.fs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrFormat, err)
	case !desc.Exists && (l.opts.ReadOnly || l.opts.Follow == AsBefore):
		return fmt.Errorf("there is no log: %w", fs.ErrNotExist)
	case !desc.Exists:
		return nil
	case desc.FormatMajorVersion > pebbleFormat:
		return fmt.Errorf("%w: Pebble's %v, this is %v", ErrFormat, desc.FormatMajorVersion, pebbleFormat)
	}
	db, err := l.openForReading(l.opts.fs)
	if errors.Is(err, ErrCorrupt) && !l.opts.ReadOnly {
		db, err = l.cutUnsynced(err)
	}
	if err != nil {
		return err
	}
	l.db = db
	if err := l.recall(); err != nil {
		return err
	}
	if l.last.ended != closed { // else there is nothing to find
		torn, err := l.findTorn()
		if err != nil {
			return err
		}
		l.opened.Cut += torn
	}
	if l.opts.ReadOnly {
		if l.opened.New {
			return fmt.Errorf("there is no log: %w", fs.ErrNotExist)
		}
		l.fault.set(errReadOnly)
		return nil
	}
	l.db = nil
	return damage(db.Close())
}

// errReadOnly is the fault of a log that is open for reading only.
var errReadOnly = errors.New("it is open for reading only")

// release lets go of the directory.
func (l *Log) release() error {
	var err error
	switch {
	case l.fault.stuck.Load():
		// Closing Pebble would wait for ever. Its goroutines and the
		// directory's lock stay until the process ends.
		return nil
	case l.db != nil:
		err = l.db.Close()
		l.caches.release()
	}
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	return err
}

// End implements engine.Engine. It takes no lock.
func (l *Log) End() engine.Cursor { return l.cursor(l.end.Load()) }

func (l *Log) cursor(seq uint64) engine.Cursor { return engine.Cursor{Epoch: l.epoch, Seq: seq} }

// Wait implements engine.Engine.
func (l *Log) Wait(ctx context.Context, after engine.Cursor) error {
	return l.bell.Wait(ctx, l.done, func() bool { return l.End() != after })
}

// Close implements engine.Engine. What publishers had handed over by then is
// stored, or its publisher gets ErrClosed. The error is of the last writes,
// none of which anybody was told of.
func (l *Log) Close() error {
	var err error
	l.closing.Do(func() {
		l.queue.close()
		close(l.done)
		l.awaitWriter()
		l.reading.Lock()
		defer l.reading.Unlock()
		err = l.endSession()
		if e := l.release(); l.fault.get() == nil {
			err = errors.Join(err, e)
		}
		l.tail.clear()
		if err != nil {
			err = fmt.Errorf("disk: %s: close: %w", l.dir, err)
		}
	})
	return err
}

// awaitWriter waits until the writer has ended. On a disk that fails it may be
// waiting for a flush or a compaction that will never succeed.
func (l *Log) awaitWriter() {
	select {
	case <-l.written:
		return
	case <-l.fault.stopped:
	}
	select {
	case <-l.written:
	case <-time.After(stuckAfter):
		l.fault.stuck.Store(true)
	}
}

// stuckAfter is how long Close waits for the writer of a log that has stopped.
const stuckAfter = 5 * time.Second

func (l *Log) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Stats tell what a log holds.
type Stats struct {
	Messages uint64 // kept
	Bytes    int64  // what they take before compression, as Options.Limit counts
	Oldest   uint64 // no message kept has a lower sequence
	Newest   uint64 // the sequence of End
	Disk     uint64 // bytes of all files
	Format   int    // version of the layout
	// CompactionDebt estimates the bytes that are to be compacted: it rises
	// where the disk does not keep up.
	CompactionDebt uint64
}

// Stats returns what the log holds now. After Close it returns zeros.
func (l *Log) Stats() Stats {
	l.reading.RLock()
	defer l.reading.RUnlock()
	if l.isClosed() {
		return Stats{}
	}
	s := l.kept.get()
	m := l.db.Metrics()
	s.Newest, s.Disk, s.Format = l.end.Load(), m.DiskSpaceUsage(), l.format
	s.CompactionDebt = m.Compact.EstimatedDebt
	return s
}

// kept is a copy of the writer's counts for others.
type kept struct {
	mu    sync.Mutex
	stats Stats
}

func (k *kept) set(s *state) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stats = Stats{Messages: s.messages, Bytes: s.bytes, Oldest: s.oldest}
}

func (k *kept) get() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stats
}
