// Package bell wakes those who wait for an engine's end to move.
package bell

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/halley-comet/halley/engine"
)

// A Bell wakes any number of goroutines. Ringing it costs next to nothing
// while nobody listens.
type Bell struct {
	listened atomic.Bool
	mu       sync.Mutex
	rung     chan struct{} // closed by the next ring; nil while nobody listens
}

// listen returns a channel that the next ring closes.
func (b *Bell) listen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
		b.listened.Store(true)
	}
	return b.rung
}

// Ring wakes those who wait. It is called after what they wait for.
func (b *Bell) Ring() {
	if !b.listened.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
		b.listened.Store(false)
	}
}

// Wait blocks until moved, which it asks at first and after each ring. It
// returns engine.ErrClosed once done is closed, or ctx's error if that ends
// first.
func (b *Bell) Wait(ctx context.Context, done <-chan struct{}, moved func() bool) error {
	for {
		select {
		case <-done:
			return engine.ErrClosed
		default:
		}
		if moved() { // without a lock
			return nil
		}
		rung := b.listen()
		if moved() {
			continue
		}
		select {
		case <-rung:
		case <-done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
