package pump

import (
	"slices"
	"strings"

	"github.com/halley-comet/halley/engine"
)

// An index finds a worker's connections by channel. It belongs to the worker.
//
// Connections that want the same channels share a set, so that a message is
// matched against a set once, however many connections there are on it.
type index struct {
	// lists by the parts that engine.SplitPattern returns
	exact, one, below map[string]*list
	sets              map[string]*set // by key
	finds             uint64          // calls of find, to find each set once
}

// A list holds the sets that have one name or pattern, in no order.
type list struct {
	sets []*set
}

// A set is what some connections want. It does not change: a connection that
// wants something else goes to another set.
type set struct {
	key    string   // the names, in order
	names  []string // sorted
	places []int    // of each name's list, where this set is in it
	// has is the names, where there are too many to look through.
	has map[string]struct{}
	// members are the connections, in no order.
	members []*Conn
	// walkers counts the fan-outs that are part of the way through members.
	// Meanwhile a connection that leaves makes a hole, and none moves.
	walkers, holes int
	found          uint64 // the find that came by last
}

// fewNames is how many names are looked through one by one.
const fewNames = 8

func newIndex() *index {
	return &index{exact: map[string]*list{}, one: map[string]*list{}, below: map[string]*list{}, sets: map[string]*set{}}
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

// add puts a connection on the set of these names, which are each there once.
func (x *index) add(c *Conn, names []string) {
	var key string
	if len(names) == 1 {
		key = names[0]
	} else {
		names = slices.Clone(names)
		slices.Sort(names)
		key = strings.Join(names, "\x00")
	}
	s := x.sets[key]
	if s == nil {
		s = x.newSet(key, len(names))
	}
	c.set, c.at = s, uint32(len(s.members))
	s.members = append(s.members, c)
}

// newSet makes a set. Its strings are its own: those of a request would keep
// all of the request.
func (x *index) newSet(key string, n int) *set {
	s := &set{key: strings.Clone(key)}
	x.sets[s.key] = s
	if n == 0 {
		return s
	}
	s.names = make([]string, 0, n)
	s.places = make([]int, 0, n)
	if n > fewNames {
		s.has = make(map[string]struct{}, n)
	}
	for name := range strings.SplitSeq(s.key, "\x00") {
		m, key := x.of(name)
		l := m[key]
		if l == nil {
			l = &list{}
			m[key] = l
		}
		s.names = append(s.names, name)
		s.places = append(s.places, len(l.sets))
		if s.has != nil {
			s.has[name] = struct{}{}
		}
		l.sets = append(l.sets, s)
	}
	return s
}

// remove takes a connection off its set.
func (x *index) remove(c *Conn) {
	s := c.set
	c.set = nil
	if s.walkers > 0 {
		s.members[c.at] = nil
		s.holes++
		return
	}
	s.drop(c.at)
	x.prune(s)
}

// drop fills the place at with the last member.
func (s *set) drop(at uint32) {
	end := len(s.members) - 1
	moved := s.members[end]
	s.members[at] = moved
	if moved != nil {
		moved.at = at
	}
	s.members[end] = nil
	s.members = s.members[:end]
	if n := cap(s.members); n > 64 && end < n/4 {
		s.members = append(make([]*Conn, 0, n/2), s.members...)
	}
}

// release ends a fan-out's walk, and closes the holes after the last one.
func (x *index) release(s *set) {
	if s.walkers--; s.walkers > 0 {
		return
	}
	for i := 0; s.holes > 0; {
		switch end := len(s.members) - 1; {
		case s.members[end] == nil:
			s.members = s.members[:end]
			s.holes--
		case s.members[i] == nil:
			s.drop(uint32(i))
			s.holes--
		default:
			i++
		}
	}
	x.prune(s)
}

// prune forgets a set that nobody is on.
func (x *index) prune(s *set) {
	if len(s.members) > 0 || x.sets[s.key] != s {
		return
	}
	delete(x.sets, s.key)
	for i, name := range s.names {
		m, key := x.of(name)
		l := m[key]
		end := len(l.sets) - 1
		if end == 0 {
			delete(m, key)
			continue
		}
		moved := l.sets[end]
		l.sets[s.places[i]] = moved
		at, _ := slices.BinarySearch(moved.names, name)
		moved.places[at] = s.places[i]
		l.sets[end] = nil
		l.sets = l.sets[:end]
	}
}

// find appends the sets that want the channel's messages, each once.
func (x *index) find(buf []*set, channel string) []*set {
	x.finds++
	buf = x.append(buf, x.exact[channel])
	if len(x.one)+len(x.below) == 0 {
		return buf
	}
	for prefix, kind := range engine.Patterns(channel) {
		m := x.below
		if kind == engine.One {
			m = x.one
		}
		buf = x.append(buf, m[prefix])
	}
	return buf
}

func (x *index) append(buf []*set, l *list) []*set {
	if l == nil {
		return buf
	}
	for _, s := range l.sets {
		if s.found != x.finds {
			s.found = x.finds
			buf = append(buf, s)
		}
	}
	return buf
}

// wants tells whether a channel's messages are for the set.
func (s *set) wants(channel string) bool {
	if s.has == nil {
		for _, name := range s.names {
			if engine.Match(name, channel) {
				return true
			}
		}
		return false
	}
	if _, ok := s.has[channel]; ok {
		return true
	}
	var buf [engine.MaxChannel + 4]byte
	for prefix, kind := range engine.Patterns(channel) {
		b := append(buf[:0], prefix...)
		if prefix != "" {
			b = append(b, '/')
		}
		b = append(b, "**"[:kind]...) // One is 1, Below 2
		if _, ok := s.has[string(b)]; ok {
			return true
		}
	}
	return false
}
