package disk

import (
	"crypto/sha256"

	"github.com/cockroachdb/pebble/v2"
)

// A keyHash stands for an idempotency key: keys are long, and of any content.
// Nobody finds two of the same hash by chance.
type keyHash [16]byte

func hashKey(key string) keyHash {
	sum := sha256.Sum256([]byte(key))
	return keyHash(sum[:16])
}

const (
	keyCost = 192     // what a key takes on the disk, in two records
	minKeys = 1 << 12 // that are remembered however small the limit is
)

// findKey returns what is stored under an idempotency key: in the batch that
// is being made, or on disk.
func (l *Log) findKey(key keyHash, fresh map[keyHash]storedKey) (k storedKey, ok bool, err error) {
	if k, ok = fresh[key]; ok {
		return k, true, nil
	}
	l.writer.key = keyKey(l.writer.key[:0], key)
	v, closer, err := l.db.Get(l.writer.key)
	if err == pebble.ErrNotFound {
		return k, false, nil
	}
	if err != nil {
		return k, false, damage(err)
	}
	defer closer.Close()
	if !k.decode(v) {
		return k, false, corrupt("idempotency key %x: %x", key, v)
	}
	return k, true, nil
}

func (l *Log) putKey(b *pebble.Batch, key keyHash, k storedKey) {
	w := &l.writer
	b.Set(keyKey(w.key[:0], key), k.append(nil), nil)
	b.Set(expiryKey(w.key[:0], k.time, k.first), key[:], nil)
	w.keys.next = min(w.keys.next, k.time)
}

// An expiry is the queue of idempotency keys, in the order of their time.
type expiry struct {
	next int64 // the time of the first, never if there is none
}

// loadKeyExpiry finds the first of the queue.
func (l *Log) loadKeyExpiry() error {
	it, err := l.db.NewIter(nil)
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	l.writer.keys.next = never
	from := []byte{expiryKeys}
	if it.SeekGE(from) && it.Key()[0] == expiryKeys {
		if len(it.Key()) != 17 {
			return corrupt("expiry key %x", it.Key())
		}
		l.writer.keys.next = int64(lastUint64(it.Key()[:9]))
	}
	return damage(it.Error())
}

// expireKeys removes idempotency keys that are out of their window, and finds
// the time of the next one.
func (t *trimming) expireKeys(now int64) error {
	q := &t.log.writer.keys
	window := milliseconds(t.log.opts.KeyWindow)
	if now < due(q.next, window) && !t.log.manyKeys() {
		return nil
	}
	// What was removed before lies before next: it is not walked over again.
	ok := t.it.SeekGE(expiryKey(nil, q.next, 0))
	for ; ok && t.it.Key()[0] == expiryKeys; ok = t.it.Next() {
		k := t.it.Key()
		if len(k) != 17 {
			return corrupt("expiry key %x", k)
		}
		time := int64(lastUint64(k[:9]))
		if now < due(time, window) && !t.log.manyKeys() || t.more <= 0 {
			q.next = time
			return nil
		}
		t.more--
		if len(t.it.Value()) != len(keyHash{}) {
			return corrupt("expiry %x: %x", k, t.it.Value())
		}
		hash := keyHash(t.it.Value())
		stored, found, err := t.log.findKey(hash, nil)
		if err != nil {
			return err
		}
		// The key may have been used again since.
		if found && stored.first == lastUint64(k) {
			t.b.Delete(keyKey(nil, hash), nil)
			t.log.writer.state.keys--
		}
		t.b.Delete(k, nil)
	}
	q.next = never
	return damage(t.it.Error())
}
