package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
)

// run follows the stream, again and again, until the log is closed.
func (l *Log) run() {
	said := ""
	for tries := 0; ; {
		began := time.Now()
		err := l.follow()
		if l.isClosed() {
			return
		}
		l.beCareful()
		if changed := l.status.set(err); changed || err.Error() != said {
			said = err.Error()
			l.opts.Logger.Warn("halley: this node does not follow the stream", "error", err)
		}
		if time.Since(began) > time.Minute {
			tries = 0
		}
		select {
		case <-time.After(backoff(tries)):
		case <-l.done:
			return
		}
		tries++
	}
}

// Why follow ends.
var (
	errCatchingUp = errors.New("this node catches up")
	errLeft       = errors.New("the connection to the NATS server was lost")
	errStalled    = errors.New("the stream has messages that do not come")
	errBehind     = errors.New("the stream has less than this node was given")
	errAnother    = errors.New("the stream is another")
	errRolled     = errors.New("the stream has lost messages that were acknowledged: it begins a new epoch")
	errDisorder   = errors.New("a message was lost on the way from the stream")
	errSilent     = errors.New("the NATS server that the messages come from is silent")
)

// follow brings the replica up to the stream and stores what comes, until
// something is wrong. It then begins anew, from what the replica has.
func (l *Log) follow() error {
	nudged := l.status.nudged()
	select {
	case <-nudged:
	default:
	}
	if !l.nc.IsConnected() {
		return errLeft
	}
	stream, info, err := l.identify()
	if err != nil {
		return err
	}
	l.atomic.Store(info.Config.AllowAtomicPublish)
	f := follower{log: l, replica: l.replica.Load(), epoch: epochOf(info), target: info.State.LastSeq}
	f.next = f.replica.End().Seq + 1
	if first := info.State.FirstSeq; first > f.next && info.State.LastSeq >= f.next {
		// Retention has run ahead.
		if err := f.jump(first); err != nil {
			return err
		}
	}
	consumer, err := l.consume(stream, info, f.next)
	if err != nil {
		return err
	}
	defer l.remove(consumer)
	if consumer.CachedInfo().NumPending == 0 && f.target >= f.next {
		// The rest was deleted, or the server that has the consumer has less than
		// the leader.
		at, _, err := l.from(l.ctx, f.next)
		if err == nil && at == 0 {
			err = f.jump(f.target + 1)
		} else if err == nil && at > f.next {
			err = f.jump(at)
		}
		if err != nil {
			return err
		}
	}
	defer l.testConnection()
	if f.feed, err = l.openFeed(consumer); err != nil {
		return err
	}
	defer f.feed.close()
	l.status.count(func(s *Stats) { s.Followed++; s.Last = info.State.LastSeq })
	return f.run(nudged)
}

// testConnection leaves a server that does not answer: it may be gone without a
// word.
func (l *Log) testConnection() {
	if !l.nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(l.ctx, time.Second)
	defer cancel()
	if l.nc.FlushWithContext(ctx) != nil && !l.isClosed() {
		_ = l.nc.ForceReconnect()
	}
}

