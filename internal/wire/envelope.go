// Package wire encodes what the native protocol puts on every transport:
// message envelopes, control envelopes and problems. docs/protocol.md is its
// specification.
package wire

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/halley-comet/halley/engine"
)

// AppendEnvelope appends the message's envelope, which is one line of JSON:
//
//	{"id":"…","channel":"…","type":"…","time":1764000000000,"data":…}
//
// U+2028 and U+2029 are escaped, so that it is a JavaScript expression too.
func AppendEnvelope(dst []byte, m *engine.Message) []byte {
	dst = append(dst, `{"id":"`...)
	dst = m.ID.Append(dst)
	dst = append(dst, `","channel":`...)
	dst = AppendString(dst, m.Channel)
	if m.Type != "" {
		dst = append(dst, `,"type":`...)
		dst = AppendString(dst, m.Type)
	}
	dst = append(dst, `,"time":`...)
	dst = strconv.AppendInt(dst, m.Time, 10)
	switch engine.KindOf(m.ContentType) {
	case engine.JSON:
		dst = append(dst, `,"data":`...)
		dst = appendJSON(dst, m.Data)
	case engine.Text:
		dst = append(dst, `,"data":`...)
		dst = AppendString(dst, m.Data)
	default:
		dst = append(dst, `,"data64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, m.Data)
		dst = append(dst, `","contentType":`...)
		dst = AppendString(dst, m.ContentType)
	}
	return append(dst, '}')
}

const hex = "0123456789abcdef"

// AppendString appends s as a JSON string (RFC 8259, 7). Bytes that are not
// UTF-8 become U+FFFD.
func AppendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, `\n`...)
			case '\r':
				dst = append(dst, `\r`...)
			case '\t':
				dst = append(dst, `\t`...)
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := decodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			start = i + n
		case r == '\u2028' || r == '\u2029':
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hex[r&15])
			start = i + n
		}
		i += n
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func decodeRune[S string | []byte](s S) (rune, int) {
	var b [utf8.UTFMax]byte
	return utf8.DecodeRune(b[:copy(b[:], s)])
}

// appendJSON appends valid JSON without the white space between its tokens,
// all else as written.
func appendJSON(dst, src []byte) []byte {
	quoted := false
	for i := 0; i < len(src); i++ {
		switch c := src[i]; {
		case quoted && c == '\\':
			dst = append(dst, c, src[i+1])
			i++
		case c == '"':
			quoted = !quoted
			dst = append(dst, c)
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
		case c == 0xe2 && i+2 < len(src) && src[i+1] == 0x80 && src[i+2]&^1 == 0xa8:
			dst = append(dst, `\u202`...)
			dst = append(dst, hex[src[i+2]&15])
			i += 2
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// AppendExpression appends valid JSON as a JavaScript expression of the same
// value. JSON is one already, but for the member __proto__, which would set an
// object's prototype, or be an error where it stands twice (ECMA-262,
// "__proto__ Property Names in Object Initializers"): then it is parsed.
func AppendExpression(dst, json []byte) []byte {
	if !spellsProto(json) {
		return append(dst, json...)
	}
	dst = append(dst, "JSON.parse("...)
	dst = AppendString(dst, json)
	return append(dst, ')')
}

// spellsProto tells whether JSON may have the name __proto__, also with some of
// its letters escaped, which encoders have no reason for.
func spellsProto(json []byte) bool {
	if bytes.Contains(json, []byte("__proto__")) {
		return true
	}
	for rest := json; ; {
		i := bytes.Index(rest, []byte(`\u00`))
		if i < 0 || len(rest) < i+6 {
			return false
		}
		switch string(bytes.ToLower(rest[i+4 : i+6])) {
		case "5f", "70", "72", "6f", "74": // _ p r o t
			return true
		}
		rest = rest[i+4:]
	}
}

// AppendScriptSafe appends what AppendExpression does, so that it can stand
// inside an HTML script element: "<", ">", "&" are escaped as \u00…. They occur
// in strings only, where that means the same (HTML Standard, "Restrictions for
// contents of script elements").
func AppendScriptSafe(dst, json []byte) []byte {
	json = AppendExpression(nil, json)
	start := 0
	for i, c := range json {
		if c == '<' || c == '>' || c == '&' {
			dst = append(dst, json[start:i]...)
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			start = i + 1
		}
	}
	return append(dst, json[start:]...)
}
