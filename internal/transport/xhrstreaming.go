package transport

import (
	"bytes"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// newXHRStreaming is for XMLHttpRequest's readyState 3 and for fetch: a line
// for each envelope. Empty lines are padding.
func newXHRStreaming() *stream {
	return &stream{
		transport:   XHRStreaming,
		contentType: "application/x-ndjson; charset=utf-8",
		framing:     lines{},
		head:        func(padding int) []byte { return bytes.Repeat([]byte{'\n'}, padding) },
	}
}

type lines struct{}

func (lines) Slot() int { return linesSlot }

func (lines) AppendMessage(dst []byte, m *engine.Message) []byte {
	return append(wire.AppendEnvelope(dst, m), '\n')
}

func (lines) AppendControl(dst []byte, c *wire.Control) []byte {
	return append(wire.AppendControl(dst, c), '\n')
}
