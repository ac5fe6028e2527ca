package bayeux

import (
	"encoding/binary"
	"errors"
)

// Z85 (ZeroMQ RFC 32), with the padding that CometD gives data whose length is
// no multiple of four: as many letters are left out as bytes were added.

const z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

var z85Values = func() (values [256]byte) {
	for i := range values {
		values[i] = 0xff
	}
	for i, c := range []byte(z85) {
		values[c] = byte(i)
	}
	return values
}()

// appendZ85 appends data's letters. None of them needs an escape in JSON.
func appendZ85(dst, data []byte) []byte {
	for len(data) > 0 {
		var group [4]byte
		n := copy(group[:], data)
		data = data[n:]
		value := binary.BigEndian.Uint32(group[:])
		var letters [5]byte
		for i := 4; i >= 0; i-- {
			letters[i] = z85[value%85]
			value /= 85
		}
		dst = append(dst, letters[:n+1]...)
	}
	return dst
}

var errZ85 = errors.New("the data is not Z85")

func decodeZ85(s string) ([]byte, error) {
	b := make([]byte, 0, len(s)/5*4+4)
	for len(s) > 0 {
		n := min(len(s), 5)
		if n == 1 {
			return nil, errZ85
		}
		value := uint64(0)
		for i := range 5 {
			digit := byte(84)
			if i < n {
				if digit = z85Values[s[i]]; digit == 0xff {
					return nil, errZ85
				}
			}
			value = value*85 + uint64(digit)
		}
		if value > 0xffffffff {
			return nil, errZ85
		}
		b = binary.BigEndian.AppendUint32(b, uint32(value))
		b = b[:len(b)-(5-n)]
		s = s[n:]
	}
	return b, nil
}
