package halley

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"unicode/utf8"

	"github.com/halley-comet/halley/internal/wire"
)

// maxKey is the length of an Idempotency-Key at most, in bytes.
const maxKey = 255

// idempotencyKey returns the key of a request, empty if it has none.
func idempotencyKey(header http.Header) (string, *wire.Problem) {
	values := header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	if p := checkKey(values[0]); p != nil {
		return "", p
	}
	return values[0], nil
}

func checkKey(key string) *wire.Problem {
	if len(key) < 1 || len(key) > maxKey || !utf8.ValidString(key) {
		return wire.NewProblem(wire.InvalidKey, fmt.Sprintf("a key has 1 to %d bytes", maxKey))
	}
	return nil
}

// clientKey keeps clients' keys apart from those of the hub's own program, and
// those of one user from another's. A user's name has its length before it, so
// that no two of them can be taken for each other.
func clientKey(user, key string) string {
	if user == "" {
		return "user\x00\x00" + key
	}
	return fmt.Sprintf("user\x00%d\x00%s\x00%s", len(user), user, key)
}

// digest sums up what a publish request asks for, so that a repeat can be told
// from another request under the same key.
func digest(messages []Message, list bool) [32]byte {
	sum := sha256.New()
	field := func(s []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		sum.Write(n[:])
		sum.Write(s)
	}
	if list {
		field([]byte(ndjsonType))
	}
	for i := range messages {
		m := &messages[i]
		field([]byte(m.Channel))
		field([]byte(m.Type))
		field([]byte(m.ContentType))
		field(m.Data)
	}
	return [32]byte(sum.Sum(nil))
}
