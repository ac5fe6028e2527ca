package nats

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/halley-comet/halley/engine"
)

var _ engine.Follower = (*Log)(nil)

// claims are positions of this epoch, beyond the node's end, that clients have come
// with. Most are of another node that is ahead by a moment. But what the stream
// never had is a gap, and must not be waited for: a position is that once the
// stream has told its end, after the client came, and it lies beyond.
type claims struct {
	mu      sync.Mutex
	came    map[uint64]arrival // when somebody first came with a position
	begun   int                // proofs
	proving bool
	proved  proof // the last
	waiting []claim
	some    atomic.Bool // whether any wait: without the lock
}

// A claim is a position that somebody waits for.
type claim struct {
	seq   uint64
	known func()
	since time.Time
}

// wait has known be called once: when the log has come to a position, when the
// stream has told its end, or some seconds after others came, since nobody says
// that he waits no more. It returns those whose time has come. The caller has the
// lock, and calls them without.
func (q *claims) wait(seq uint64, known func()) []claim {
	now := time.Now()
	var old []claim
	if len(q.waiting) > 0 && now.Sub(q.waiting[0].since) > 2*waitTime {
		n := slices.IndexFunc(q.waiting, func(c claim) bool { return now.Sub(c.since) <= waitTime })
		if n < 0 {
			n = len(q.waiting)
		}
		old = slices.Clone(q.waiting[:n])
		q.waiting = slices.Delete(q.waiting, 0, n)
	}
	q.waiting = append(q.waiting, claim{seq, known, now})
	q.some.Store(true)
	return old
}

// waitTime is how long somebody waits at least before being told to ask again for
// no reason.
const waitTime = time.Second

// tell has those ask again who wait for a position up to end.
func (q *claims) tell(end uint64) {
	if !q.some.Load() {
		return
	}
	var known []func()
	q.mu.Lock()
	q.waiting = slices.DeleteFunc(q.waiting, func(c claim) bool {
		if c.seq <= end {
			known = append(known, c.known)
		}
		return c.seq <= end
	})
	q.some.Store(len(q.waiting) > 0)
	q.mu.Unlock()
	for _, f := range known {
		f()
	}
}

// An arrival is a moment: a time, and how many proofs were begun before it.
type arrival struct {
	at    time.Time
	begun int
}

// A proof is the end of a stream at some moment after it was begun.
type proof struct {
	number int // from 1
	epoch  string
	last   uint64
}

// maxClaims is how many positions are remembered. Strangers may invent more, which
// are then not decided.
const maxClaims = 4096

// claimTime is how long a position is remembered.
const claimTime = time.Minute

// Ahead implements engine.Follower.
func (l *Log) Ahead(c engine.Cursor, known func()) bool {
	if !l.isBeyond(c) {
		return false
	}
	ahead, old := l.isAhead(c, known)
	for _, o := range old {
		o.known()
	}
	if ahead && !l.isBeyond(c) { // the log came there before it was waited for
		l.claims.tell(c.Seq)
	}
	return ahead
}

// isBeyond tells whether a position lies beyond what this node has.
func (l *Log) isBeyond(c engine.Cursor) bool {
	end := l.End()
	return c.Epoch == end.Epoch && c.Seq > end.Seq
}

// isAhead tells whether the stream may have a position, and if so waits for it.
// It returns others that are to ask again.
func (l *Log) isAhead(c engine.Cursor, known func()) (ahead bool, old []claim) {
	q := &l.claims
	q.mu.Lock()
	defer q.mu.Unlock()
	proved := q.proved.epoch == c.Epoch && q.proved.number > q.arrivalOf(c.Seq).begun
	if proved && c.Seq > q.proved.last {
		return false, nil
	}
	if known != nil {
		old = q.wait(c.Seq, known)
	}
	if !proved && !q.proving && !l.isClosed() { // else the stream has it, and it will come
		q.proving = true
		q.begun++
		number := q.begun
		l.pending.begin(func() { l.prove(number) })
	}
	return true, old
}

// arrivalOf returns when somebody first came with a position.
func (q *claims) arrivalOf(seq uint64) arrival {
	if a, ok := q.came[seq]; ok {
		return a
	}
	now := arrival{time.Now(), q.begun}
	if q.came == nil {
		q.came = make(map[uint64]arrival)
	}
	if len(q.came) >= maxClaims {
		for seq, a := range q.came {
			if now.at.Sub(a.at) > claimTime {
				delete(q.came, seq)
			}
		}
	}
	if len(q.came) < maxClaims {
		q.came[seq] = now
	}
	return now
}

// prove finds out where the stream ends.
func (l *Log) prove(number int) {
	ctx, cancel := context.WithTimeout(l.ctx, proveTime)
	defer cancel()
	info, err := l.ledInfo(ctx, time.Now())
	q := &l.claims
	q.mu.Lock()
	q.proving = false
	if err == nil {
		q.proved = proof{number, epochOf(info), info.State.LastSeq}
	}
	q.mu.Unlock()
	q.tell(math.MaxUint64)
}

const (
	proveTime = 15 * time.Second
	newLeader = 5 * time.Second
)

// ledInfo asks the stream for its state until the answer is not older than a
// moment. A leader that has been deposed, and does not know it yet, answers with
// what it has. So one is believed only if most of the stream's replicas have told
// it since that it is the leader, as they do every second.
func (l *Log) ledInfo(ctx context.Context, since time.Time) (*jetstream.StreamInfo, error) {
	for {
		_, info, err := l.find(ctx, false)
		if err == nil && isLed(info, time.Since(since)) {
			return info, nil
		}
		if err == nil {
			err = errors.New("the leader of the stream is not known to be one")
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// isLed tells whether most replicas, the leader's among them, have been heard of
// by the leader in the time past, and the leader is not a new one, which may not
// have come to the end of what it has.
func isLed(info *jetstream.StreamInfo, past time.Duration) bool {
	c := info.Cluster
	if c == nil || len(c.Replicas) == 0 {
		return info.Config.Replicas == 1
	}
	led := past // servers before 2.12 do not tell
	if c.LeaderSince != nil {
		led = info.TimeStamp.Sub(*c.LeaderSince)
	}
	if led < newLeader {
		return false
	}
	heard := 1
	for _, peer := range c.Replicas {
		if !peer.Offline && peer.Active > 0 && peer.Active < past {
			heard++
		}
	}
	return heard > info.Config.Replicas/2
}
