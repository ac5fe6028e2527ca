package load

import "bytes"

// A scanner finds the markers in a stream that comes in pieces. It keeps what
// may be the beginning of a marker until the next piece.
type scanner struct {
	kept int8
	tail [markerSize - 1]byte
}

// scan calls found for each marker that ends in piece.
func (s *scanner) scan(piece []byte, found func(sequence uint64, sent int64)) {
	if s.kept > 0 {
		var joined [2 * markerSize]byte
		n := copy(joined[:], s.tail[:s.kept])
		took := copy(joined[n:n+markerSize-1], piece)
		s.kept = 0
		// What is kept has one @, its first byte: a marker that was not
		// complete. A marker that begins in the piece is found below.
		if n+took < markerSize {
			if open(joined[:n+took]) {
				s.kept = int8(copy(s.tail[:], joined[:n+took]))
				return
			}
		} else if sequence, sent, ok := parse(joined[:markerSize]); ok {
			found(sequence, sent)
			piece = piece[markerSize-n:]
		}
	}
	for {
		at := bytes.IndexByte(piece, '@')
		if at < 0 {
			return
		}
		piece = piece[at:]
		if len(piece) < markerSize {
			if open(piece) {
				s.kept = int8(copy(s.tail[:], piece))
				return
			}
			piece = piece[1:]
			continue
		}
		sequence, sent, ok := parse(piece[:markerSize])
		if !ok {
			piece = piece[1:]
			continue
		}
		found(sequence, sent)
		piece = piece[markerSize:]
	}
}

// parse reads a whole marker.
func parse(marker []byte) (sequence uint64, sent int64, ok bool) {
	if marker[0] != '@' || marker[1+sequenceDigits] != ':' || marker[markerSize-1] != '@' {
		return 0, 0, false
	}
	sequence, ok = digits(marker[1 : 1+sequenceDigits])
	if !ok {
		return 0, 0, false
	}
	time, ok := digits(marker[2+sequenceDigits : markerSize-1])
	return sequence, int64(time), ok
}

// open tells whether what is shorter than a marker may become one.
func open(piece []byte) bool {
	for i, c := range piece {
		switch {
		case i == 0:
			if c != '@' {
				return false
			}
		case i == 1+sequenceDigits:
			if c != ':' {
				return false
			}
		case c < '0' || c > '9':
			return false
		}
	}
	return true
}
