package memory

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/halley-comet/halley/engine"
)

// Append implements engine.Engine.
func (l *Log) Append(ctx context.Context, b engine.Batch) (engine.Receipt, error) {
	if l.isClosed() {
		return engine.Receipt{}, engine.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return engine.Receipt{}, err
	}
	if err := b.Check(); err != nil {
		return engine.Receipt{}, fmt.Errorf("memory: %w", err)
	}
	var one [1]*engine.Message
	messages := one[:0]
	if len(b.Messages) > 1 {
		messages = make([]*engine.Message, 0, len(b.Messages))
	}
	for i := range b.Messages {
		messages = append(messages, newMessage(&b.Messages[i]))
	}
	if !l.fits(messages, b.Key) {
		return engine.Receipt{}, fmt.Errorf("memory: %w: its limit is %d bytes", engine.ErrTooLarge, l.opts.Limit)
	}

	l.mu.Lock()
	r, err := l.appendLocked(&b, messages)
	l.mu.Unlock()
	if err == nil && !r.Repeated {
		l.bell.Ring()
	}
	return r, err
}

// AppendNow implements engine.Immediate.
func (l *Log) AppendNow(b engine.Batch) (engine.Receipt, error) {
	return l.Append(context.Background(), b)
}

func newMessage(from *engine.Message) *engine.Message {
	m := new(engine.Message)
	*m = *from
	if m.ContentType == "" {
		m.ContentType = "application/octet-stream"
	}
	// Data in a much larger array would hold memory that nothing counts.
	if cap(m.Data) > 2*len(m.Data)+64 {
		m.Data = bytes.Clone(m.Data)
	}
	return m
}

// appendLocked stores the messages, which are those of the batch.
func (l *Log) appendLocked(b *engine.Batch, messages []*engine.Message) (engine.Receipt, error) {
	if l.closed {
		return engine.Receipt{}, engine.ErrClosed
	}
	now := time.Now().UnixMilli()
	if now >= l.due.Load() {
		l.expireLocked(now, len(messages)+100)
	}
	if b.Key != "" {
		if k, ok := l.keys.get(b.Key); ok && now < k.time+l.window {
			if k.digest != b.Digest {
				return engine.Receipt{}, fmt.Errorf("memory: %w", engine.ErrKeyReused)
			}
			return engine.Receipt{First: l.cursor(k.first), Count: k.count, Time: k.time, Repeated: true}, nil
		}
	}
	l.time = max(l.time, now)
	first := l.end.Load() + 1
	for i, m := range messages {
		m.ID, m.Time = l.cursor(first+uint64(i)), l.time
		l.storeLocked(m)
	}
	if b.Key != "" {
		l.rememberLocked(b, first)
	}
	l.shrinkLocked(first)
	l.end.Store(first + uint64(len(messages)) - 1)
	l.scheduleLocked()
	return engine.Receipt{First: l.cursor(first), Count: len(messages), Time: l.time}, nil
}
