package disk

import (
	"sync"
	"sync/atomic"
)

// A bell wakes any number of goroutines. Ringing it costs next to nothing
// while nobody listens.
type bell struct {
	listened atomic.Bool
	mu       sync.Mutex
	rung     chan struct{} // closed by the next ring; nil while nobody listens
}

// listen returns a channel that the next ring closes.
func (b *bell) listen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
		b.listened.Store(true)
	}
	return b.rung
}

func (b *bell) ring() {
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
