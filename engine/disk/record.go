package disk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/halley-comet/halley/engine"
)

// A message's record is a body, which its publisher encodes, and a trailer,
// which the writer adds when it knows where the message goes:
//
//	body     channel, type, content type: each uvarint length and bytes
//	         headers: uvarint number, then name and value of each, likewise
//	         data: the rest of the body
//	trailer  age 8    milliseconds of the queue it is in, 0 for none
//	         time 8   Unix milliseconds
//	         seq 8
//	         zero 2   in format 1, how many messages of its group followed
//	         crc 4    CRC-32C of all before it
//
// The checksum is Halley's own, beside that of Pebble's blocks. It finds a
// record that stands in the wrong place as well.
const trailerLen = 8 + 8 + 8 + 2 + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A body is an encoded message that has no place in the log yet.
type body struct {
	bytes []byte
	crc   uint32
}

func newBody(b []byte) body { return body{b, crc32.Update(0, castagnoli, b)} }

// maxBody is what appendBody appends at most.
func maxBody(m *engine.Message) int {
	n := len(m.Channel) + len(m.Type) + len(m.ContentType) + len(m.Data) + 64
	for k, v := range m.Headers {
		n += len(k) + len(v) + 2*binary.MaxVarintLen16
	}
	return n
}

func appendBody(b []byte, m *engine.Message) []byte {
	b = appendString(appendString(appendString(b, m.Channel), m.Type), m.ContentType)
	b = binary.AppendUvarint(b, uint64(len(m.Headers)))
	for k, v := range m.Headers {
		b = appendString(appendString(b, k), v)
	}
	return append(b, m.Data...)
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func (b body) recordLen() int { return len(b.bytes) + trailerLen }

// put writes the record into dst, which has recordLen bytes.
func (b body) put(dst []byte, age int64, m *engine.Message) {
	n := copy(dst, b.bytes)
	t := dst[n:n:len(dst)]
	t = appendUint64(appendUint64(appendUint64(t, uint64(age)), uint64(m.Time)), m.ID.Seq)
	t = append(t, 0, 0)
	binary.BigEndian.AppendUint32(t, crc32.Update(b.crc, castagnoli, t))
}

// A recordInfo is what a record has beside its message.
type recordInfo struct {
	age int64 // milliseconds of its queue
	len int
}

// decodeRecord returns the message of a record that stands at the sequence, but
// for its epoch. It keeps nothing of rec.
func decodeRecord(rec []byte, seq uint64) (m *engine.Message, info recordInfo, err error) {
	n := len(rec) - trailerLen
	if n < 0 {
		return nil, info, corrupt("message %d: record of %d bytes", seq, len(rec))
	}
	t := rec[n:]
	if crc32.Checksum(rec[:len(rec)-4], castagnoli) != binary.BigEndian.Uint32(t[26:]) {
		return nil, info, corrupt("message %d: wrong checksum", seq)
	}
	if at := binary.BigEndian.Uint64(t[16:]); at != seq {
		return nil, info, corrupt("message %d is in the place of %d", at, seq)
	}
	info = recordInfo{int64(binary.BigEndian.Uint64(t)), len(rec)}
	m = &engine.Message{ID: engine.Cursor{Seq: seq}, Time: int64(binary.BigEndian.Uint64(t[8:]))}
	d := decoder{rest: rec[:n]}
	m.Channel, m.Type, m.ContentType = d.string(), d.string(), d.string()
	if h := d.uvarint(); h > 0 && h <= engine.MaxHeaders {
		m.Headers = make(map[string]string, h)
		for range h {
			k := d.string()
			m.Headers[k] = d.string()
		}
	} else if h != 0 {
		d.bad = true
	}
	if d.bad {
		return nil, info, corrupt("message %d: malformed record", seq)
	}
	m.Data = bytes.Clone(d.rest)
	return m, info, nil
}

type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.bad = true
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

// size is what a message counts for in Retention.Bytes: its data and headers.
func size(m *engine.Message) int64 {
	n := len(m.Data)
	for k, v := range m.Headers {
		n += len(k) + len(v)
	}
	return int64(n)
}

// cost is what a message takes on the disk at most, before compression: its
// record and its entries in lists, if it shares them with none.
func cost(channel string, recordLen int) int64 {
	const entry = 24 // kind, sequence and counts, with what Pebble adds to a key
	n := recordLen + entry + len(channel) + entry
	for prefix := range engine.Patterns(channel) {
		n += len(prefix) + entry
	}
	return int64(n)
}
