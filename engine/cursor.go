package engine

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// A Cursor is a position in the log: everything up to and including Seq.
type Cursor struct {
	// Epoch names the log's incarnation, 1 to 16 bytes of [0-9a-z]. It changes
	// whenever sequences could be given out twice.
	Epoch string
	// Seq counts messages from 1, below 1<<63; 0 is before the first.
	Seq uint64
}

// MaxSeq is the highest sequence.
const MaxSeq = 1<<63 - 1

// IsZero tells whether c is the zero Cursor, which is no position.
func (c Cursor) IsZero() bool { return c == Cursor{} }

// String returns the cursor as it goes over the wire: epoch-sequence.
func (c Cursor) String() string { return string(c.Append(nil)) }

// Append appends what String returns to dst.
func (c Cursor) Append(dst []byte) []byte {
	dst = append(dst, c.Epoch...)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, c.Seq, 10)
}

// ParseCursor parses what String returns. It takes nothing else: a sequence
// has no sign and no leading zero.
func ParseCursor(s string) (Cursor, error) {
	epoch, digits, ok := strings.Cut(s, "-")
	if !ok || !ValidEpoch(epoch) {
		return Cursor{}, fmt.Errorf("engine: cursor %.40q: want <epoch>-<sequence>", s)
	}
	seq, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || digits[0] == '+' || len(digits) > 1 && digits[0] == '0' {
		return Cursor{}, fmt.Errorf("engine: cursor %.40q: the sequence is not a decimal number below 2^63", s)
	}
	return Cursor{Epoch: epoch, Seq: seq}, nil
}

// ValidEpoch tells whether s may name an epoch.
func ValidEpoch(s string) bool {
	if len(s) < 1 || len(s) > 16 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// MarshalText implements [encoding.TextMarshaler]. The zero Cursor is empty.
func (c Cursor) MarshalText() ([]byte, error) {
	if c.IsZero() {
		return nil, nil
	}
	return c.Append(nil), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (c *Cursor) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*c = Cursor{}
		return nil
	}
	p, err := ParseCursor(string(b))
	if err == nil {
		*c = p
	}
	return err
}

// NewEpoch returns an epoch that no log has had: 64 random bits.
func NewEpoch() string {
	var b [8]byte
	rand.Read(b[:])
	return strconv.FormatUint(binary.NativeEndian.Uint64(b[:]), 36)
}
