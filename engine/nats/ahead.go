package nats

import (
	"context"
	"errors"
	"sync"
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
	first   map[uint64]time.Time // when somebody first came with a position
	proved  proof
	proving bool
}

// A proof is the end of a stream at some moment after began, or later.
type proof struct {
	began time.Time
	epoch string
	last  uint64
}

// maxClaims is how many positions are remembered. Strangers may invent more, which
// are then not decided.
const maxClaims = 4096

// claimTime is how long a position is remembered.
const claimTime = time.Minute

// Ahead implements engine.Follower.
func (l *Log) Ahead(c engine.Cursor) bool {
	end := l.End()
	if c.Epoch != end.Epoch || c.Seq <= end.Seq {
		return false
	}
	q := &l.claims
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	came, ok := q.first[c.Seq]
	if !ok {
		came = now
		if q.first == nil {
			q.first = make(map[uint64]time.Time)
		}
		if len(q.first) >= maxClaims {
			for seq, at := range q.first {
				if now.Sub(at) > claimTime {
					delete(q.first, seq)
				}
			}
		}
		if len(q.first) < maxClaims {
			q.first[c.Seq] = came
		}
	}
	if p := &q.proved; p.epoch == c.Epoch && p.began.After(came) {
		return c.Seq <= p.last
	}
	if !q.proving && !l.isClosed() {
		q.proving = true
		l.pending.group.Go(l.prove)
	}
	return true
}

// prove finds out where the stream ends.
func (l *Log) prove() {
	ctx, cancel := context.WithTimeout(l.ctx, proveTime)
	defer cancel()
	began := time.Now()
	info, err := l.ledInfo(ctx, began)
	q := &l.claims
	q.mu.Lock()
	defer q.mu.Unlock()
	q.proving = false
	if err == nil {
		q.proved = proof{began, epochOf(info), info.State.LastSeq}
	}
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
