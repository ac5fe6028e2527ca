package auth

import (
	"crypto/sha256"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/halley-comet/halley"
)

// A cache remembers what was found out, by hash, so that no token stays in
// memory. When it is full, what was used longest ago goes first.
type cache struct {
	entries *lru.Cache[digest, entry] // nil: none is remembered
}

type digest = [sha256.Size]byte

// An entry is a grant, or the error in its place.
type entry struct {
	grant *halley.Grant
	err   error
	until time.Time
	keys  *keySet // that a token was verified by
}

// newCache returns a cache of up to size entries; 0 or less: of none.
func newCache(size int) cache {
	if size <= 0 {
		return cache{}
	}
	entries, err := lru.New[digest, entry](size)
	if err != nil {
		panic(err) // only for a size that is none
	}
	return cache{entries}
}

func (c cache) get(d digest) (entry, bool) {
	if c.entries == nil {
		return entry{}, false
	}
	e, ok := c.entries.Get(d)
	return e, ok && time.Now().Before(e.until)
}

func (c cache) put(d digest, e entry) {
	if c.entries != nil {
		c.entries.Add(d, e)
	}
}
