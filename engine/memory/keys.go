package memory

import (
	"strings"

	"github.com/halley-comet/halley/engine"
)

// A key is what is remembered of a batch that had one.
type key struct {
	key    string
	digest [32]byte
	first  uint64
	count  int
	time   int64
}

// keys are the remembered keys, also in the order in which they came.
type keys struct {
	table[string, *key]
	queue []*key
	head  int // of queue
	cost  int64
}

func (k *keys) len() int { return len(k.queue) - k.head }

// oldest returns the oldest key, nil if there is none.
func (k *keys) oldest() *key {
	if k.len() == 0 {
		return nil
	}
	return k.queue[k.head]
}

func (k *keys) add(b *engine.Batch, first uint64, time int64) {
	r := &key{strings.Clone(b.Key), b.Digest, first, len(b.Messages), time}
	k.put(r.key, r)
	k.queue = append(k.queue, r)
	k.cost += keyCost(r.key)
}

func (k *keys) dropOldest() {
	r := k.oldest()
	k.delete(r.key)
	k.cost -= keyCost(r.key)
	k.queue[k.head] = nil
	k.head++
	if k.head >= 64 && 2*k.head >= len(k.queue) {
		k.queue = append([]*key(nil), k.queue[k.head:]...)
		k.head = 0
	}
}
