package pump

import "sync"

// A mailbox is a list that one side fills and the other is woken for. What
// bounds it is what fills it: a few entries for each connection.
type mailbox[T any] struct {
	// woken holds a token while there may be something to look at.
	woken chan struct{}
	// rung, if it is not nil, is called as well.
	rung func()

	mu     sync.Mutex
	list   []T  // guarded by mu
	closed bool // guarded by mu
}

func newMailbox[T any]() *mailbox[T] { return &mailbox[T]{woken: make(chan struct{}, 1)} }

func (m *mailbox[T]) wake() {
	select {
	case m.woken <- struct{}{}:
	default:
	}
	if m.rung != nil {
		m.rung()
	}
}

// drain takes the token, and tells whether there was one.
func (m *mailbox[T]) drain() bool {
	select {
	case <-m.woken:
		return true
	default:
		return false
	}
}

// put reports false once the mailbox is closed.
func (m *mailbox[T]) put(v T) bool {
	m.mu.Lock()
	open := !m.closed
	if open {
		m.list = append(m.list, v)
	}
	m.mu.Unlock()
	m.wake()
	return open
}

// close ends the mailbox. What is in it can still be taken.
func (m *mailbox[T]) close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
}

// takeAll returns what is there and leaves buf, which is zeroed, in its place.
func (m *mailbox[T]) takeAll(buf []T) []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == 0 {
		return buf[:0]
	}
	list := m.list
	m.list = buf[:0]
	return list
}

// takeOne returns the oldest entry, and wakes another reader if there are more.
func (m *mailbox[T]) takeOne() (v T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == 0 {
		return v, false
	}
	var zero T
	v, m.list[0] = m.list[0], zero
	if m.list = m.list[1:]; len(m.list) > 0 {
		m.wake()
	} else {
		m.list = nil
	}
	return v, true
}
