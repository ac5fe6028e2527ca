package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/halley-comet/halley/engine"
)

// pending holds the batches that are published and not acknowledged.
type pending struct {
	prefix string // of ids of calls, before the waiter's number: nobody else has it
	inbox  string // and of subjects of answers

	mu      sync.Mutex
	number  uint64
	waiters map[uint64]*waiter // by the number, which ids and subjects end with
	keys    map[string]chan struct{}
	bytes   int64
	ended   bool
	group   sync.WaitGroup // of goroutines that Close waits for
}

// begin runs f in a goroutine, unless the log is being closed.
func (p *pending) begin(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.group.Go(f)
	}
}

// end waits until nothing runs that was begun, and nothing is any more.
func (p *pending) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.group.Wait()
}

// A waiter is an Append that waits for the stream.
type waiter struct {
	id     string
	number uint64
	size   int64
	stored chan engine.Receipt // has one when the replica has the batch
	acks   chan ack
	again  chan struct{} // has one when it should be sent again
}

// An ack is the stream's answer to a publisher.
type ack struct {
	Duplicate bool
	Error     *jetstream.APIError
}

// isDuplicate tells that the stream has the batch, or another with its id.
func (a *ack) isDuplicate() bool {
	return a.Duplicate || a.Error != nil && a.Error.ErrorCode == duplicateInBatch
}

func (p *pending) init() {
	p.prefix = "r." + engine.NewEpoch() + "."
	p.waiters, p.keys = make(map[uint64]*waiter), make(map[string]chan struct{})
}

// sizeOf returns what a batch takes while it waits, some bytes more or less.
func sizeOf(b *engine.Batch) int64 {
	size := int64(0)
	for i := range b.Messages {
		size += int64(len(b.Messages[i].Data)) + 512
	}
	return size
}

// add begins to wait for a batch of a size.
func (p *pending) add(size int64) (*waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes > 0 && p.bytes+size > maxPending {
		return nil, errTooMuch
	}
	p.bytes += size
	p.number++
	w := &waiter{
		id: p.prefix + strconv.FormatUint(p.number, 36), number: p.number, size: size,
		stored: make(chan engine.Receipt, 1), acks: make(chan ack, 4), again: make(chan struct{}, 1),
	}
	p.waiters[w.number] = w
	return w, nil
}

func (p *pending) remove(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes -= w.size
	delete(p.waiters, w.number)
}

// of returns who waits for what has an id, or an answer on a subject, that is a
// prefix and a number; nil if nobody of this node does.
func (p *pending) of(name, prefix string) *waiter {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return nil
	}
	number, err := strconv.ParseUint(digits, 36, 64)
	if err != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiters[number]
}

// retry has all be sent again: nobody knows whether it came through.
func (p *pending) retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.waiters {
		select {
		case w.again <- struct{}{}:
		default:
		}
	}
}

// listen takes the stream's answers.
func (l *Log) listen() error {
	l.pending.inbox = l.nc.NewInbox() + "."
	_, err := l.nc.Subscribe(l.pending.inbox+"*", func(m *natsgo.Msg) {
		// The replica tells of what was stored as it should be.
		if len(m.Data) > 0 && !bytes.Contains(m.Data, []byte(`"error"`)) && !bytes.Contains(m.Data, []byte(`"duplicate"`)) {
			return
		}
		w := l.pending.of(m.Subject, l.pending.inbox)
		if w == nil {
			return
		}
		var a ack
		if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
			a.Error = &jetstream.APIError{Code: 503, Description: "no NATS server takes messages for the stream"}
		} else if err := json.Unmarshal(m.Data, &a); err != nil {
			a.Error = &jetstream.APIError{Code: 500, Description: err.Error()}
		}
		select {
		case w.acks <- a:
		default: // it has had others
		}
	})
	return err
}

// Append implements engine.Engine.
func (l *Log) Append(ctx context.Context, b engine.Batch) (engine.Receipt, error) {
	r, err := l.append(ctx, &b)
	switch {
	case err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) || errors.Is(err, engine.ErrClosed):
	case l.isClosed():
		err = engine.ErrClosed
	default:
		err = fmt.Errorf("nats: %w", err)
	}
	return r, err
}