// identify finds the stream, and makes sure that the replica is of it. A stream
// that a node has followed is made again only if it stays away: servers that have
// just been started may not know it yet.
func (l *Log) identify() (jetstream.Stream, *jetstream.StreamInfo, error) {
	end, mark := l.replica.Load().Followed()
	var missing, behind time.Time
	for {
		stream, info, err := l.find(l.ctx, end == 0 || !missing.IsZero() && time.Since(missing) > l.opts.missing)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			if missing.IsZero() {
				missing = time.Now()
				l.opts.Logger.Warn("halley: there is no stream any more: it is made again if it stays away", "stream", l.opts.Stream)
			}
			l.status.set(err)
			if !l.sleep(time.Second) {
				return nil, nil, engine.ErrClosed
			}
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if epoch := epochOf(info); epoch != l.replica.Load().End().Epoch {
			return stream, info, l.replace(epoch)
		}
		rolled := info.State.LastSeq < end
		if !rolled && mark != 0 && end >= info.State.FirstSeq {
			at, stored, err := l.from(l.ctx, end)
			if err != nil {
				return nil, nil, err
			}
			rolled = at == end && stored != mark
		}
		if !rolled {
			return stream, info, nil
		}
		// A leader that was just elected may not have come to the end yet, and one
		// that was deposed may not know.
		if behind.IsZero() {
			behind = time.Now()
		}
		if past := time.Since(behind); past > l.opts.behind && isLed(info, past) {
			l.opts.Logger.Error("halley: "+errRolled.Error(), "stream ends at", info.State.LastSeq, "this node has", end)
			if err := l.renew(l.ctx, info); err != nil {
				return nil, nil, fmt.Errorf("%w, and the new one cannot be written: %w", errRolled, err)
			}
			continue
		}
		l.status.set(errBehind)
		if !l.sleep(time.Second) {
			return nil, nil, engine.ErrClosed
		}
	}
}

func (l *Log) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-l.done:
		return false
	}
}

// A follower stores what comes from the stream.
type follower struct {
	log      *Log
	replica  *disk.Log
	epoch    string
	feed     *feed
	next     uint64 // the position that is to be stored next
	consumed uint64 // the consumer's own number of the last message
	target   uint64 // what is to be reached before the node follows
	follows  bool
	open     *group // an atomic batch whose end has not come
	batch    string // its id
	moved    bool   // since the last look
	still    int    // looks since messages came that were due
}

func (f *follower) run(nudged <-chan struct{}) error {
	looks := make(chan look, 1)
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	looking := false
	f.reached()
	for {
		select {
		case m := <-f.feed.come:
			messages, err := f.feed.take(m)
			if len(messages) > 0 {
				if err := f.store(messages); err != nil {
					return err
				}
			}
			if err != nil {
				return err
			}
		case <-ticker.C:
			if err := f.feed.look(); err != nil {
				return err
			}
			if !looking {
				looking = true
				f.log.pending.begin(func() { looks <- f.log.look() })
			}
		case k := <-looks:
			looking = false
			if err := f.compare(&k); err != nil {
				return err
			}
		case <-nudged:
			return errLeft
		case <-f.log.done:
			return engine.ErrClosed
		}
	}
}

// A look is what the stream says of itself.
type look struct {
	info *jetstream.StreamInfo
	err  error
}

// lookEvery is how often the stream is asked: it tells of a last message that did
// not come, and of another stream.
const lookEvery = time.Second

func (l *Log) look() look {
	_, info, err := l.find(l.ctx, false)
	return look{info, err}
}

// compare looks for what no message tells.
func (f *follower) compare(k *look) error {
	if k.err != nil {
		return k.err
	}
	last := k.info.State.LastSeq
	f.log.status.count(func(s *Stats) { s.Last = last })
	f.log.atomic.Store(k.info.Config.AllowAtomicPublish)
	if epochOf(k.info) != f.epoch {
		return errAnother
	}
	switch {
	case last+1 == f.next, f.moved:
		f.still = 0
	default:
		f.still++
	}
	f.moved = false
	if f.still < 3 {
		return nil
	}
	if last+1 < f.next {
		return errBehind
	}
	return errStalled
}

// A group is a part on its way to the replica, and the id of the call of Append
// that waits for it.
type group struct {
	disk.Part
	id string
}

