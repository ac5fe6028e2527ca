package transporttest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/halley-comet/halley/engine"
)

// An Event is what a client gets: a message or a control.
type Event struct {
	// Control is empty for a message. "page" is the end of a poll's answer.
	Control string
	// ID is the event's cursor, or else empty.
	ID string
	// Channel, Type and ContentType are empty where the transport does not
	// tell.
	Channel, Type, ContentType string
	// Body is the data, of JSON in a canonical form.
	Body string
	// Heartbeat in seconds, Delay in milliseconds.
	Heartbeat float64
	Delay     int64
	Status    int
	Code      string
	// Ref is the JSON value that an ack or error answers.
	Ref string
	// Gap is set on a page with one.
	Gap bool
}

// decodeEnvelope reads an envelope, and refuses whatever the protocol does not
// have.
func decodeEnvelope(b []byte) (Event, error) {
	e, err := envelopeEvent(b)
	if err != nil {
		err = fmt.Errorf("envelope %q: %w", b, err)
	}
	return e, err
}

func envelopeEvent(b []byte) (e Event, err error) {
	switch {
	case !utf8.Valid(b):
		return e, errors.New("not UTF-8")
	case bytes.ContainsAny(b, "\r\n"), bytes.Contains(b, []byte("\u2028")), bytes.Contains(b, []byte("\u2029")):
		return e, errors.New("more than a line")
	}
	members, err := decodeObject(b)
	if err != nil {
		return e, err
	}
	control, isControl := members["control"]
	if !isControl {
		return messageEvent(members)
	}
	if err := json.Unmarshal(control, &e.Control); err != nil {
		return e, err
	}
	want := map[string]string{
		"open":      "control heartbeat id",
		"gap":       "control id",
		"heartbeat": "control id",
		"skip":      "control id",
		"reconnect": "control delay",
		"ack":       "control id ref",
		"error":     "code control detail ref status title",
	}[e.Control]
	optional := map[string]bool{"detail": true, "ref": e.Control == "error"}
	if err := checkMembers(members, want, optional); err != nil {
		return e, err
	}
	for name, field := range map[string]any{
		"id": &e.ID, "heartbeat": &e.Heartbeat, "delay": &e.Delay, "status": &e.Status, "code": &e.Code,
	} {
		if v, ok := members[name]; ok {
			if err := json.Unmarshal(v, field); err != nil {
				return e, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	e.Ref = string(members["ref"])
	return e, checkID(e.ID, members)
}

// decodeObject reads one JSON object that has no member twice.
func decodeObject(b []byte) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("not an object: %v", err)
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if _, twice := members[name]; twice || !ok {
			return nil, fmt.Errorf("member %v is not a name, or is there twice", t)
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		members[name] = v
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the object")
	}
	return members, nil
}

func checkMembers(members map[string]json.RawMessage, want string, optional map[string]bool) error {
	names := slices.Sorted(maps.Keys(members))
	var due []string
	for _, name := range strings.Fields(want) {
		if _, there := members[name]; there || !optional[name] {
			due = append(due, name)
		}
	}
	if !slices.Equal(names, due) {
		return fmt.Errorf("members %q, want %q", names, due)
	}
	return nil
}

func checkID(id string, members map[string]json.RawMessage) error {
	if _, ok := members["id"]; !ok {
		return nil
	}
	_, err := engine.ParseCursor(id)
	return err
}

func messageEvent(members map[string]json.RawMessage) (e Event, err error) {
	want := "channel data id time type"
	if _, ok := members["data64"]; ok {
		want = "channel contentType data64 id time type"
	}
	if err := checkMembers(members, want, map[string]bool{"type": true}); err != nil {
		return e, err
	}
	var time int64
	for name, field := range map[string]any{
		"id": &e.ID, "channel": &e.Channel, "type": &e.Type, "time": &time, "contentType": &e.ContentType,
	} {
		if v, ok := members[name]; ok {
			if err := json.Unmarshal(v, field); err != nil {
				return e, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if time <= 0 {
		return e, fmt.Errorf("time is %d", time)
	}
	if data, ok := members["data"]; ok {
		e.Body = canonical(data)
	} else {
		var data []byte
		if err := json.Unmarshal(members["data64"], &data); err != nil {
			return e, fmt.Errorf("data64: %w", err)
		}
		e.Body = string(data)
	}
	return e, checkID(e.ID, members)
}

// canonical returns a JSON string's content, and other JSON compact with its
// members sorted and its numbers as written.
func canonical(data []byte) string {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return fmt.Sprintf("not JSON: %v: %q", err, data)
	}
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // it was just decoded
	}
	return string(b)
}

// eventOf returns what a client of the variant should get of a message.
func (v variant) eventOf(m *engine.Message) Event {
	kind := engine.KindOf(m.ContentType)
	e := Event{ID: m.ID.String(), Channel: m.Channel, Type: m.Type, Body: string(m.Data)}
	switch {
	case v.name == "multipart-raw":
		return Event{ContentType: m.ContentType, Body: e.Body}
	case v.raw:
		e.Channel = ""
		if kind == engine.Binary {
			e.Body = base64.StdEncoding.EncodeToString(m.Data)
		} else {
			e.Body = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(e.Body)
		}
	case kind == engine.JSON:
		e.Body = canonical(m.Data)
	case kind == engine.Binary:
		e.ContentType = m.ContentType
	}
	return e
}