func (l *Log) append(ctx context.Context, b *engine.Batch) (engine.Receipt, error) {
	if l.isClosed() {
		return engine.Receipt{}, engine.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return engine.Receipt{}, err
	}
	if err := b.Check(); err != nil {
		return engine.Receipt{}, err
	}
	if len(b.Messages) > 1 && !l.atomic.Load() && l.status.away() == nil {
		return engine.Receipt{}, errNoBatches
	}
	deadline := time.Now().Add(l.opts.Timeout)
	if b.Key == "" && l.status.away() == nil {
		return l.share(ctx, b, deadline)
	}
	ctx, cancel := context.WithDeadlineCause(ctx, deadline, errTimeout)
	defer cancel()
	if err := l.awaitFollowing(ctx); err != nil {
		return engine.Receipt{}, err
	}
	if b.Key == "" {
		return l.share(ctx, b, deadline)
	}
	id := keyID(b.Key)
	leave, err := l.enterKey(ctx, id)
	if err != nil {
		return engine.Receipt{}, err
	}
	defer leave()
	if r, ok, err := l.stored(ctx, b, id); ok || err != nil {
		return r, err
	}
	return l.publish(ctx, b, id, deadline)
}

// errTooMuch is returned while too much waits to be acknowledged.
var errTooMuch = fmt.Errorf("%w: %d MiB wait for the stream already", engine.ErrUnavailable, maxPending>>20)

// errNoBatches is returned where the stream stores no batch whole.
var errNoBatches = fmt.Errorf("%w: a batch of several messages needs NATS 2.12 or later, and allow_atomic in the stream", engine.ErrInvalid)

// errTimeout is the cause of a context that has ended after Options.Timeout.
var errTimeout = errors.New("time-out")

// gaveUp returns what Append returns once ctx has ended.
func gaveUp(ctx context.Context, why error) error {
	if context.Cause(ctx) == errTimeout {
		return fmt.Errorf("%w: %w", engine.ErrUnavailable, why)
	}
	return ctx.Err()
}

// awaitFollowing waits until the node follows the stream. What is published while
// it does not could not be acknowledged, and one that is behind does not know
// what keys were used.
func (l *Log) awaitFollowing(ctx context.Context) error {
	why := l.status.away()
	if why == nil {
		return nil
	}
	if l.status.long(l.opts.Timeout) {
		return fmt.Errorf("%w: %w", engine.ErrUnavailable, why)
	}
	err := l.status.bell.Wait(ctx, l.done, func() bool { return l.status.away() == nil })
	if ctx.Err() != nil {
		return gaveUp(ctx, why)
	}
	return err
}

// enterKey waits until no other call of this node publishes under a key.
func (l *Log) enterKey(ctx context.Context, id string) (leave func(), err error) {
	p := &l.pending
	for {
		p.mu.Lock()
		busy := p.keys[id]
		if busy == nil {
			mine := make(chan struct{})
			p.keys[id] = mine
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				delete(p.keys, id)
				p.mu.Unlock()
				close(mine)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, gaveUp(ctx, errors.New("another batch with the key waits for the stream"))
		case <-l.done:
			return nil, engine.ErrClosed
		}
	}
}

// stored returns what was stored under a key, once readers see it.
func (l *Log) stored(ctx context.Context, b *engine.Batch, id string) (engine.Receipt, bool, error) {
	replica := l.replica.Load()
	r, digest, ok, err := replica.Stored(id)
	switch {
	case errors.Is(err, engine.ErrClosed) && !l.isClosed():
		return engine.Receipt{}, false, fmt.Errorf("%w: the stream has another epoch", engine.ErrUnavailable)
	case err != nil || !ok:
		return engine.Receipt{}, false, err
	case digest != b.Digest:
		return engine.Receipt{}, true, engine.ErrKeyReused
	}
	last := r.ID(r.Count - 1)
	for end := replica.End(); end.Seq < last.Seq; end = replica.End() {
		if err := replica.Wait(ctx, end); err != nil {
			return engine.Receipt{}, false, err
		}
	}
	return r, true, nil
}

