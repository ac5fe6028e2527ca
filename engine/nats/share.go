package nats

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/halley-comet/halley/engine"
)

// shared has publishers share what a batch costs the servers: a proposal to their
// quorum, a look for duplicates, an answer. Who comes while few batches are under
// way publishes at once. The others wait for one of those to be stored, or until
// there are enough of them, and go together. Batches are stored whole, so nothing
// changes for anyone, and what has a key goes by itself.
type shared struct {
	mu       sync.Mutex
	underWay int
	waiting  []*call
	messages int   // of those
	bytes    int64 // and theirs
}

// A call is an Append that waits to be published with others.
type call struct {
	batch    *engine.Batch
	deadline time.Time
	size     int64
	result   chan result // has one
}

type result struct {
	receipt engine.Receipt
	err     error
}

const (
	// fewUnderWay is how many batches of a node's are under way at once, and
	// maxUnderWay how many where those that wait fill one. The servers take 50 for a
	// stream, of all nodes.
	fewUnderWay = 2
	maxUnderWay = 8
	// maxShared and sharedBytes bound what goes together.
	maxShared   = 500
	sharedBytes = 512 << 10
)

// share publishes a batch without a key, alone or with others.
func (l *Log) share(ctx context.Context, b *engine.Batch, deadline time.Time) (engine.Receipt, error) {
	if !l.atomic.Load() {
		return l.publish(ctx, b, "", deadline)
	}
	s := &l.shared
	s.mu.Lock()
	if s.underWay < fewUnderWay {
		s.underWay++
		s.mu.Unlock()
		defer l.next()
		return l.publish(ctx, b, "", deadline)
	}
	c := &call{batch: b, deadline: deadline, size: sizeOf(b), result: make(chan result, 1)}
	if s.bytes+c.size > maxPending {
		s.mu.Unlock()
		return engine.Receipt{}, errTooMuch
	}
	s.waiting = append(s.waiting, c)
	s.messages, s.bytes = s.messages+len(b.Messages), s.bytes+c.size
	var calls []*call
	if s.underWay < maxUnderWay && s.full() {
		s.underWay++
		calls = s.take()
	}
	s.mu.Unlock()
	l.goTogether(calls)
	late := time.NewTimer(time.Until(deadline))
	defer late.Stop()
	select {
	case r := <-c.result:
		return r.receipt, r.err
	case <-late.C:
		return engine.Receipt{}, fmt.Errorf("%w: after %v it is not known whether the batch is stored, with those that it went with", engine.ErrUnavailable, l.opts.Timeout)
	case <-ctx.Done():
		return engine.Receipt{}, ctx.Err() // it goes on with the others
	case <-l.done:
		return engine.Receipt{}, engine.ErrClosed
	}
}

// next takes the place of a batch that is under way no more.
func (l *Log) next() {
	s := &l.shared
	s.mu.Lock()
	var calls []*call
	if s.underWay <= fewUnderWay || s.full() {
		calls = s.take()
	}
	if len(calls) == 0 {
		s.underWay--
	}
	s.mu.Unlock()
	l.goTogether(calls)
}

// goTogether publishes calls, if there are any, and then those that wait. Who was
// told may publish again at once, and would come too late for the next ones.
func (l *Log) goTogether(calls []*call) {
	if len(calls) == 0 {
		return
	}
	l.pending.begin(func() {
		defer l.next()
		l.publishTogether(calls)
		for range yields {
			runtime.Gosched()
		}
	})
}

// yields is how often others may go on first. Once was worth a fifth more
// messages to 16 publishers, and four times a little more.
const yields = 4

// full tells whether what waits is as much as goes together.
func (s *shared) full() bool { return s.messages >= maxShared || s.bytes >= sharedBytes }

// take returns what goes next, in the order in which it came.
func (s *shared) take() []*call {
	n, messages, bytes := 0, 0, int64(0)
	for n < len(s.waiting) {
		c := s.waiting[n]
		if n > 0 && (messages+len(c.batch.Messages) > maxShared || bytes+c.size > sharedBytes) {
			break
		}
		n, messages, bytes = n+1, messages+len(c.batch.Messages), bytes+c.size
	}
	calls := append([]*call(nil), s.waiting[:n]...)
	rest := copy(s.waiting, s.waiting[n:])
	clear(s.waiting[rest:])
	s.waiting = s.waiting[:rest]
	s.messages, s.bytes = s.messages-messages, s.bytes-bytes
	return calls
}

// publishTogether publishes calls as one batch, and gives each its part of the
// receipt.
func (l *Log) publishTogether(calls []*call) {
	if l.isClosed() {
		return // which they know
	}
	all := &engine.Batch{}
	deadline := calls[len(calls)-1].deadline // the others wait no longer than theirs
	for _, c := range calls {
		all.Messages = append(all.Messages, c.batch.Messages...)
	}
	r, err := l.publish(l.ctx, all, "", deadline)
	if len(calls) > 1 && (errors.Is(err, engine.ErrInvalid) || errors.Is(err, engine.ErrTooLarge)) {
		for _, c := range calls { // whose fault it is
			r, err := l.publish(l.ctx, c.batch, "", c.deadline)
			c.result <- result{r, err}
		}
		return
	}
	at := 0
	for _, c := range calls {
		n := len(c.batch.Messages)
		if err == nil {
			c.result <- result{receipt: engine.Receipt{First: r.ID(at), Count: n, Time: r.Time}}
		} else {
			c.result <- result{err: err}
		}
		at += n
	}
}
