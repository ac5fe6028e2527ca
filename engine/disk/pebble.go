package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// pebbleFormat is fixed, so that the version of a log on disk says all about
// it. In this one a write-ahead log tells a torn end from damage before it.
const pebbleFormat = pebble.FormatTableFormatV6

const (
	memTableBytes = 32 << 20
	walDir        = "wal" // where in the directory the write-ahead logs are
)

// caches are what Pebble's openings share.
//
// They are Halley's own for what follows an Open that fails: what it
// has begun in the background may go on, and would do so in a cache that Open
// has dropped, which ends the process. One that is not dropped costs a few
// megabytes, in a process that is about to end anyway.
type caches struct {
	blocks *pebble.Cache
	tables *pebble.FileCache
}

const maxOpenTables = 1000

// init has room in the cache for the memory tables as well. Pebble takes theirs
// from it, and would leave little for blocks.
func (s *caches) init(cacheBytes int64, memTable uint64) {
	s.blocks = pebble.NewCache(cacheBytes + 3*int64(memTable))
	s.tables = pebble.NewFileCache(runtime.GOMAXPROCS(0), maxOpenTables)
}

func (s *caches) release() {
	s.tables.Unref()
	s.blocks.Unref()
}

// openForReading changes nothing, and begins nothing in the background.
func (l *Log) openForReading(fs vfs.FS) (*pebble.DB, error) {
	// What is wrong is an error here, and no fault of a log in use.
	none := new(fault)
	none.init()
	o := l.pebbleOptions(fs, listener{none})
	o.ReadOnly = true
	db, err := pebble.Open(l.dir, o)
	return db, damage(err)
}

// openForWriting gives up on a fault. Pebble first writes tables of all that is
// in the write-ahead log, and on a disk that is full it would try for ever. What
// is left of that tries in vain (see files), and keeps the directory's lock,
// until the process ends.
func (l *Log) openForWriting() (*pebble.DB, error) {
	note := listener{&l.fault}
	o := l.pebbleOptions(files{l.opts.fs, l}, note)
	o.EventListener = &pebble.EventListener{
		BackgroundError: note.backgroundError,
		DataCorruption:  note.corruption,
	}
	l.gate.ConcurrencyLimitScheduler = pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest()
	o.Experimental.CompactionScheduler = &l.gate
	type result struct {
		db  *pebble.DB
		err error
	}
	opened := make(chan result, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				opened <- result{nil, fmt.Errorf("open: %v", r)}
			}
		}()
		db, err := pebble.Open(l.dir, o)
		opened <- result{db, err}
	}()
	var r result
	select {
	case r = <-opened:
	case <-l.fault.stopped:
		select {
		case r = <-opened: // as it does where it can
		case <-time.After(openPatience):
			r.err = l.fault.get()
		}
	}
	if r.err != nil {
		return nil, damage(r.err)
	}
	l.gate.release()
	return r.db, nil
}

// openPatience is how long an opening may take to end by itself after a fault.
const openPatience = time.Second

func (l *Log) pebbleOptions(fs vfs.FS, note listener) *pebble.Options {
	o := &pebble.Options{
		FS:                 fs,
		Lock:               l.lock,
		WALDir:             pebble.MakeStoreRelativePath(l.opts.fs, walDir),
		FormatMajorVersion: pebbleFormat,
		Cache:              l.caches.blocks,
		FileCache:          l.caches.tables,
		MemTableSize:       l.memTable(),
		// Lists overlap from table to table, and each compaction of theirs
		// rewrites the newest messages beside them. With half as many of them
		// publishing takes four fifths of the processor's time, and a seek looks
		// into eight tables in place of four. (Pebble takes the number by half.)
		L0CompactionThreshold:      16,
		L0StopWritesThreshold:      32,
		CompactionConcurrencyRange: func() (lower, upper int) { return 1, 2 },
		Logger:                     note,
	}
	o.Experimental.SpanPolicyFunc = messagesApart
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// messagesApart ends tables where messages begin and where they end. So tables
// of messages, which hardly ever overlap, are moved down where others are
// rewritten.
func messagesApart(key []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	switch {
	case key[0] < messageKeys:
		end = []byte{messageKeys}
	case key[0] == messageKeys:
		end = []byte{messageKeys + 1}
	}
	return policy, end, nil
}

// memTable returns how much is gathered in memory before it is written to a
// table. With it grow the write-ahead logs and what waits in tables to be
// compacted, a dozen times as much in all, which is to be little next to the
// limit.
func (l *Log) memTable() uint64 {
	if l.opts.Limit < 0 {
		return memTableBytes
	}
	return uint64(min(max(l.opts.Limit/16, memTableBytes/16), memTableBytes))
}

// A gate lets no compaction begin before Open has returned. It never grants by
// itself later: with one compaction at a time, which is Pebble's default, the
// end of one is when the next may begin.
type gate struct {
	*pebble.ConcurrencyLimitScheduler
	db     pebble.DBForCompaction
	opened atomic.Bool
}

// Register implements pebble.CompactionScheduler.
func (g *gate) Register(goroutines int, db pebble.DBForCompaction) {
	g.db = db
	g.ConcurrencyLimitScheduler.Register(goroutines, db)
}

// TrySchedule implements pebble.CompactionScheduler.
func (g *gate) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !g.opened.Load() {
		return false, nil
	}
	return g.ConcurrencyLimitScheduler.TrySchedule()
}

// release grants what was refused.
func (g *gate) release() {
	g.opened.Store(true)
	ok, grant := g.ConcurrencyLimitScheduler.TrySchedule()
	if !ok {
		return
	}
	if waiting, _ := g.db.GetWaitingCompaction(); !waiting || !g.db.Schedule(grant) {
		grant.Done()
	}
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
