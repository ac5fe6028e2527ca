package nats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/internal/bell"
)

// A Log is an engine.Engine on a stream of NATS JetStream.
type Log struct {
	opts Options
	dir  string
	// asBefore is set where the replica was opened without the stream.
	asBefore bool
	nc       *natsgo.Conn
	js       jetstream.JetStream

	// replica is what all reading is done from. It is closed and another put in
	// its place when the stream has another epoch.
	replica  atomic.Pointer[disk.Log]
	replaced bell.Bell // rung after that

	pending  pending
	shared   shared
	status   status
	claims   claims
	atomic   atomic.Bool  // whether the stream takes batches
	careful  atomic.Int64 // until then, in Unix nanoseconds: see beCareful
	placed   time.Time    // when a consumer was: run's
	done     chan struct{}
	ctx      context.Context // ends with done
	cancel   context.CancelFunc
	followed chan struct{} // closed when run has ended
	closing  sync.Once
}

var (
	_ engine.Engine  = (*Log)(nil)
	_ engine.Stopper = (*Log)(nil)
)

// Open opens a node's view of the log. Its replica is in a directory, which is
// made where there is none. Open returns when the replica has come to the stream's
// end. It waits for servers that do not answer until ctx ends, but not where the
// directory has a replica: then this is what readers get until they do, and Err
// tells that the stream is away.
//
// Errors: ErrMisfit, disk.ErrInUse, disk.ErrNotReplica, others of the disk, of
// the connection's options, or ctx's.
func Open(ctx context.Context, dir string, opts Options) (*Log, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{opts: opts, dir: dir, done: make(chan struct{}), followed: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.status.set(errOpening)
	l.pending.init()
	if err := l.connect(); err != nil {
		l.cancel()
		return nil, fmt.Errorf("nats: %w", err) // the URLs may have passwords
	}
	if err := l.open(ctx); err != nil {
		l.cancel()
		l.nc.Close()
		return nil, fmt.Errorf("nats: %w", err)
	}
	go func() {
		defer close(l.followed)
		l.run()
	}()
	if err := l.awaitBegun(ctx); err != nil {
		l.Close()
		return nil, fmt.Errorf("nats: %w", err)
	}
	return l, nil
}

// awaitBegun waits until the node follows the stream, for as long as it comes
// nearer.
func (l *Log) awaitBegun(ctx context.Context) error {
	for !l.asBefore {
		wait, cancel := context.WithTimeout(ctx, openEvery)
		err := l.status.bell.Wait(wait, l.done, func() bool { return l.status.away() == nil })
		cancel()
		why := l.status.away()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", ctx.Err(), why)
		case !errors.Is(why, errCatchingUp) && l.status.long(l.opts.Timeout):
			return nil // as if the servers had been away from the beginning
		}
	}
	return nil
}

var errOpening = errors.New("the log is being opened")

func (l *Log) connect() error {
	log := l.opts.Logger
	o := []natsgo.Option{
		natsgo.Name("halley"),
		natsgo.RetryOnFailedConnect(true),
		natsgo.MaxReconnects(-1),
		natsgo.ReconnectWait(250 * time.Millisecond),
		natsgo.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		natsgo.Timeout(2 * time.Second),
		// A server that is gone without a word is left after 3 s.
		natsgo.PingInterval(time.Second),
		natsgo.MaxPingsOutstanding(2),
		// What is to be sent again is for Append to say.
		natsgo.ReconnectBufSize(-1),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) {
			l.status.nudge()
			if err != nil {
				log.Warn("halley: the connection to a NATS server has ended", "error", err)
			}
		}),
		natsgo.ReconnectHandler(func(c *natsgo.Conn) {
			log.Info("halley: connected to another NATS server, or again", "server", c.ConnectedUrlRedacted())
			l.pending.retry()
		}),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) {
			log.Warn("halley: NATS reports an error", "error", err)
		}),
	}
	var err error
	if l.nc, err = natsgo.Connect(l.opts.URL, append(o, l.opts.Connect...)...); err != nil {
		return err
	}
	if l.js, err = jetstream.New(l.nc); err == nil {
		err = l.listen()
	}
	if err != nil {
		l.nc.Close()
	}
	return err
}

// open opens the replica, of the stream's epoch if that can be had.
func (l *Log) open(ctx context.Context) error {
	wait := time.NewTicker(openEvery)
	defer wait.Stop()
	for n := 0; ; n++ {
		_, info, err := l.find(ctx, true)
		if err == nil {
			if !info.Config.AllowAtomicPublish {
				l.opts.Logger.Warn("halley: batches of several messages will be refused: the stream does not take them whole (NATS 2.12 or later, and allow_atomic in the stream)", "nats_version", l.nc.ConnectedServerVersion())
			}
			return l.openReplica(epochOf(info))
		}
		if errors.Is(err, ErrMisfit) || isRefused(err) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		if n == openTries {
			switch e := l.openReplica(disk.AsBefore); {
			case e == nil:
				l.asBefore = true
				l.opts.Logger.Warn("halley: the stream cannot be had: readers get what this node has", "error", err)
				return nil
			case !errors.Is(e, fs.ErrNotExist):
				return e
			}
			l.opts.Logger.Warn("halley: the stream cannot be had, and this node has nothing of it yet: it waits", "error", err)
		}
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
	}
}

