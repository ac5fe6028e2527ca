package disk

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

// A Part is a part of the log that a replica follows: what was stored there as
// one batch, or nothing.
type Part struct {
	// First is the position of the first message. The others follow without a
	// hole. If it is not the one after the replica's end, what lies between is
	// in the replica for ever missing: a cursor before it is a gap. Without
	// messages, the replica's end comes to the position before First.
	First uint64
	// Messages keep their Time, as far as times do not go back.
	Messages []engine.Message
	// Mark is any number that tells the last message from others that may come
	// to have its position, should the log that is followed lose it.
	Mark uint64
	// Key and Digest are as in engine.Batch.
	Key    string
	Digest [32]byte
}

// Follow stores the next parts of the log that this one is a replica of, and
// returns when readers see them. It is called by one goroutine at a time.
//
// Errors: engine.ErrInvalid if a part goes back, or if its messages are none
// that Append would take; engine.ErrUnavailable, engine.ErrClosed, or ctx's.
func (l *Log) Follow(ctx context.Context, parts []Part) error {
	if l.opts.Follow == "" {
		return fmt.Errorf("disk: %w: not a replica", engine.ErrInvalid)
	}
	requests := make([]*request, 0, len(parts))
	end := l.end.Load()
	for i := range parts {
		p := &parts[i]
		b := engine.Batch{Messages: p.Messages, Key: p.Key, Digest: p.Digest}
		if len(b.Messages) > 0 {
			if err := b.Check(); err != nil {
				return fmt.Errorf("disk: %w", err)
			}
		}
		if p.First <= end || p.First > engine.MaxSeq {
			return fmt.Errorf("disk: %w: a part begins at %d, and the replica ends at %d", engine.ErrInvalid, p.First, end)
		}
		end = p.First + uint64(len(b.Messages)) - 1
		r := l.newRequest(&b)
		r.timed, r.first, r.mark = true, p.First, p.Mark
		requests = append(requests, r)
	}
	for i, r := range requests {
		if !l.queue.add(r) {
			requests = requests[:i]
			break
		}
	}
	for _, r := range requests {
		if _, err := l.await(ctx, r); err != nil {
			return err
		}
	}
	if len(requests) < len(parts) {
		return engine.ErrClosed
	}
	return nil
}

// assignFollowed gives a part's messages the places that they have.
func (l *Log) assignFollowed(c *commit, r *request) error {
	w := &l.writer
	if r.first != w.end+1 {
		w.floor, w.end, c.jumps = r.first-1, r.first-1, true
	}
	w.mark = r.mark
	for i, m := range r.messages {
		w.time = max(w.time, m.Time)
		w.end++
		m.ID, m.Time = l.cursor(w.end), w.time
		c.stored = append(c.stored, stored{m, r.bodies[i]})
	}
	if r.key == "" {
		return nil
	}
	// The log that is followed has decided that the key was not used before, or
	// not within its window.
	hash := hashKey(r.key)
	_, known, err := l.findKey(hash, c.keys)
	if err != nil {
		return err
	}
	l.rememberKey(c, hash, storedKey{r.digest, r.first, uint32(len(r.messages)), w.time}, known)
	return nil
}

// Followed returns the position that a replica has come to and the mark that it
// was given for it, 0 where there is none. It is for the goroutine that calls
// Follow.
func (l *Log) Followed() (end, mark uint64) {
	return l.end.Load(), l.mark.Load()
}

// Stored returns what was stored under an idempotency key within the window. It
// may know of it before readers see the messages.
func (l *Log) Stored(key string) (r engine.Receipt, digest [32]byte, ok bool, err error) {
	l.reading.RLock()
	defer l.reading.RUnlock()
	if l.isClosed() {
		return r, digest, false, engine.ErrClosed
	}
	v, closer, err := l.db.Get(keyKey(nil, hashKey(key)))
	if err == pebble.ErrNotFound {
		return r, digest, false, nil
	}
	if err != nil {
		return r, digest, false, fmt.Errorf("disk: %w: %w", engine.ErrUnavailable, damage(err))
	}
	defer closer.Close()
	var k storedKey
	if !k.decode(v) {
		return r, digest, false, fmt.Errorf("disk: %w: %w", engine.ErrUnavailable, corrupt("idempotency key: %x", v))
	}
	if time.Now().UnixMilli() >= due(k.time, milliseconds(l.opts.KeyWindow)) {
		return r, digest, false, nil
	}
	return engine.Receipt{First: l.cursor(k.first), Count: int(k.count), Time: k.time, Repeated: true}, k.digest, true, nil
}
