package disk

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/halley-comet/halley/engine"
)

// Append implements engine.Engine.
func (l *Log) Append(ctx context.Context, b engine.Batch) (engine.Receipt, error) {
	return l.append(ctx, b, false)
}

func (l *Log) append(ctx context.Context, b engine.Batch, timed bool) (engine.Receipt, error) {
	if l.isClosed() {
		return engine.Receipt{}, engine.ErrClosed
	}
	if l.opts.Follow != "" {
		return engine.Receipt{}, fmt.Errorf("disk: %w: a replica takes messages of the log that it follows", engine.ErrUnavailable)
	}
	if err := ctx.Err(); err != nil {
		return engine.Receipt{}, err
	}
	if err := b.Check(); err != nil {
		return engine.Receipt{}, fmt.Errorf("disk: %w", err)
	}
	r := l.newRequest(&b)
	r.timed = timed
	if cost := r.cost; cost > maxBatch || l.opts.Limit > 0 && cost > l.opts.Limit {
		l.reuse(r)
		return engine.Receipt{}, fmt.Errorf("disk: %w: it takes %d bytes", engine.ErrTooLarge, cost)
	}
	if l.fault.get() != nil {
		return engine.Receipt{}, l.unavailable()
	}
	if !l.queue.add(r) {
		return engine.Receipt{}, engine.ErrClosed
	}
	return l.await(ctx, r)
}

// await returns the answer to a request that is in the queue.
func (l *Log) await(ctx context.Context, r *request) (engine.Receipt, error) {
	select {
	case a := <-r.answer:
		l.reuse(r)
		return a.receipt, a.err
	case <-ctx.Done():
		return engine.Receipt{}, ctx.Err()
	case <-l.fault.stopped:
	}
	// What was stored before is answered as ever, and what was not is answered
	// too, unless Pebble holds the writer for good.
	select {
	case a := <-r.answer:
		return a.receipt, a.err
	case <-ctx.Done():
		return engine.Receipt{}, ctx.Err()
	case <-time.After(faultPatience):
		return engine.Receipt{}, l.unavailable()
	}
}

// faultPatience is how long a publisher waits for an answer of a log that has
// stopped.
const faultPatience = 200 * time.Millisecond

const (
	// maxBatch bounds a publisher's batch, by far below what Pebble takes.
	maxBatch = 1 << 30
	// maxGather is how many bytes of several publishers go into one batch.
	maxGather = 8 << 20
)

// A request is a publisher's batch on its way to the writer. It is the
// publisher's again once it is answered.
type request struct {
	messages []*engine.Message
	bodies   []body
	encoded  []byte // which the bodies are parts of
	key      string
	digest   [32]byte
	timed    bool   // the messages keep their times
	first    uint64 // a replica's: where the first message has its place
	mark     uint64 // and the mark of the last
	cost     int64
	answer   chan answer // with room for the one there is
}

// reuse lets a request be used again, when its publisher has the answer. Most
// are of one small message.
func (l *Log) reuse(r *request) {
	if cap(r.messages) > 16 || cap(r.encoded) > 16<<10 {
		return
	}
	clear(r.messages)
	r.messages, r.bodies, r.encoded, r.key, r.cost = r.messages[:0], r.bodies[:0], r.encoded[:0], "", 0
	r.first, r.mark = 0, 0
	l.requests.Put(r)
}

type answer struct {
	receipt engine.Receipt
	err     error
}

// newRequest encodes a batch, in its publisher's goroutine.
func (l *Log) newRequest(b *engine.Batch) *request {
	r, ok := l.requests.Get().(*request)
	if !ok {
		r = &request{answer: make(chan answer, 1)}
	}
	r.key, r.digest = b.Key, b.Digest
	n := 0
	for i := range b.Messages {
		n += maxBody(&b.Messages[i])
	}
	r.encoded = slices.Grow(r.encoded, n)
	r.messages, r.bodies = slices.Grow(r.messages, len(b.Messages)), slices.Grow(r.bodies, len(b.Messages))
	for i := range b.Messages {
		m := new(engine.Message)
		*m = b.Messages[i]
		if m.ContentType == "" {
			m.ContentType = "application/octet-stream"
		}
		// Data in a much larger array would hold memory that nothing counts.
		if cap(m.Data) > 2*len(m.Data)+64 {
			m.Data = bytes.Clone(m.Data)
		}
		from := len(r.encoded)
		r.encoded = appendBody(r.encoded, m)
		b := newBody(r.encoded[from:])
		r.messages, r.bodies = append(r.messages, m), append(r.bodies, b)
		r.cost += cost(m.Channel, b.recordLen())
	}
	return r
}

// A queue holds the requests that wait for the writer. It needs no bound of its
// own: each is held by a publisher that waits.
type queue struct {
	mu       sync.Mutex
	requests []*request
	enough   int // requests that wake the writer
	closed   bool
	wake     chan struct{} // has one when there are so many
}

func (q *queue) init() { q.wake = make(chan struct{}, 1) }

// add reports false once the queue is closed.
func (q *queue) add(r *request) bool {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false
	}
	q.requests = append(q.requests, r)
	enough := len(q.requests) >= q.enough
	q.mu.Unlock()
	if enough {
		q.ring()
	}
	return true
}

func (q *queue) ring() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// await makes the queue wake the writer when it has so many requests.
func (q *queue) await(n int) {
	q.mu.Lock()
	q.enough = n
	enough := len(q.requests) >= n
	q.mu.Unlock()
	if enough {
		q.ring()
	}
}

// take moves requests to the end of dst, until dst has maxGather bytes: then it
// is full.
func (q *queue) take(dst []*request) (_ []*request, full bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var bytes int64
	for _, r := range dst {
		bytes += r.cost
	}
	n := 0
	for n < len(q.requests) && (len(dst)+n == 0 || bytes+q.requests[n].cost <= maxGather) {
		bytes += q.requests[n].cost
		n++
	}
	dst = append(dst, q.requests[:n]...)
	rest := copy(q.requests, q.requests[n:])
	clear(q.requests[rest:])
	q.requests = q.requests[:rest]
	return dst, rest > 0
}

// close makes add refuse what comes.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}
