package load

import "time"

// A marker is `@<sequence>:<time>@`, with 12 and 19 digits. The time is in
// nanoseconds since the program began.
const (
	sequenceDigits = 12
	timeDigits     = 19
	markerSize     = 1 + sequenceDigits + 1 + timeDigits + 1
)

var begin = time.Now()

// Now returns the nanoseconds since the program began.
func Now() int64 { return int64(time.Since(begin)) }

// Message returns a message of size bytes, at least those of its marker. It has
// no byte that JSON, HTML or a form would write in another way.
func Message(sequence uint64, size int) []byte {
	message := make([]byte, max(size, markerSize))
	message[0] = '@'
	putDigits(message[1:1+sequenceDigits], sequence)
	message[1+sequenceDigits] = ':'
	putDigits(message[markerSize-1-timeDigits:markerSize-1], uint64(Now()))
	message[markerSize-1] = '@'
	for i := markerSize; i < len(message); i++ {
		message[i] = 'a' + byte(i%26)
	}
	return message
}

func putDigits(to []byte, value uint64) {
	for i := len(to) - 1; i >= 0; i-- {
		to[i] = '0' + byte(value%10)
		value /= 10
	}
}

func digits(from []byte) (value uint64, ok bool) {
	for _, c := range from {
		c -= '0'
		if c > 9 {
			return 0, false
		}
		value = value*10 + uint64(c)
	}
	return value, true
}
