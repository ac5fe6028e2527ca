package disk

import (
	"encoding/binary"

	"github.com/halley-comet/halley/engine"
)

// formatVersion is the version of the layout that doc.go draws.
const formatVersion = 2

// The first byte of a key.
const (
	metaKeys    = 0x01
	messageKeys = 0x02
	listKeys    = 0x03
	trimKeys    = 0x04
	ageKeys     = 0x05
	keyKeys     = 0x06
	expiryKeys  = 0x07
	fullKeys    = 0x08
)

var (
	formatKey  = []byte("\x01format")
	epochKey   = []byte("\x01epoch")
	sessionKey = []byte("\x01session")
	stateKey   = []byte("\x01state")
	rulesKey   = []byte("\x01rules")
	followKey  = []byte("\x01follow")
)

func appendUint64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }

// lastUint64 returns the number that a key ends with.
func lastUint64(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

func messageKey(dst []byte, seq uint64) []byte { return appendUint64(append(dst, messageKeys), seq) }

// listPrefix is what the keys of a list have before the sequence.
func listPrefix(dst []byte, name string, kind engine.PatternKind) []byte {
	if name == "" && kind == engine.Below {
		return append(dst, messageKeys)
	}
	dst = append(dst, listKeys, byte(kind))
	dst = append(dst, name...)
	return append(dst, 0)
}

// trimKey is that of the highest sequence removed from a list.
func trimKey(dst []byte, name string, kind engine.PatternKind) []byte {
	dst = append(dst, trimKeys, byte(kind))
	return append(dst, name...)
}

func ageKey(dst []byte, age int64, seq uint64) []byte {
	return appendUint64(appendUint64(append(dst, ageKeys), uint64(age)), seq)
}

func keyKey(dst []byte, key keyHash) []byte { return append(append(dst, keyKeys), key[:]...) }

func expiryKey(dst []byte, time int64, seq uint64) []byte {
	return appendUint64(appendUint64(append(dst, expiryKeys), uint64(time)), seq)
}

func fullKey(dst []byte, channel string) []byte { return append(append(dst, fullKeys), channel...) }

// A state is what the log counts. It is rewritten with every batch.
type state struct {
	end      uint64 // the newest sequence
	time     int64  // of the newest message
	messages uint64 // kept
	bytes    int64  // what they cost
	oldest   uint64 // no message kept is older; one may be newer
	floor    uint64 // what a list without a trim record had removed at most
	trims    uint64 // trim records
	keys     uint64 // idempotency keys
	listed   uint64 // all up to it are in their lists
}

const stateLen = 9 * 8

func (s *state) append(dst []byte) []byte {
	for _, v := range [...]uint64{s.end, uint64(s.time), s.messages, uint64(s.bytes), s.oldest, s.floor, s.trims, s.keys, s.listed} {
		dst = appendUint64(dst, v)
	}
	return dst
}

func (s *state) decode(b []byte) bool {
	if len(b) == stateLen-8 { // format 1, which listed each message at once
		b = append(b[:len(b):len(b)], b[:8]...)
	}
	if len(b) != stateLen {
		return false
	}
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	*s = state{at(0), int64(at(1)), at(2), int64(at(3)), at(4), at(5), at(6), at(7), at(8)}
	return true
}

// A storedKey is the value of an idempotency key.
type storedKey struct {
	digest [32]byte
	first  uint64
	count  uint32
	time   int64
}

const storedKeyLen = 32 + 8 + 4 + 8

func (k *storedKey) append(dst []byte) []byte {
	dst = appendUint64(append(dst, k.digest[:]...), k.first)
	return appendUint64(binary.BigEndian.AppendUint32(dst, k.count), uint64(k.time))
}

func (k *storedKey) decode(b []byte) bool {
	if len(b) != storedKeyLen {
		return false
	}
	copy(k.digest[:], b)
	k.first = binary.BigEndian.Uint64(b[32:])
	k.count = binary.BigEndian.Uint32(b[40:])
	k.time = int64(binary.BigEndian.Uint64(b[44:]))
	return true
}
