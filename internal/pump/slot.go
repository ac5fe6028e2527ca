package pump

import (
	"context"
	"sync/atomic"
)

// A slot is between a worker and the goroutine that writes a connection. There
// is room for one flush.
type slot struct {
	flushes chan Flush // of capacity 1, filled and in the end closed by the worker
	// wanted asks the writing goroutine to tell the worker when it has taken
	// the flush.
	wanted atomic.Bool
}

func newSlot() *slot { return &slot{flushes: make(chan Flush, 1)} }

func (s *slot) room() bool {
	if len(s.flushes) == 0 {
		return true
	}
	s.wanted.Store(true)
	return len(s.flushes) == 0
}

// Next returns the next flush. It is for the one goroutine that writes. It
// returns ctx's error, or ErrClosed when the connection has left, its last
// flush was taken, or the pump is closed.
func (c *Conn) Next(ctx context.Context) (Flush, error) {
	select {
	case f, ok := <-c.slot.flushes:
		if !ok {
			return f, ErrClosed
		}
		if c.slot.wanted.Swap(false) {
			c.worker.inbox.put(command{conn: c, do: (*worker).ready})
		}
		return f, nil
	case <-ctx.Done():
		return Flush{}, ctx.Err()
	case <-c.worker.pump.ctx.Done():
		return Flush{}, ErrClosed
	}
}