// openEvery is how long is waited between tries to have the stream, and openTries
// how many there are before a node goes on without.
const (
	openEvery = 500 * time.Millisecond
	openTries = 6
)

func (l *Log) openReplica(epoch string) error {
	o := l.opts.Replica
	o.Follow = epoch
	r, err := disk.Open(l.dir, o)
	if err == nil {
		l.replica.Store(r)
	}
	return err
}

// replace puts a replica of another epoch in the place of the one there is.
func (l *Log) replace(epoch string) error {
	old := l.replica.Load()
	l.status.restart(errCatchingUp) // before anyone finds it empty
	l.opts.Logger.Warn("halley: the stream has another epoch, which clients from before are told as a gap", "epoch", epoch, "was", old.End().Epoch)
	if err := old.Close(); err != nil {
		l.opts.Logger.Error("halley: closing the replica failed", "error", err)
	}
	defer l.replaced.Ring()
	return l.openReplica(epoch)
}

// Replica returns the node's own log, for what an operator wants of it: Stats,
// Backup, Verify. It may be closed at any time, when another takes its place.
func (l *Log) Replica() *disk.Log { return l.replica.Load() }

// MaxPayload returns how many bytes a message may take on its way to the NATS
// servers, with its headers; 0 while there was no connection yet. Append returns
// engine.ErrTooLarge for what takes more.
func (l *Log) MaxPayload() int64 { return l.nc.MaxPayload() }

// End implements engine.Engine: what this node has.
func (l *Log) End() engine.Cursor { return l.replica.Load().End() }

// Tail implements engine.Engine.
func (l *Log) Tail(after engine.Cursor, buf []*engine.Message) ([]*engine.Message, bool) {
	return l.replica.Load().Tail(after, buf)
}

// Wait implements engine.Engine.
func (l *Log) Wait(ctx context.Context, after engine.Cursor) error {
	for {
		r := l.replica.Load()
		err := r.Wait(ctx, after)
		if !errors.Is(err, engine.ErrClosed) {
			return err
		}
		if err := l.replaced.Wait(ctx, l.done, func() bool { return l.replica.Load() != r }); err != nil {
			return err
		}
	}
}

// Read implements engine.Engine. A client may come from another node with a
// position that this one has not come to: that is waited for, or is no gap before
// the stream has said that it has no such position.
func (l *Log) Read(ctx context.Context, q engine.Query) (engine.Page, error) {
	if l.Ahead(q.After, nil) && q.Check() == nil {
		if err := l.await(ctx, q.After); err != nil {
			return engine.Page{}, err
		}
	}
	page, err := l.replica.Load().Read(ctx, q)
	if errors.Is(err, engine.ErrClosed) && !l.isClosed() {
		err = fmt.Errorf("nats: %w: the stream has another epoch", engine.ErrUnavailable)
	}
	return page, err
}

// await returns nil when the log has come to a position, or never will.
func (l *Log) await(ctx context.Context, to engine.Cursor) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	for {
		known := make(chan struct{})
		if !l.Ahead(to, func() { close(known) }) {
			return nil
		}
		why := l.status.away()
		if why == nil {
			why = fmt.Errorf("this node has come to %v, and not to %v yet", l.End(), to)
		} else if l.status.long(patience) {
			return fmt.Errorf("nats: %w: %w", engine.ErrUnavailable, why)
		}
		select {
		case <-known:
		case <-l.done:
			return engine.ErrClosed
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("nats: %w: %w", engine.ErrUnavailable, why)
			}
			return ctx.Err()
		}
	}
}

// awaitTime is how long a reader waits for a position at most.
const awaitTime = 3 * time.Second

// Err tells why the log takes no messages now, nil if it does: the servers are
// away, or this node is catching up. It goes on by itself.
func (l *Log) Err() error {
	if err := l.status.unready(); err != nil {
		return err
	}
	if r := l.replica.Load(); !l.isClosed() {
		return r.Err()
	}
	return nil
}

// Close implements engine.Engine.
func (l *Log) Close() error {
	var err error
	l.closing.Do(func() {
		close(l.done)
		l.cancel()
		l.nc.Close()
		<-l.followed
		err = l.replica.Load().Close()
		l.pending.end()
	})
	return err
}

func (l *Log) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}
