package transport

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// sseHead says how long an EventSource waits before it comes back, in
// milliseconds. Firefox has a floor of 500.
const sseHead = "retry: 2000\n\n"

// newSSE is for EventSource (HTML Standard, "Server-sent events"). Padding is
// a comment.
func newSSE(raw bool) *stream {
	t := &stream{
		transport:   SSE,
		contentType: "text/event-stream; charset=utf-8",
		framing:     sse{},
		head: func(padding int) []byte {
			head := sseHead
			if short := padding - len(head); short > 0 {
				head += ":" + strings.Repeat(" ", max(0, short-3)) + "\n\n"
			}
			return []byte(head)
		},
	}
	if raw {
		t.framing = sseRaw{}
	}
	return t
}

// sse frames envelopes as the data of events without a name.
type sse struct{}

func (sse) Slot() int { return sseSlot }

func (sse) AppendMessage(dst []byte, m *engine.Message) []byte {
	dst = append(dst, "data: "...)
	dst = wire.AppendEnvelope(dst, m)
	dst = append(dst, '\n')
	return appendEventID(dst, m.ID)
}

func (sse) AppendControl(dst []byte, c *wire.Control) []byte { return appendEvent(dst, c) }

// sseRaw frames messages as events of their own type and data.
type sseRaw struct{}

func (sseRaw) Slot() int { return sseRawSlot }

func (sseRaw) AppendMessage(dst []byte, m *engine.Message) []byte {
	if m.Type != "" {
		dst = append(dst, "event: "...)
		dst = append(dst, m.Type...)
		dst = append(dst, '\n')
	}
	if engine.KindOf(m.ContentType) == engine.Binary {
		dst = append(dst, "data: "...)
		dst = base64.StdEncoding.AppendEncode(dst, m.Data)
		dst = append(dst, '\n')
	} else {
		dst = appendDataLines(dst, m.Data)
	}
	return appendEventID(dst, m.ID)
}

func (sseRaw) AppendControl(dst []byte, c *wire.Control) []byte { return appendEvent(dst, c) }

// appendDataLines appends a data field for each line, however it ends.
func appendDataLines(dst, data []byte) []byte {
	for {
		dst = append(dst, "data: "...)
		i := bytes.IndexAny(data, "\r\n")
		if i < 0 {
			dst = append(dst, data...)
			return append(dst, '\n')
		}
		dst = append(dst, data[:i]...)
		dst = append(dst, '\n')
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		data = data[i+1:]
	}
}

// appendEvent appends a control as an event of its own name. A client that
// does not know it ignores it, but for its id.
func appendEvent(dst []byte, c *wire.Control) []byte {
	if c.Kind == wire.Reconnect {
		// An EventSource goes by retry, whatever else it is told.
		dst = append(dst, "retry: "...)
		dst = strconv.AppendInt(dst, c.Delay.Milliseconds(), 10)
		dst = append(dst, '\n')
	}
	dst = append(dst, "event: comet:"...)
	dst = append(dst, c.Kind...)
	dst = append(dst, "\ndata: "...)
	dst = wire.AppendControl(dst, c)
	dst = append(dst, '\n')
	if c.ID.IsZero() {
		return append(dst, '\n')
	}
	return appendEventID(dst, c.ID)
}

// appendEventID ends an event with its id. It comes last, as there are clients
// that keep an id before they have seen the whole event.
func appendEventID(dst []byte, id engine.Cursor) []byte {
	dst = append(dst, "id: "...)
	dst = id.Append(dst)
	return append(dst, "\n\n"...)
}
