package bayeux

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"unicode/utf8"
)

// A message is what a client sends ("Common Message Field Definitions"), as far
// as it could be read.
type message struct {
	channel        string
	id             json.RawMessage // a string or a number, as it was sent; nil if there is none
	clientID       string
	connectionType string
	version        string
	supported      []string // nil if it is not there
	subscription   []string // nil if it is not there
	single         bool     // subscription is no list
	data           json.RawMessage
	ext            json.RawMessage // an object
	exts           map[string]json.RawMessage
	timeout        float64 // of advice, in milliseconds; less than 0 if it is not there
	// fault is what is wrong with it, for the reply; empty if nothing is.
	fault string
}

var errNoMessages = errors.New("there is no message")

// parse reads the messages of a request: an array, or a single one. Those that
// are wrong in themselves have their fault set. They share the bytes of b.
func parse(b []byte, max int) ([]message, error) {
	b = bytes.Trim(b, " \t\r\n")
	if len(b) == 0 {
		return nil, errNoMessages
	}
	if !json.Valid(b) {
		var any json.RawMessage
		return nil, fmt.Errorf("the messages cannot be parsed: %w", json.Unmarshal(b, &any))
	}
	n := 1
	if b[0] == '[' {
		n = 0
		for range elements(b) {
			n++
		}
	}
	switch {
	case n == 0:
		return nil, errNoMessages
	case n > max:
		return nil, fmt.Errorf("%d messages in one request, at most %d", n, max)
	}
	messages := make([]message, n)
	if b[0] != '[' {
		messages[0].read(b)
		return messages, nil
	}
	i := 0
	for _, raw := range elements(b) {
		messages[i].read(raw)
		i++
	}
	return messages, nil
}

// elements are what an array or an object has, with their names in an object. It
// is for JSON that is known to be valid.
func elements(b []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		if len(b) == 0 {
			return
		}
		object := b[0] == '{'
		for b = skipSpace(b[1:]); b[0] != ']' && b[0] != '}'; b = skipSpace(b) {
			var name []byte
			if object {
				end := valueEnd(b)
				name = b[:end]
				b = skipSpace(skipSpace(b[end:])[1:]) // the colon
			}
			end := valueEnd(b)
			if !yield(name, b[:end:end]) {
				return
			}
			if b = skipSpace(b[end:]); b[0] == ',' {
				b = b[1:]
			}
		}
	}
}

func skipSpace(b []byte) []byte {
	for b[0] == ' ' || b[0] == '\t' || b[0] == '\n' || b[0] == '\r' {
		b = b[1:]
	}
	return b
}

// valueEnd returns the length of the value that valid JSON begins with.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			depth++
			continue
		case ']', '}':
			depth--
		default:
			if depth > 0 {
				continue
			}
			// A number or a word: it goes on up to what cannot be in one.
			for i < len(b) && !bytes.ContainsRune([]byte(" \t\n\r,]}:"), rune(b[i])) {
				i++
			}
			return i
		}
		if depth == 0 {
			return i + 1
		}
	}
}

// text returns what a string of valid JSON says.
func text(b []byte) (s string, err error) {
	if b[0] == '"' && bytes.IndexByte(b, '\\') < 0 && utf8.Valid(b) {
		return string(b[1 : len(b)-1]), nil
	}
	err = json.Unmarshal(b, &s)
	return s, err
}

