package wire

import (
	"strconv"

	"github.com/halley-comet/halley/engine"
)

// A Page is the body of a poll's answer, and of history's:
//
//	{"cursor":"…","gap":true,"messages":[…],"more":false}
type Page struct {
	Cursor engine.Cursor
	// Gap is left out where it is false.
	Gap bool
	// Envelopes of the messages, in order.
	Envelopes [][]byte
	// History adds More, which tells whether there are other messages.
	History, More bool
}

// Append appends the page to dst.
func (p *Page) Append(dst []byte) []byte {
	dst = append(dst, `{"cursor":"`...)
	dst = p.Cursor.Append(dst)
	dst = append(dst, '"')
	if p.Gap {
		dst = append(dst, `,"gap":true`...)
	}
	dst = append(dst, `,"messages":[`...)
	for i, e := range p.Envelopes {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, e...)
	}
	dst = append(dst, ']')
	if p.History {
		dst = append(dst, `,"more":`...)
		dst = strconv.AppendBool(dst, p.More)
	}
	return append(dst, '}')
}
