package bayeux

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// What the log has of a published message that other protocols do not know, in
// the message's headers.
const (
	idHeader     = "bayeux-id"     // JSON
	extHeader    = "bayeux-ext"    // JSON, an object
	binaryHeader = "bayeux-binary" // JSON: what stood beside the data
)

const jsonType = "application/json"

// toLog returns what is stored of a published message. The error is for its
// client.
func (h *Handler) toLog(m *message) (halley.Message, error) {
	stored := halley.Message{Channel: m.channel[1:], ContentType: jsonType, Data: m.data}
	header := func(name string, value []byte) {
		if stored.Headers == nil {
			stored.Headers = make(map[string]string, 2)
		}
		stored.Headers[name] = string(value)
	}
	if m.truthy("binary") {
		data, beside, err := decodeBinary(m.data)
		if err != nil {
			return stored, err
		}
		stored.Data, stored.ContentType = data, "application/octet-stream"
		if beside != nil {
			header(binaryHeader, beside)
		}
	}
	if m.id != nil {
		header(idHeader, m.id)
	}
	if ext := h.publicExt(m); ext != nil {
		header(extHeader, ext)
	}
	return stored, nil
}

// privateExt are members of ext that are between a client and the server.
var privateExt = []string{"token", "authentication", "halley", "authToken", "ack", "replay", "timesync"}

// publicExt returns what is delivered of a message's ext, nil if that is
// nothing.
func (h *Handler) publicExt(m *message) []byte {
	private := func(name string) bool {
		return slices.Contains(privateExt, name) || slices.Contains(h.options.PrivateExt, name)
	}
	ext := mapMembers(m.ext, func(name string, value []byte) []byte {
		if private(name) {
			return nil
		}
		return value
	})
	if string(ext) == "{}" {
		return nil
	}
	return ext
}

// decodeBinary takes the data of CometD's binary extension apart: its bytes, in
// Z85, and what stands beside them.
func decodeBinary(data json.RawMessage) (b []byte, beside []byte, err error) {
	var fields map[string]json.RawMessage
	var text string
	if json.Unmarshal(data, &fields) != nil || json.Unmarshal(fields["data"], &text) != nil {
		return nil, nil, errors.New("binary data is an object with its bytes in data, as Z85")
	}
	if b, err = decodeZ85(text); err != nil {
		return nil, nil, err
	}
	if delete(fields, "data"); len(fields) > 0 {
		beside, err = json.Marshal(fields)
	}
	return b, beside, err
}

// A framing writes messages as clients get them ("Delivery"), for all sessions
// that want them alike.
type framing struct {
	replay    bool // with their positions
	timestamp bool
}

func (f framing) append(dst []byte, m *halley.Message) []byte {
	dst = append(dst, `{"channel":"/`...)
	dst = append(dst, m.Channel...) // its letters need no escape
	dst = append(dst, '"')
	if id := m.Headers[idHeader]; json.Valid([]byte(id)) { // a Go program can have set anything
		dst = append(dst, `,"id":`...)
		dst = appendASCII(dst, []byte(id))
	}
	ext := objectOf(m.Headers[extHeader])
	dst = append(dst, `,"data":`...)
	switch engine.KindOf(m.ContentType) {
	case engine.JSON:
		dst = f.appendData(dst, m)
	case engine.Text:
		dst = appendString(dst, string(m.Data))
	case engine.Binary:
		dst = appendBinary(dst, m)
		if ext == nil || !bytes.Contains(ext, []byte(`"binary"`)) {
			ext = addMember(ext, `"binary":{}`)
		}
	}
	if f.replay {
		ext = addMember(ext, `"replay":`+strconv.FormatUint(m.ID.Seq, 10))
	}
	if len(ext) > 0 {
		dst = append(dst, `,"ext":`...)
		dst = appendASCII(dst, ext)
	}
	if f.timestamp {
		dst = append(dst, `,"timestamp":"`...)
		dst = time.UnixMilli(m.Time).UTC().AppendFormat(dst, http.TimeFormat)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// appendData appends data that is JSON. Clients of Salesforce look for the
// position in it, at event.replayId: it is there where data is an object.
func (f framing) appendData(dst []byte, m *halley.Message) []byte {
	data := bytes.TrimSpace(m.Data)
	if f.replay && data[0] == '{' {
		data = withReplayID(data, strconv.FormatUint(m.ID.Seq, 10))
	}
	return appendASCII(dst, data)
}

// withReplayID returns an object whose member event has a replayId, whatever its
// publisher has set; unless event is something else than an object.
func withReplayID(data []byte, id string) []byte {
	found := false
	replayed := mapMembers(data, func(name string, value []byte) []byte {
		if name != "event" {
			return value
		}
		if found = true; value[0] != '{' {
			return value
		}
		others := mapMembers(value, func(name string, value []byte) []byte {
			if name == "replayId" {
				return nil
			}
			return value
		})
		return addMember(others, `"replayId":`+id)
	})
	if found {
		return replayed
	}
	return addMember(data, `"event":{"replayId":`+id+`}`)
}

// mapMembers returns an object that has, in the place of each member's value,
// what f makes of it; members of which it makes nil are left out.
func mapMembers(object []byte, f func(name string, value []byte) []byte) []byte {
	b := []byte{'{'}
	for quoted, value := range elements(object) {
		name, _ := text(quoted) // it is a string
		if value = f(name, value); value == nil {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, quoted...), ':'), value...)
	}
	return append(b, '}')
}

// appendBinary appends data of bytes, as the binary extension has it.
func appendBinary(dst []byte, m *halley.Message) []byte {
	data := append([]byte(`{"data":`), '"')
	data = append(appendZ85(data, m.Data), '"', '}')
	beside := objectOf(m.Headers[binaryHeader])
	if beside == nil {
		text, _ := json.Marshal(m.ContentType) // a string always can
		beside = []byte(`{"last":true,"meta":{"contentType":` + string(text) + `}}`)
	}
	if inner := bytes.TrimSpace(beside[1 : len(beside)-1]); len(inner) > 0 {
		data = addMember(data, string(inner))
	}
	return appendASCII(dst, data)
}

// objectOf returns a header's text if that is a JSON object, and else nil.
func objectOf(text string) []byte {
	b := bytes.TrimSpace([]byte(text))
	if len(b) == 0 || b[0] != '{' || !json.Valid(b) {
		return nil
	}
	return b
}

// addMember returns an object with one member more, in front of the others.
// Object is nil for none.
func addMember(object []byte, member string) []byte {
	object = bytes.TrimSpace(object)
	if len(object) == 0 {
		return []byte("{" + member + "}")
	}
	added := append([]byte("{"), member...)
	if rest := bytes.TrimSpace(object[1:]); rest[0] != '}' {
		added = append(added, ',')
	}
	return append(added, object[1:]...)
}
