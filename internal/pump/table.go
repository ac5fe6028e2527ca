package pump

import (
	"hash/maphash"
	"math/bits"
)

// A table finds sets by key. A map would hold each key beside its set, and for
// a million sets have room for two.
//
// It has as many chains as sets (linear hashing): each set that is put in adds
// one, which takes its part of the chain that it is split from, so that it
// never stops to move all. A key's place is as many low bits of its hash as
// number all chains, or one less where there is no such chain yet.
type table struct {
	seed   maphash.Seed
	chains []*set // linked by set.next
}

// place returns a hash's chain.
func (t *table) place(hash uint64) uint64 {
	n := uint64(len(t.chains))
	size := uint64(1) << bits.Len64(n-1)
	i := hash & (size - 1)
	if i >= n {
		i -= size / 2
	}
	return i
}

// get returns the set with a key, or nil.
func (t *table) get(key []byte) *set {
	if len(t.chains) == 0 {
		return nil
	}
	s := t.chains[t.place(maphash.Bytes(t.seed, key))]
	for s != nil && s.key[0] != string(key) {
		s = s.next
	}
	return s
}

// put adds a set whose key is not there.
func (t *table) put(s *set) {
	t.chains = append(t.chains, nil)
	if split := t.buddy(); split != nil {
		chain := *split
		*split = nil
		t.link(chain)
	}
	t.link(s)
}

// remove takes a set out, and with it the last chain.
func (t *table) remove(s *set) {
	at := &t.chains[t.place(maphash.String(t.seed, s.key[0]))]
	for *at != s {
		at = &(*at).next
	}
	*at, s.next = s.next, nil
	end := len(t.chains) - 1
	chain := t.chains[end]
	t.chains[end] = nil
	t.chains = t.chains[:end]
	t.link(chain)
	if n := cap(t.chains); n > 64 && end < n/4 {
		t.chains = append(make([]*set, 0, n/2), t.chains...)
	}
}

// buddy returns the chain that the last one is split from; the first has none.
func (t *table) buddy() **set {
	last := len(t.chains) - 1
	if last == 0 {
		return nil
	}
	return &t.chains[last&^(1<<(bits.Len(uint(last))-1))]
}

// link puts each set of a chain where it belongs.
func (t *table) link(s *set) {
	for s != nil {
		next := s.next
		at := &t.chains[t.place(maphash.String(t.seed, s.key[0]))]
		s.next, *at = *at, s
		s = next
	}
}