// store stores messages as they come from the stream.
func (f *follower) store(messages []*natsgo.Msg) error {
	var groups []*group
	skipped, holes := uint64(0), uint64(0)
	at := f.next // the position that comes next, but for what is left out
	for _, raw := range messages {
		meta, err := raw.Metadata()
		if err != nil {
			return err
		}
		if f.consumed++; meta.Sequence.Consumer != f.consumed {
			return errDisorder
		}
		seq := meta.Sequence.Stream
		if seq < at {
			return errDisorder
		}
		if seq != at {
			// What a server leaves out that is behind is no hole.
			switch there, _, err := f.log.from(f.log.ctx, at); {
			case err != nil:
				return err
			case there != seq:
				return errDisorder
			}
			holes++
			groups = f.end(groups)
		}
		at = seq + 1
		h := raw.Header
		m, err := decode(f.log.opts.Stream, raw.Subject, h, raw.Data)
		if err != nil {
			f.log.opts.Logger.Warn("halley: a message of the stream is left out, which is a gap", "sequence", seq, "subject", raw.Subject, "error", err)
			skipped++
			groups = f.end(groups)
			continue
		}
		batch := h.Get(batchHeader)
		if batch == "" || batch != f.batch {
			groups = f.end(groups)
		}
		if f.open == nil {
			key, digest := keyOf(h)
			f.open = &group{Part: disk.Part{First: seq, Key: key, Digest: digest}, id: callOf(h)}
			f.batch = batch
			m.Time = meta.Timestamp.UnixMilli()
		} else {
			m.Time = f.open.Messages[0].Time
		}
		f.open.Messages = append(f.open.Messages, m)
		f.open.Mark = uint64(meta.Timestamp.UnixNano())
		if batch == "" || h.Get(commitHeader) != "" || len(f.open.Messages) == engine.MaxBatch {
			groups = f.end(groups)
		}
	}
	f.next, f.moved = at, true
	if f.open == nil && (len(groups) == 0 || groups[len(groups)-1].First+uint64(len(groups[len(groups)-1].Messages)) != at) {
		groups = append(groups, &group{Part: disk.Part{First: at}})
	}
	f.log.status.count(func(s *Stats) {
		s.Received += uint64(len(messages))
		s.Skipped += skipped
		s.Holes += holes
	})
	return f.put(groups)
}

// end ends the atomic batch that is open, if there is one.
func (f *follower) end(groups []*group) []*group {
	if f.open != nil {
		groups, f.open, f.batch = append(groups, f.open), nil, ""
	}
	return groups
}

// jump leaves positions out: the stream has them no more.
func (f *follower) jump(to uint64) error {
	f.next = to
	f.log.opts.Logger.Warn("halley: the stream has no more what this node has missed, which is a gap", "from", f.replica.End().Seq+1, "to", to-1)
	f.log.status.count(func(s *Stats) { s.Holes++ })
	return f.put([]*group{{Part: disk.Part{First: to}}})
}

// put hands groups to the replica, and tells those who wait for them.
func (f *follower) put(groups []*group) error {
	if len(groups) == 0 {
		return nil
	}
	parts := make([]disk.Part, len(groups))
	for i, g := range groups {
		parts[i] = g.Part
	}
	if err := f.replica.Follow(f.log.ctx, parts); err != nil {
		return fmt.Errorf("the replica takes nothing: %w", err)
	}
	for _, g := range groups {
		w := f.log.pending.of(g.id, f.log.pending.prefix)
		if w == nil {
			continue
		}
		r := engine.Receipt{First: engine.Cursor{Epoch: f.epoch, Seq: g.First}, Count: len(g.Messages)}
		var buf [1]*engine.Message
		if m, ok := f.replica.Tail(engine.Cursor{Epoch: f.epoch, Seq: g.First - 1}, buf[:0]); ok && len(m) == 1 {
			r.Time = m[0].Time
		}
		select {
		case w.stored <- r:
		default:
		}
	}
	f.log.claims.tell(f.replica.End().Seq)
	f.reached()
	return nil
}

// reached tells that the node follows, once it has what was there when it began.
func (f *follower) reached() {
	if !f.follows && f.next > f.target {
		f.follows = true
		if f.log.status.set(nil) {
			f.log.opts.Logger.Info("halley: this node follows the stream", "at", f.next-1)
		}
	}
	if !f.follows {
		f.log.status.set(fmt.Errorf("%w: it has come to %d of %d", errCatchingUp, f.next-1, f.target))
	}
}
