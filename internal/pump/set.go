package pump

import (
	"hash/maphash"
	"slices"
	"strings"

	"github.com/halley-comet/halley/engine"
)

// An index finds a worker's connections by channel. It belongs to the worker.
//
// Connections that want the same channels share a set, so that a message is
// matched against a set once, however many connections there are on it. Most
// sets are of one name, and there may be a million: they are found by it at
// once, and only the others are in lists.
type index struct {
	sets     table             // by key
	lists    map[string][]*set // of several names, by each of them, in no order
	patterns int               // names of sets that are patterns
	finds    uint64            // calls of find, to find each set once
}

// A set is what some connections want. It does not change: a connection that
// wants something else goes to another set.
type set struct {
	key  [1]string // the name, or the names in order: no slice is made for one
	next *set      // in the table
	// members are the connections, in no order. The first is in room.
	members []*Conn
	room    [1]*Conn
	rare    *rareSet // nil while there is nothing in it
}

// rareSet is what a set has that is not of one name, or is walked.
type rareSet struct {
	names  []string // sorted; nil if the key is the only one
	places []int    // of each name's list, where this set is in it
	// has is the names, where there are too many to look through.
	has   map[string]struct{}
	found uint64 // the find that came by last
	// walkers counts the fan-outs that are part of the way through members.
	// Meanwhile a connection that leaves makes a hole, and none moves.
	walkers, holes int
}

// fewNames is how many names are looked through one by one.
const fewNames = 8

func newIndex() *index {
	return &index{sets: table{seed: maphash.MakeSeed()}, lists: map[string][]*set{}}
}

// names returns the set's names and patterns, sorted.
func (s *set) names() []string {
	if s.rare != nil && s.rare.names != nil {
		return s.rare.names
	}
	return s.key[:]
}

// rarely returns what is rare of the set, to be set.
func (s *set) rarely() *rareSet {
	if s.rare == nil {
		s.rare = &rareSet{}
	}
	return s.rare
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
	s := x.sets.get([]byte(key))
	if s == nil {
		s = x.newSet(key, len(names))
	}
	c.set, c.at = s, uint32(len(s.members))
	s.members = append(s.members, c)
	if len(s.members) == 2 {
		s.room[0] = nil // it has moved
	}
}

// newSet makes a set. Its strings are its own: those of a request would keep
// all of the request.
func (x *index) newSet(key string, n int) *set {
	s := &set{key: [1]string{strings.Clone(key)}}
	s.members = s.room[:0]
	x.sets.put(s)
	if n != 1 {
		x.list(s, n)
	}
	for _, name := range s.names() {
		if isPattern(name) {
			x.patterns++
		}
	}
	return s
}

// list puts a set of several names, or none, into its names' lists.
func (x *index) list(s *set, n int) {
	r := s.rarely()
	r.names = []string{}
	if n > 0 {
		r.names = strings.Split(s.key[0], "\x00")
	}
	r.places = make([]int, n)
	if n > fewNames {
		r.has = make(map[string]struct{}, n)
	}
	for i, name := range r.names {
		r.places[i] = len(x.lists[name])
		x.lists[name] = append(x.lists[name], s)
		if r.has != nil {
			r.has[name] = struct{}{}
		}
	}
}

// unlist takes a set of several names out of their lists.
func (x *index) unlist(s *set) {
	for i, name := range s.rare.names {
		l, place := x.lists[name], s.rare.places[i]
		end := len(l) - 1
		if end == 0 {
			delete(x.lists, name)
			continue
		}
		moved := l[end].rare
		l[place] = l[end]
		at, _ := slices.BinarySearch(moved.names, name)
		moved.places[at] = place
		l[end] = nil
		x.lists[name] = l[:end]
	}
}

// remove takes a connection off its set.
func (x *index) remove(c *Conn) {
	s := c.set
	c.set = nil
	if r := s.rare; r != nil && r.walkers > 0 {
		s.members[c.at] = nil
		r.holes++
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
	r := s.rare
	if r.walkers--; r.walkers > 0 {
		return
	}
	for i := 0; r.holes > 0; {
		switch end := len(s.members) - 1; {
		case s.members[end] == nil:
			s.members = s.members[:end]
			r.holes--
		case s.members[i] == nil:
			s.drop(uint32(i))
			r.holes--
		default:
			i++
		}
	}
	if r.names == nil {
		s.rare = nil
	}
	x.prune(s)
}

// prune forgets a set that nobody is on.
func (x *index) prune(s *set) {
	if len(s.members) > 0 || x.sets.get([]byte(s.key[0])) != s {
		return
	}
	x.sets.remove(s)
	for _, name := range s.names() {
		if isPattern(name) {
			x.patterns--
		}
	}
	if s.rare != nil {
		x.unlist(s)
	}
}

func isPattern(name string) bool {
	_, kind := engine.SplitPattern(name)
	return kind != engine.Exact
}

// find appends the sets that want the channel's messages, each once.
func (x *index) find(buf []*set, channel string) []*set {
	x.finds++
	var name [maxName]byte
	buf = x.append(buf, append(name[:0], channel...))
	if x.patterns == 0 {
		return buf
	}
	for prefix, kind := range engine.Patterns(channel) {
		buf = x.append(buf, appendPattern(name[:0], prefix, kind))
	}
	return buf
}

// append appends the sets that have a name or pattern.
func (x *index) append(buf []*set, name []byte) []*set {
	if s := x.sets.get(name); s != nil {
		buf = append(buf, s)
	}
	if len(x.lists) == 0 {
		return buf
	}
	for _, s := range x.lists[string(name)] {
		if r := s.rare; r.found != x.finds {
			r.found = x.finds
			buf = append(buf, s)
		}
	}
	return buf
}

// wants tells whether a channel's messages are for the set.
func (s *set) wants(channel string) bool {
	if s.rare == nil || s.rare.has == nil {
		for _, name := range s.names() {
			if engine.Match(name, channel) {
				return true
			}
		}
		return false
	}
	has := s.rare.has
	if _, ok := has[channel]; ok {
		return true
	}
	var name [maxName]byte
	for prefix, kind := range engine.Patterns(channel) {
		if _, ok := has[string(appendPattern(name[:0], prefix, kind))]; ok {
			return true
		}
	}
	return false
}

// maxName is the length of what appendPattern makes of a channel, at most.
const maxName = engine.MaxChannel + len("/**")

// appendPattern appends the pattern that engine.SplitPattern splits so.
func appendPattern(b []byte, prefix string, kind engine.PatternKind) []byte {
	b = append(b, prefix...)
	if prefix != "" {
		b = append(b, '/')
	}
	return append(b, "**"[:kind]...) // One is 1, Below 2
}
