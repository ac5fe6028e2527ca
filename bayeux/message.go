package bayeux

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
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
// are wrong in themselves have their fault set.
func parse(b []byte, max int) ([]message, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return nil, errNoMessages
	}
	var raw []json.RawMessage
	if b[0] == '[' {
		if err := json.Unmarshal(b, &raw); err != nil {
			return nil, fmt.Errorf("the messages cannot be parsed: %w", err)
		}
	} else {
		if !json.Valid(b) {
			return nil, errors.New("the message is not JSON")
		}
		raw = []json.RawMessage{b}
	}
	switch {
	case len(raw) == 0:
		return nil, errNoMessages
	case len(raw) > max:
		return nil, fmt.Errorf("%d messages in one request, at most %d", len(raw), max)
	}
	messages := make([]message, len(raw))
	for i := range raw {
		messages[i].read(raw[i])
	}
	return messages, nil
}

// read takes one message apart. A field of the wrong type is a fault, and as if
// it were not there.
func (m *message) read(raw json.RawMessage) {
	m.timeout = -1
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil || fields == nil {
		m.fault = fault(400, "", "a message is not an object")
		return
	}
	for name, text := range fields {
		if string(text) == "null" {
			continue
		}
		var err error
		switch name {
		case "channel":
			err = json.Unmarshal(text, &m.channel)
		case "id":
			if m.id = text; text[0] != '"' && text[0] != '-' && (text[0] < '0' || text[0] > '9') {
				m.id, err = nil, errors.New("neither a string nor a number")
			} else if len(text) > maxID {
				m.id, err = nil, errors.New("too long")
			}
		case "clientId":
			err = json.Unmarshal(text, &m.clientID)
		case "connectionType":
			err = json.Unmarshal(text, &m.connectionType)
		case "version":
			err = json.Unmarshal(text, &m.version)
		case "supportedConnectionTypes":
			err = json.Unmarshal(text, &m.supported)
		case "subscription":
			if text[0] == '"' {
				m.subscription, m.single = make([]string, 1), true
				err = json.Unmarshal(text, &m.subscription[0])
			} else {
				err = json.Unmarshal(text, &m.subscription)
			}
		case "data":
			m.data = text
		case "ext":
			if err = json.Unmarshal(text, &m.exts); err == nil {
				m.ext = text
			}
		case "advice":
			var advice struct{ Timeout *float64 }
			if err = json.Unmarshal(text, &advice); err == nil && advice.Timeout != nil {
				m.timeout = max(*advice.Timeout, 0)
			}
		}
		if err != nil && m.fault == "" {
			m.fault = fault(400, name, "the field is of the wrong type")
		}
	}
	if text, ok := fields["data"]; ok && m.data == nil {
		m.data = text // null is data
	}
	if m.channel == "" && m.fault == "" {
		m.fault = fault(400, "channel", "the field is missing")
	}
}

// maxID is the length of an id at most, in bytes of JSON.
const maxID = 256

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
