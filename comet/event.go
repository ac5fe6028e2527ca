package comet

import (
	"bytes"
	"encoding/json"
	"time"
)

// A Control names what an event is, if not a message.
type Control string

// The controls that a subscription yields.
const (
	// Open comes first on each connection.
	Open Control = "open"
	// Gap means that messages at or before the event's cursor may be missing:
	// the log forgot them, or was restarted. Reload what they would have told;
	// the subscription goes on with the oldest message retained.
	Gap Control = "gap"
	// Heartbeat moves the cursor of a quiet subscription.
	Heartbeat Control = "heartbeat"
	// Skip means that the connection was slow, and that the server left out
	// messages of channels of which it sends slow clients the latest only.
	Skip Control = "skip"
	// Reconnect means that the server ends the connection, and when the
	// subscription comes back.
	Reconnect Control = "reconnect"
)

// An Event is what a subscription yields: a message or a control.
type Event struct {
	// Control is empty for a message.
	Control Control
	// Message is the message, if Control is empty.
	Message Message
	// Cursor is the subscription's position once this event has been dealt
	// with: a subscription that starts there goes on with the next one.
	Cursor string
	// Heartbeat is the interval in which the server sends something, with Open
	// on a stream; 0 on the polling transports.
	Heartbeat time.Duration
	// Delay is when the server wants the client back, with Reconnect, at the
	// earliest.
	Delay time.Duration
}

// Envelope returns the event as the protocol's JSON envelope, without a line
// end.
func (e Event) Envelope() []byte {
	env := envelope{Message: e.Message}
	if e.Control != "" {
		env = envelope{Control: e.Control, Heartbeat: e.Heartbeat.Seconds()}
		env.ID = e.Cursor
		if e.Control == Reconnect {
			delay := e.Delay.Milliseconds()
			env.ID, env.Delay = "", &delay
		}
	}
	return marshal(env)
}

// A Message is a message as its envelope has it. Over sse in its raw format
// there is no envelope: Channel is only known where the subscription has a
// single one, Time is 0, and Data is a string whatever was published.
type Message struct {
	// ID is the message's cursor.
	ID string `json:"id,omitempty"`
	// Channel is the name it was published to, never a pattern.
	Channel string `json:"channel,omitempty"`
	// Type is the event name, if there is one.
	Type string `json:"type,omitempty"`
	// Time is when it was stored, in Unix milliseconds.
	Time int64 `json:"time,omitempty"`
	// Data is the JSON value, or a JSON string if it was published as text. Nil
	// if Data64 stands in its place.
	Data json.RawMessage `json:"data,omitempty"`
	// Data64 is the content of a message that is neither JSON nor text, as it
	// was published: the envelope's base64 is undone.
	Data64 []byte `json:"data64,omitzero"`
	// ContentType is the media type of Data64.
	ContentType string `json:"contentType,omitempty"`
}

// Bytes returns the message's content. A text comes as itself and not as a
// JSON string; so does a JSON value that is a string, since the envelope does
// not tell one from the other.
func (m Message) Bytes() []byte {
	if m.Data == nil {
		return m.Data64
	}
	if m.Data[0] == '"' {
		var s string
		if json.Unmarshal(m.Data, &s) == nil {
			return []byte(s)
		}
	}
	return m.Data
}

// Text returns what Bytes does, as a string.
func (m Message) Text() string { return string(m.Bytes()) }

// envelope has the members of all envelopes.
type envelope struct {
	Control Control `json:"control,omitempty"`
	Message
	Heartbeat float64 `json:"heartbeat,omitempty"` // seconds
	Delay     *int64  `json:"delay,omitempty"`     // milliseconds
	Status    int     `json:"status,omitempty"`
	Code      string  `json:"code,omitempty"`
	Title     string  `json:"title,omitempty"`
	Detail    string  `json:"detail,omitempty"`
}

// marshal encodes v without the escapes that only HTML needs.
func marshal(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // only for data that is not JSON, put there by the caller
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
