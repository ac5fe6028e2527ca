package pump

import (
	"sync"

	"github.com/halley-comet/halley/internal/wire"
)

// A Lease is what connections are held by, until it ends: those of one client,
// by its token and its address. The zero Lease is ready to be used.
type Lease struct {
	// Owner is whose it is, for those that have only the lease.
	Owner any
	// Count is called with 1 for each connection that begins to be held and had
	// no Place, and with -1 when one is over, in any goroutine. Nil does
	// nothing.
	Count func(n int64)

	mu    sync.Mutex
	conns map[*Conn]struct{}
	ended *wire.Control // guarded by mu: what connections are told; nil while it lasts
}

// A Place is that of one connection under a lease. Who makes it has counted it:
// so that of those that come at once no more get one than there are.
type Place struct {
	Lease *Lease
	taken bool
}

// Taken tells whether a connection has come to the place. Its end is then told
// to Count.
func (p *Place) Taken() bool { return p.taken }

// Held returns what holds a connection that has the place, which may be nil.
func (p *Place) Held() *Lease {
	if p == nil {
		return nil
	}
	return p.Lease
}

// take has a connection come to the place that join gives to its worker, unless
// join reports false. The worker lets go of it only then, however soon it ends.
func (p *Place) take(c *Conn, join func() bool) bool {
	if p == nil {
		return join()
	}
	l := p.Lease
	l.mu.Lock()
	defer l.mu.Unlock()
	p.taken = join()
	if p.taken {
		l.put(c)
	}
	return p.taken
}

// End ends all connections with a control, and those that come later. Those
// whose clients do not read it are cut in a moment.
func (l *Lease) End(ctrl *wire.Control) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = ctrl
	for c := range l.conns {
		c.endSoon(ctrl)
	}
}

// Len returns the number of connections.
func (l *Lease) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// put notes that the lease holds a connection, and tells it if that is over. mu
// is held.
func (l *Lease) put(c *Conn) {
	if l.conns == nil {
		l.conns = make(map[*Conn]struct{})
	}
	l.conns[c] = struct{}{}
	if l.ended != nil {
		c.endSoon(l.ended)
	}
}

// add has the lease hold a connection that had another, and may be over
// already.
func (l *Lease) add(c *Conn) {
	l.mu.Lock()
	_, held := l.conns[c]
	l.put(c)
	l.mu.Unlock()
	if !held {
		l.count(1)
	}
	if c.left.Load() {
		l.remove(c)
	}
}

// remove is called at least once when a connection is over.
func (l *Lease) remove(c *Conn) {
	l.mu.Lock()
	_, held := l.conns[c]
	delete(l.conns, c)
	l.mu.Unlock()
	if held {
		l.count(-1)
	}
}

func (l *Lease) count(n int64) {
	if l.Count != nil {
		l.Count(n)
	}
}

// Lease returns what the connection is held by, nil if that is nothing. It is
// for Kind's functions.
func (c *Conn) Lease() *Lease { return c.worker.leases[c] }

// SetLease has another lease hold the connection.
func (c *Conn) SetLease(l *Lease) {
	l.add(c)
	c.worker.inbox.put(command{conn: c, do: func(w *worker, c *Conn) {
		before := w.leases[c]
		switch {
		case c.state == gone:
			l.remove(c)
		case before != l:
			w.hold(c, l)
			if before != nil {
				before.remove(c)
			}
		}
	}})
}

// hold notes what a connection is held by. Most are held by nothing, and have
// no room for it.
func (w *worker) hold(c *Conn, l *Lease) {
	if l == nil {
		return
	}
	if w.leases == nil {
		w.leases = make(map[*Conn]*Lease)
	}
	w.leases[c] = l
	c.on(leased)
}

// letGo is called when a connection is over.
func (w *worker) letGo(c *Conn) {
	if c.is(leased) {
		l := w.leases[c]
		delete(w.leases, c)
		c.off(leased)
		l.remove(c)
	}
}
