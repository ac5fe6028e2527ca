package engine

import "fmt"

// Check reports what is wrong with a batch: its number of messages, its key or
// one of its messages. The error wraps ErrInvalid.
func (b *Batch) Check() error {
	switch n := len(b.Messages); {
	case n == 0:
		return fmt.Errorf("%w: empty batch", ErrInvalid)
	case n > MaxBatch:
		return fmt.Errorf("%w: batch of %d messages, at most %d", ErrInvalid, n, MaxBatch)
	case len(b.Key) > MaxKey:
		return fmt.Errorf("%w: key of %d bytes, at most %d", ErrInvalid, len(b.Key), MaxKey)
	}
	for i := range b.Messages {
		if err := b.Messages[i].Check(); err != nil {
			return fmt.Errorf("message %d of %d: %w", i+1, len(b.Messages), err)
		}
	}
	return nil
}

// Check reports what is wrong with a query: its channels, or a bound that is
// negative. The error wraps ErrInvalid.
func (q *Query) Check() error {
	switch {
	case len(q.Channels) == 0:
		return fmt.Errorf("%w: query without channels", ErrInvalid)
	case q.From != nil && len(q.From) != len(q.Channels):
		return fmt.Errorf("%w: From has %d entries for %d channels", ErrInvalid, len(q.From), len(q.Channels))
	case q.Limit < 0:
		return fmt.Errorf("%w: limit %d is negative", ErrInvalid, q.Limit)
	case q.Bytes < 0:
		return fmt.Errorf("%w: bytes %d is negative", ErrInvalid, q.Bytes)
	}
	for _, c := range q.Channels {
		if err := CheckPattern(c); err != nil {
			return err
		}
	}
	return nil
}
