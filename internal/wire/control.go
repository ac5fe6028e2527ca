package wire

import (
	"strconv"
	"time"

	"github.com/halley-comet/halley/engine"
)

// ControlKind names a control envelope.
type ControlKind string

// The control envelopes of the protocol.
const (
	Open      ControlKind = "open"
	Gap       ControlKind = "gap"
	Heartbeat ControlKind = "heartbeat"
	Skip      ControlKind = "skip"
	Reconnect ControlKind = "reconnect"
	Error     ControlKind = "error"
	Ack       ControlKind = "ack"
)

// A Control is what a stream says of itself, in place of a message.
type Control struct {
	Kind ControlKind
	// ID is the stream's position, for all kinds but Reconnect and Error. An
	// Ack without a position leaves it zero.
	ID engine.Cursor
	// Interval is an Open's heartbeat.
	Interval time.Duration
	// Delay is a Reconnect's.
	Delay time.Duration
	// Problem is an Error's.
	Problem *Problem
	// Ref is the JSON value that an Ack or Error answers; nil if none.
	Ref []byte
}

// AppendControl appends the control envelope, one line of JSON.
func AppendControl(dst []byte, c *Control) []byte {
	dst = append(dst, `{"control":"`...)
	dst = append(dst, c.Kind...)
	dst = append(dst, '"')
	if c.Ref != nil {
		dst = append(dst, `,"ref":`...)
		dst = appendJSON(dst, c.Ref)
	}
	if !c.ID.IsZero() {
		dst = append(dst, `,"id":"`...)
		dst = c.ID.Append(dst)
		dst = append(dst, '"')
	}
	switch c.Kind {
	case Open:
		dst = append(dst, `,"heartbeat":`...)
		dst = AppendSeconds(dst, c.Interval)
	case Reconnect:
		dst = append(dst, `,"delay":`...)
		dst = strconv.AppendInt(dst, c.Delay.Milliseconds(), 10)
	case Error:
		dst = append(dst, ',')
		dst = c.Problem.appendMembers(dst)
	}
	return append(dst, '}')
}

// AppendCursors appends a JSON array of cursors.
func AppendCursors(dst []byte, ids []engine.Cursor) []byte {
	dst = append(dst, '[')
	for i, id := range ids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = id.Append(dst)
		dst = append(dst, '"')
	}
	return append(dst, ']')
}

// AppendSeconds appends d in seconds, as a decimal number that may have a
// fraction.
func AppendSeconds(dst []byte, d time.Duration) []byte {
	return strconv.AppendFloat(dst, d.Seconds(), 'f', -1, 64)
}
