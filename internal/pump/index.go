package pump

import "github.com/halley-comet/halley/engine"

// An index finds a worker's connections by channel. It belongs to the worker.
type index struct {
	// lists by the parts that engine.SplitPattern returns
	exact, one, below map[string]*list
}

// A list holds the connections of one name or pattern, in no order.
type list struct {
	name  string
	conns []*Conn
	// walkers counts the fan-outs that are part of the way through conns.
	// Meanwhile a connection that leaves makes a hole, and none moves.
	walkers int
	holes   int
}

// A place is where a connection stands in a list.
type place struct {
	name string
	list *list
	at   int // in list.conns
}

func newIndex() *index {
	return &index{exact: map[string]*list{}, one: map[string]*list{}, below: map[string]*list{}}
}

func (x *index) of(name string) (map[string]*list, string) {
	prefix, kind := engine.SplitPattern(name)
	switch kind {
	case engine.One:
		return x.one, prefix
	case engine.Below:
		return x.below, prefix
	}
	return x.exact, prefix
}

// add puts the connection into the list of a name or pattern.
func (x *index) add(c *Conn, name string) {
	m, key := x.of(name)
	l := m[key]
	if l == nil {
		l = &list{name: name}
		m[key] = l
	}
	c.subs = append(c.subs, place{name: name, list: l, at: len(l.conns)})
	l.conns = append(l.conns, c)
}

// remove takes the connection out of the list of its subscription i.
func (x *index) remove(c *Conn, i int) {
	s := c.subs[i]
	l := s.list
	if l.walkers > 0 {
		l.conns[s.at] = nil
		l.holes++
	} else {
		l.drop(s.at)
		x.prune(l)
	}
	end := len(c.subs) - 1
	c.subs[i] = c.subs[end]
	c.subs[end] = place{}
	c.subs = c.subs[:end]
}

// drop fills entry at with the last one.
func (l *list) drop(at int) {
	end := len(l.conns) - 1
	moved := l.conns[end]
	l.conns[end] = nil
	l.conns = l.conns[:end]
	if at == end {
		return
	}
	l.conns[at] = moved
	for i := range moved.subs {
		if moved.subs[i].list == l && moved.subs[i].at == end {
			moved.subs[i].at = at
			return
		}
	}
}

// prune forgets a list that nobody is on.
func (x *index) prune(l *list) {
	if len(l.conns) == 0 {
		m, key := x.of(l.name)
		delete(m, key)
	}
}

// release ends a fan-out's walk, and closes the holes after the last one.
func (x *index) release(l *list) {
	if l.walkers--; l.walkers > 0 {
		return
	}
	for i := 0; l.holes > 0 && i < len(l.conns); {
		end := len(l.conns) - 1
		switch {
		case l.conns[end] == nil:
			l.conns = l.conns[:end]
			l.holes--
		case l.conns[i] == nil:
			l.drop(i)
			l.holes--
		default:
			i++
		}
	}
	x.prune(l)
}

// find appends the lists of connections that want the channel's messages. A
// connection may be in more than one.
func (x *index) find(buf []*list, channel string) []*list {
	if l := x.exact[channel]; l != nil {
		buf = append(buf, l)
	}
	if len(x.one)+len(x.below) == 0 {
		return buf
	}
	for prefix, kind := range engine.Patterns(channel) {
		m := x.below
		if kind == engine.One {
			m = x.one
		}
		if l := m[prefix]; l != nil {
			buf = append(buf, l)
		}
	}
	return buf
}
