package memory

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/internal/bell"
)

// A Log is an engine.Engine in memory.
type Log struct {
	opts   Options
	window int64 // Options.KeyWindow in milliseconds
	epoch  string
	end    atomic.Uint64  // stored under mu
	due    atomic.Int64   // Unix ms when the next thing expires; stored under mu
	bell   bell.Bell      // rung after end has moved
	done   chan struct{}  // closed by Close
	wg     sync.WaitGroup // has one for the timer that is set, or for sweep

	// mu guards what follows. Reading takes it shared. A method that needs it
	// held ends in Locked, or belongs to one of these values.
	mu       sync.RWMutex
	closed   bool
	time     int64  // of the newest message
	used     int64  // estimate of the memory in use
	floor    uint64 // what any list without a record has had removed at most
	all      *list  // the group of "**"
	channels table[string, *channel]
	groups   table[pattern, *group]
	ages     []*ageQueue
	idle     idleQueue
	keys     keys
	tail     tail
	timer    *time.Timer // runs sweep when due
}

var (
	_ engine.Engine    = (*Log)(nil)
	_ engine.Immediate = (*Log)(nil)
)

const never = math.MaxInt64

// New returns an empty log of a new epoch. The error names the option that is
// wrong.
func New(opts Options) (*Log, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{opts: opts, epoch: engine.NewEpoch(), window: milliseconds(opts.KeyWindow), done: make(chan struct{})}
	l.due.Store(never)
	whole := pattern{"", engine.Below}
	g := &group{refs: 1} // so that it stays
	l.groups.put(whole, g)
	l.all, l.used = &g.list, groupCost(whole)
	l.timer = time.AfterFunc(never, l.sweep)
	l.timer.Stop()
	return l, nil
}

// End implements engine.Engine. It takes no lock.
func (l *Log) End() engine.Cursor { return l.cursor(l.end.Load()) }

func (l *Log) cursor(seq uint64) engine.Cursor { return engine.Cursor{Epoch: l.epoch, Seq: seq} }

// Wait implements engine.Engine.
func (l *Log) Wait(ctx context.Context, after engine.Cursor) error {
	return l.bell.Wait(ctx, l.done, func() bool { return l.End() != after })
}

// Close implements engine.Engine.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.done)
		if l.timer.Stop() {
			l.wg.Done()
		}
		l.due.Store(never)
		l.all, l.ages, l.idle, l.keys, l.tail = nil, nil, idleQueue{}, keys{}, tail{}
		l.channels, l.groups = table[string, *channel]{}, table[pattern, *group]{}
	}
	l.mu.Unlock()
	l.wg.Wait()
	return nil
}

func (l *Log) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}