// publish publishes a batch until it is stored, and as often as it takes: under
// its id, which is that of its key if it has one, it is stored once.
func (l *Log) publish(ctx context.Context, b *engine.Batch, key string, deadline time.Time) (engine.Receipt, error) {
	w, err := l.pending.add(sizeOf(b))
	if err != nil {
		return engine.Receipt{}, err
	}
	defer l.pending.remove(w)
	messages := encode(l.opts.Stream, b, key, w.id)
	if err := l.fits(messages); err != nil {
		return engine.Receipt{}, err
	}
	if !time.Now().Before(deadline) {
		return engine.Receipt{}, fmt.Errorf("%w: others were waited for too long: the batch was not sent", engine.ErrUnavailable)
	}
	// Of the first try the stream is not asked to answer, which costs: the message
	// itself comes back. Who is not told why it doesn't asks a second later. But
	// another node may have stored what has a key.
	why := l.send(messages, w, 0, key != "" || time.Now().UnixNano() < l.careful.Load())
	retry := time.NewTimer(retryAfter)
	defer retry.Stop()
	unknown := func() error {
		if e := l.status.away(); e != nil {
			why = e
		} else if why == nil {
			why = errors.New("the stream does not answer")
		}
		return fmt.Errorf("after %v it is not known whether the batch is stored: %w", l.opts.Timeout, why)
	}
	for try := 1; ; {
		select {
		case r := <-w.stored:
			return r, nil
		case <-w.again:
			retry.Reset(0)
		case <-retry.C:
			left := time.Until(deadline)
			if left <= 0 {
				return engine.Receipt{}, fmt.Errorf("%w: %w", engine.ErrUnavailable, unknown())
			}
			l.beCareful()
			l.status.count(func(s *Stats) { s.Retries++ })
			if err := l.send(messages, w, try, true); err != nil {
				why = err
			}
			try++
			retry.Reset(min(retryAfter, left))
		case a := <-w.acks:
			switch {
			case a.isDuplicate() && key != "":
				// Another node was first, or this one before it was opened.
				if r, ok, err := l.foundDuplicate(ctx, b, key); ok || err != nil {
					return r, err
				}
				why = errors.New("the servers know the key, and this node does not yet")
				retry.Reset(backoff(try))
			case a.isDuplicate(): // the replica will have it
			default:
				if err := permanent(a.Error); err != nil {
					return engine.Receipt{}, err
				}
				why = a.Error
				retry.Reset(backoff(try))
			}
		case <-ctx.Done():
			return engine.Receipt{}, gaveUp(ctx, unknown())
		case <-l.done:
			return engine.Receipt{}, engine.ErrClosed
		}
	}
}

// beCareful has all publishers ask for answers for some time: one was not heard
// of, or refused, and who asks is told so at once.
func (l *Log) beCareful() {
	l.careful.Store(time.Now().Add(10 * time.Second).UnixNano())
}

// retryAfter is how long an answer may take. A new leader takes some seconds, and
// leaves unanswered what was sent before.
const retryAfter = time.Second

// backoff returns how long to wait before a try, from 0. It stays short: what is
// waited for comes all of a sudden, and publishers wait for it.
func backoff(try int) time.Duration {
	return min(25*time.Millisecond<<min(try, 4), 300*time.Millisecond)
}

// foundDuplicate returns what the stream has under a key, when this node has come
// to it.
func (l *Log) foundDuplicate(ctx context.Context, b *engine.Batch, id string) (engine.Receipt, bool, error) {
	wait, cancel := context.WithTimeout(ctx, retryAfter)
	defer cancel()
	for {
		end := l.End()
		if r, ok, err := l.stored(ctx, b, id); ok || err != nil {
			return r, ok, err
		}
		if l.Wait(wait, end) != nil {
			return engine.Receipt{}, false, nil // not in this moment
		}
	}
}

// fits tells whether the servers take messages of the size.
func (l *Log) fits(messages []*natsgo.Msg) error {
	most := l.nc.MaxPayload()
	if most == 0 { // it was never connected
		return nil
	}
	for _, m := range messages {
		n := len(m.Data) + 256 // what batches add, and more
		for k, v := range m.Header {
			n += len(k) + len(v[0]) + 4
		}
		if int64(n) > most {
			return fmt.Errorf("%w: a message of %d bytes, and the NATS servers take %d (max_payload)", engine.ErrTooLarge, n, most)
		}
	}
	return nil
}

// send publishes a batch once, and asks for an answer or not.
func (l *Log) send(messages []*natsgo.Msg, w *waiter, try int, ask bool) error {
	if ask {
		messages[len(messages)-1].Reply = l.pending.inbox + strconv.FormatUint(w.number, 36)
	}
	if len(messages) > 1 {
		number(messages, w.id+"."+strconv.Itoa(try))
	}
	for _, m := range messages {
		if err := l.nc.PublishMsg(m); err != nil {
			return err
		}
	}
	return nil
}

// Errors of the servers, as their errors.json has them.
const (
	duplicateInBatch = 10201
	batchesDisabled  = 10174
	batchTooLong     = 10199
	messageTooLarge  = 10054
)

// permanent returns what Append returns for an answer that will always be the
// same, nil for others.
func permanent(e *jetstream.APIError) error {
	switch e.ErrorCode {
	case batchesDisabled:
		return fmt.Errorf("%w: %w", errNoBatches, e)
	case batchTooLong:
		return fmt.Errorf("%w: %w", engine.ErrInvalid, e)
	case messageTooLarge:
		return fmt.Errorf("%w: %w", engine.ErrTooLarge, e)
	}
	return nil
}
