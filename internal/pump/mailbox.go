package pump

import "sync"

// A mailbox is a list that one side fills and the other is woken for. What
// bounds it is what fills it: a few entries for each connection.
type mailbox[T any] struct {
	// woken holds a token while there may be something to look at.
	woken chan struct{}
	box   *box[T]
}

type box[T any] struct {
	mu   sync.Mutex
	list []T // guarded by mu
}

func newMailbox[T any]() mailbox[T] {
	return mailbox[T]{woken: make(chan struct{}, 1), box: new(box[T])}
}

func (m mailbox[T]) wake() {
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

func (m mailbox[T]) put(v T) {
	m.box.mu.Lock()
	m.box.list = append(m.box.list, v)
	m.box.mu.Unlock()
	m.wake()
}

// takeAll returns what is there and leaves the emptied buf in its place.
func (m mailbox[T]) takeAll(buf []T) []T {
	m.box.mu.Lock()
	defer m.box.mu.Unlock()
	if len(m.box.list) == 0 {
		return buf[:0]
	}
	list := m.box.list
	clear(buf[:cap(buf)])
	m.box.list = buf[:0]
	return list
}

// takeOne returns the oldest entry, and wakes another reader if there are more.
func (m mailbox[T]) takeOne() (v T, ok bool) {
	m.box.mu.Lock()
	defer m.box.mu.Unlock()
	if len(m.box.list) == 0 {
		return v, false
	}
	v = m.box.list[0]
	var zero T
	m.box.list[0] = zero
	if m.box.list = m.box.list[1:]; len(m.box.list) > 0 {
		m.wake()
	} else {
		m.box.list = nil
	}
	return v, true
}