// read takes one message apart. A field of the wrong type is a fault, and as if
// it were not there.
func (m *message) read(raw json.RawMessage) {
	m.timeout = -1
	if raw[0] != '{' {
		m.fault = fault(400, "", "a message is not an object")
		return
	}
	for quoted, value := range elements(raw) {
		name, err := text(quoted)
		isNull := string(value) == "null"
		switch {
		case err != nil:
		case name == "data":
			m.data = value // null is data too
		case isNull:
		case name == "channel":
			m.channel, err = text(value)
		case name == "id":
			if m.id = value; value[0] != '"' && value[0] != '-' && (value[0] < '0' || value[0] > '9') {
				m.id, err = nil, errors.New("neither a string nor a number")
			} else if len(value) > maxID {
				m.id, err = nil, errors.New("too long")
			}
		case name == "clientId":
			m.clientID, err = text(value)
		case name == "connectionType":
			m.connectionType, err = text(value)
		case name == "version":
			m.version, err = text(value)
		case name == "supportedConnectionTypes":
			err = json.Unmarshal(value, &m.supported)
		case name == "subscription":
			if m.single = value[0] == '"'; m.single {
				m.subscription = make([]string, 1)
				m.subscription[0], err = text(value)
			} else {
				err = json.Unmarshal(value, &m.subscription)
			}
		case name == "ext":
			if err = json.Unmarshal(value, &m.exts); err == nil {
				m.ext = value
			}
		case name == "advice":
			var advice struct{ Timeout *float64 }
			if err = json.Unmarshal(value, &advice); err == nil && advice.Timeout != nil {
				m.timeout = max(*advice.Timeout, 0)
			}
		}
		if err != nil && m.fault == "" {
			m.fault = fault(400, name, "the field is of the wrong type")
		}
	}
	if m.channel == "" && m.fault == "" {
		m.fault = fault(400, "channel", "the field is missing")
	}
}

// maxID is the length of an id at most, in bytes of JSON.
const maxID = 256

// kept returns what is needed of a connect once it is held. The bytes of its
// request are not kept for it.
func (m *message) kept() *message {
	k := &message{channel: m.channel, id: bytes.Clone(m.id), timeout: m.timeout}
	for _, name := range []string{"ack", "timesync"} {
		if text := m.exts[name]; text != nil && len(text) <= maxID {
			if k.exts == nil {
				k.exts = map[string]json.RawMessage{}
			}
			k.exts[name] = bytes.Clone(text)
		}
	}
	return k
}

// number returns a field of ext that is a whole number.
func (m *message) number(name string) (n int64, ok bool) {
	n, err := strconv.ParseInt(string(m.exts[name]), 10, 64)
	return n, err == nil
}

// truthy tells whether a field of ext is there, and neither false nor null.
func (m *message) truthy(name string) bool {
	text, ok := m.exts[name]
	return ok && string(text) != "false" && string(text) != "null"
}

// fault returns the text of an error ("error"): a code, arguments and words.
func fault(code int, args, text string) string {
	if len(args) > 200 {
		args = args[:200]
	}
	return strconv.Itoa(code) + ":" + args + ":" + text
}

// appendASCII appends JSON with what is not ASCII escaped: some clients cut a
// stream within a character. What is not UTF-8 becomes U+FFFD.
func appendASCII(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	escape := func(u rune) {
		dst = append(dst, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
	}
	for i := 0; i < len(text); {
		if text[i] < utf8.RuneSelf {
			dst = append(dst, text[i])
			i++
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		i += size
		if r >= 0x10000 {
			r -= 0x10000
			escape(0xd800 + r>>10)
			escape(0xdc00 + r&0x3ff)
			continue
		}
		escape(r)
	}
	return dst
}

// appendString appends a string as JSON that is ASCII.
func appendString(dst []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string always can
	return appendASCII(dst, text)
}

// A reply is written member by member.
type reply struct{ b []byte }

// newReply begins the reply to a message.
func newReply(m *message, successful bool) *reply {
	r := &reply{b: []byte(`{"successful":`)}
	r.b = strconv.AppendBool(r.b, successful)
	if m.channel != "" {
		r.text("channel", m.channel)
	}
	if m.id != nil {
		r.raw("id", m.id)
	}
	return r
}

func (r *reply) name(name string) {
	r.b = append(r.b, ',', '"')
	r.b = append(r.b, name...)
	r.b = append(r.b, '"', ':')
}

func (r *reply) text(name, value string) *reply {
	r.name(name)
	r.b = appendString(r.b, value)
	return r
}

// raw appends a member that is JSON.
func (r *reply) raw(name string, value []byte) *reply {
	r.name(name)
	r.b = appendASCII(r.b, value)
	return r
}

// end returns the reply.
func (r *reply) end() []byte { return append(r.b, '}') }
