package nats

import (
	"sync"
	"time"

	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/internal/bell"
)

// A status tells whether a node follows the stream.
type status struct {
	bell bell.Bell // rung after a change

	mu    sync.Mutex
	err   error     // why it does not, nil if it does
	since time.Time // that it does not
	begun bool      // it did once
	kick  chan struct{}
	stats Stats // but for the replica's
}

// set tells that the node follows, or why it does not. It reports whether that
// is new.
func (s *status) set(err error) (changed bool) {
	s.mu.Lock()
	if changed = (err == nil) != (s.err == nil) || s.since.IsZero(); err != nil && s.err == nil {
		s.since = time.Now()
	}
	s.err = err
	s.begun = s.begun || err == nil
	s.mu.Unlock()
	s.bell.Ring()
	return changed
}

// restart tells that the node is as one that has just been opened.
func (s *status) restart(why error) {
	s.mu.Lock()
	s.begun = false
	s.mu.Unlock()
	s.set(why)
}

// away tells why the node does not follow now, nil if it does.
func (s *status) away() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// unready is away without what is over in a moment: another leader, another
// server.
func (s *status) unready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun && time.Since(s.since) < patience {
		return nil
	}
	return s.err
}

// long tells whether the node has been away for so long that there is no point
// in waiting.
func (s *status) long(d time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil && time.Since(s.since) > d
}

// patience is how long a node that follows no more is still taken for ready.
const patience = 2 * time.Second

// nudge has follow look at the connection.
func (s *status) nudge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kick != nil {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// nudged returns the channel that nudge sends to.
func (s *status) nudged() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kick == nil {
		s.kick = make(chan struct{}, 1)
	}
	return s.kick
}

func (s *status) count(f func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.stats)
}

// Stats tell what a node has done since it was opened. Counts only rise.
type Stats struct {
	// Replica is the node's own log.
	Replica disk.Stats
	// Away tells why the node does not follow the stream, nil if it does.
	Away error
	// Last is the stream's newest position, as of some second ago. The replica's
	// Newest may be lower, or higher.
	Last uint64
	// Followed is how often the node has begun to follow the stream: again after
	// the connection was lost, or the servers elected another leader.
	Followed uint64
	// Received counts messages of the stream, Holes how often positions were
	// missing there, Skipped messages that could not be any of their channel.
	Received, Holes, Skipped uint64
	// Retries is how often a batch was published again whose fate was not known.
	Retries uint64
}

// Stats returns what there is to be known now.
func (l *Log) Stats() Stats {
	l.status.mu.Lock()
	s := l.status.stats
	s.Away = l.status.err
	l.status.mu.Unlock()
	s.Replica = l.replica.Load().Stats()
	return s
}
