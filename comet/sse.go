package comet

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// sseParser parses an event stream (HTML Standard, "Interpreting an event
// stream"), in the protocol's envelope or raw format.
type sseParser struct {
	streaming
	max     int
	raw     bool
	channel string // of raw messages, if known

	started bool // past the byte order mark
	cr      bool // the last byte was CR: an LF now belongs to it
	line    []byte

	event   string
	data    []byte // each data line with an LF
	id      string
	hasID   bool // this event has an id of its own
	hasData bool
}

func (p *sseParser) feed(b []byte) (frames []frame, err error) {
	for len(b) > 0 {
		if p.cr && b[0] == '\n' {
			b = b[1:]
		}
		p.cr = false
		i := bytes.IndexAny(b, "\r\n")
		size := i
		if i < 0 {
			size = len(b)
		}
		if len(p.line)+len(p.data)+size > p.max {
			return frames, errTooLarge
		}
		p.line = append(p.line, b[:size]...)
		if i < 0 {
			return frames, nil
		}
		p.cr = b[i] == '\r'
		b = b[i+1:]
		if frames, err = p.endLine(frames); err != nil {
			return frames, err
		}
		p.line = p.line[:0]
	}
	return frames, nil
}

func (p *sseParser) endLine(frames []frame) ([]frame, error) {
	line := p.line
	if !p.started {
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
		p.started = true
	}
	if len(line) == 0 {
		return p.dispatch(frames)
	}
	field, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(field) {
	case "event":
		p.event = string(value)
	case "data":
		p.data = append(append(p.data, value...), '\n')
		p.hasData = true
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			p.id, p.hasID = string(value), true
		}
	case "retry":
		if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil && ms > 0 {
			frames = append(frames, frame{retry: time.Duration(ms) * time.Millisecond})
		}
	}
	return frames, nil
}

func (p *sseParser) dispatch(frames []frame) ([]frame, error) {
	event, hasData, hasID := p.event, p.hasData, p.hasID
	data := bytes.TrimSuffix(p.data, []byte("\n"))
	p.event, p.data, p.hasData, p.hasID = "", p.data[:0], false, false
	switch {
	case !hasData:
		return frames, nil
	case strings.HasPrefix(event, "comet:"), !p.raw && event == "":
		return appendDecoded(frames, data)
	case p.raw && hasID && p.id != "":
		return append(frames, frame{Event: Event{Cursor: p.id, Message: Message{
			ID: p.id, Channel: p.channel, Type: event, Data: marshal(string(data)),
		}}}), nil
	}
	return frames, nil
}
