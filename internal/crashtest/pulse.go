package crashtest

import (
	"sync"
	"time"
)

// A Pulse is told each time that something happens which should go on.
type Pulse struct {
	mu      sync.Mutex
	left    int
	enough  chan struct{}
	last    time.Time
	longest time.Duration
}

// Tick tells that it has happened.
func (p *Pulse) Tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left--; p.left == 0 {
		close(p.enough)
	}
	now := time.Now()
	p.longest, p.last = max(p.longest, now.Sub(p.last)), now
}

// Await returns a channel that is closed after it has happened so often.
func (p *Pulse) Await(n int) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.enough = n, make(chan struct{})
	return p.enough
}

// Longest returns the longest time in which it did not happen since the last
// call.
func (p *Pulse) Longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	longest := max(p.longest, now.Sub(p.last))
	p.longest, p.last = 0, now
	return longest
}
