package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// A reader reads the frames of one transport as strictly as the contract has
// them.
type reader interface {
	// next reads one frame at the start of b and returns its length, 0 if b
	// ends before it does. The event is nil for bytes that are none. It is
	// called with what follows the frames it returned, more of it each time.
	next(b []byte) (e *event, n int, err error)
}

// newReader returns the reader of a kind's response.
func newReader(k kind, header http.Header) (reader, error) {
	switch k.transport {
	case "xhr-streaming":
		return lines{}, nil
	case "sse":
		return &eventStream{raw: k.format == "raw"}, nil
	case "iframe":
		return &scripts{}, nil
	case "websocket":
		return webSocketFrames{}, nil
	case "multipart":
		_, params, err := mime.ParseMediaType(header.Get("Content-Type"))
		if err != nil || params["boundary"] == "" {
			return nil, fmt.Errorf("Content-Type %q: no boundary (%v)", header.Get("Content-Type"), err)
		}
		return &parts{delimiter: "--" + params["boundary"] + "\r\n"}, nil
	}
	return nil, fmt.Errorf("%s has no stream", k.name)
}

func one(e event, n int, err error) (*event, int, error) {
	if err != nil {
		return nil, 0, err
	}
	return &e, n, nil
}

// lines: "one envelope and \n; empty lines are padding".
type lines struct{}

func (lines) next(b []byte) (*event, int, error) {
	i := bytes.IndexByte(b, '\n')
	switch {
	case i < 0:
		return nil, 0, nil
	case i == 0:
		return nil, 1, nil
	}
	e, err := parseEnvelope(b[:i])
	return one(e, i+1, err)
}

// scripts: "a preamble …, padding as a comment, then for each envelope
// <script>_(…)</script>".
type scripts struct{ begun bool }

func (s *scripts) next(b []byte) (*event, int, error) {
	const head, tail = "<script>_(", ")</script>"
	if !s.begun {
		i := bytes.Index(b, []byte(head))
		if i < 0 {
			return nil, 0, nil
		}
		s.begun = true
		if i > 0 {
			return nil, i, nil
		}
	}
	if len(b) > 0 && strings.ContainsRune(" \r\n\t", rune(b[0])) {
		return nil, 1, nil
	}
	if n := min(len(b), len(head)); string(b[:n]) != head[:n] {
		return nil, 0, fmt.Errorf("got %q, want %s", clip(b), head)
	}
	// No "<" may stand in the data, so the next one ends it.
	if len(b) < len(head) {
		return nil, 0, nil
	}
	i := bytes.IndexByte(b[len(head):], '<')
	if i < 0 || len(b) < len(head)+i+len("</script>") {
		return nil, 0, nil
	}
	n := len(head) + i + len("</script>")
	frame := b[:n]
	if !bytes.HasSuffix(frame, []byte(tail)) {
		return nil, 0, fmt.Errorf("got %q, want it to end in %s, and no other < in it", clip(frame), tail)
	}
	data := frame[len(head) : n-len(tail)]
	if bytes.ContainsAny(data, ">&\u2028\u2029") {
		return nil, 0, fmt.Errorf("got %q, want >, &, U+2028 and U+2029 escaped", clip(data))
	}
	e, err := parseEnvelope(data)
	return one(e, n, err)
}

// parts: "each envelope or control a part of application/json with
// Content-Length, Comet-Id, Comet-Channel; the next --B CRLF follows at once".
type parts struct {
	delimiter string // --B CRLF
	begun     bool
}

func (p *parts) next(b []byte) (*event, int, error) {
	if !p.begun {
		// "padding is a preamble: spaces and CR LF".
		if n := len(b) - len(bytes.TrimLeft(b, " \r\n")); n > 0 {
			return nil, n, nil
		}
		n := min(len(b), len(p.delimiter))
		if string(b[:n]) != p.delimiter[:n] {
			return nil, 0, fmt.Errorf("got %q, want it to begin with %q", clip(b), p.delimiter)
		}
		if n < len(p.delimiter) {
			return nil, 0, nil
		}
		p.begun = true
		return nil, n, nil
	}
	head, _, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return nil, 0, nil
	}
	header := http.Header{}
	for line := range strings.SplitSeq(string(head), "\r\n") {
		name, value, ok := strings.Cut(line, ": ")
		if !ok || strings.ContainsAny(line, "\r\n") {
			return nil, 0, fmt.Errorf("part header %q: line %q", head, line)
		}
		header.Add(name, value)
	}
	length, err := strconv.Atoi(header.Get("Content-Length"))
	if err != nil || length < 0 || length > 1<<30 {
		return nil, 0, fmt.Errorf("part header %q: Content-Length: %v", head, err)
	}
	start := len(head) + 4
	n := start + length + len("\r\n") + len(p.delimiter)
	if len(b) < n {
		return nil, 0, nil
	}
	if got := string(b[start+length : n]); got != "\r\n"+p.delimiter {
		return nil, 0, fmt.Errorf("got %q after the part, want %q", got, "\r\n"+p.delimiter)
	}
	e, err := parseEnvelope(b[start : start+length])
	if err != nil {
		return nil, 0, err
	}
	if media, _, _ := mime.ParseMediaType(header.Get("Content-Type")); media != "application/json" {
		return nil, 0, fmt.Errorf("part header %q: want Content-Type: application/json", head)
	}
	if header.Get("Comet-Id") != e.id || header.Get("Comet-Channel") != e.Channel {
		return nil, 0, fmt.Errorf("part header %q: want Comet-Id and Comet-Channel as in %v", head, e)
	}
	return &e, n, nil
}

// eventStream: sse in both formats.
type eventStream struct{ raw bool }

func (s *eventStream) next(b []byte) (*event, int, error) {
	var event, id string
	var data []string
	var last string // the name of the field before
	n := 0
	for {
		line, size, ok := cutLine(b[n:])
		if !ok {
			return nil, 0, nil
		}
		n += size
		if line == "" {
			break
		}
		if line[0] == ':' {
			continue
		}
		field, value, ok := strings.Cut(line, ": ")
		if !ok {
			return nil, 0, fmt.Errorf("line %q: want a field, a colon and a space", clip([]byte(line)))
		}
		switch field {
		case "event":
			if last != "" {
				return nil, 0, fmt.Errorf("%q: want the event line first", clip(b[:n]))
			}
			event = value
		case "data":
			if last == "id" {
				return nil, 0, fmt.Errorf("%q: want the id line last", clip(b[:n]))
			}
			data = append(data, value)
		case "id":
			if last == "id" {
				return nil, 0, fmt.Errorf("%q: two id lines", clip(b[:n]))
			}
			if _, _, err := parseCursor(value); err != nil {
				return nil, 0, fmt.Errorf("id line: %w", err)
			}
			id = value
		case "retry":
			if strings.Trim(value, "0123456789") != "" || value == "" {
				return nil, 0, fmt.Errorf("line %q: want a decimal number", line)
			}
			continue
		default:
			return nil, 0, fmt.Errorf("line %q: unknown field", clip([]byte(line)))
		}
		last = field
	}
	if last == "" {
		return nil, n, nil // padding, or retry alone
	}
	if len(data) == 0 {
		return nil, 0, fmt.Errorf("%q: an event without data", clip(b[:n]))
	}
	joined := strings.Join(data, "\n")
	if control, ok := strings.CutPrefix(event, "comet:"); ok {
		e, err := parseEnvelope([]byte(joined))
		if err == nil && (e.control != control || e.id != id) {
			err = fmt.Errorf("%q: want the control and the id of the lines as in the data", clip(b[:n]))
		}
		return one(e, n, err)
	}
	if id == "" {
		return nil, 0, fmt.Errorf("%q: a message without an id line", clip(b[:n]))
	}
	if s.raw {
		var e = &eventOf{id: id, raw: joined}
		if event != "" {
			e.Type = &event
		}
		return e, n, nil
	}
	if event != "" {
		return nil, 0, fmt.Errorf("%q: want no event line in the envelope format", clip(b[:n]))
	}
	e, err := parseEnvelope([]byte(joined))
	if err == nil && (e.control != "" || e.id != id) {
		err = fmt.Errorf("%q: want a message whose id is that of the id line", clip(b[:n]))
	}
	return one(e, n, err)
}

// eventOf is event, where a variable has that name.
type eventOf = event

// cutLine cuts a line that ends in LF, CR LF or CR off b. A CR at the end of b
// may be half of a line's end.
func cutLine(b []byte) (line string, n int, ok bool) {
	i := bytes.IndexAny(b, "\r\n")
	if i < 0 || b[i] == '\r' && i+1 == len(b) {
		return "", 0, false
	}
	n = i + 1
	if b[i] == '\r' && b[n] == '\n' {
		n++
	}
	return string(b[:i]), n, true
}

// webSocketFrames: "one envelope a frame" of text (RFC 6455, 5.2).
type webSocketFrames struct{}

func (webSocketFrames) next(b []byte) (*event, int, error) {
	op, payload, n, err := readFrame(b)
	if n == 0 || err != nil {
		return nil, 0, err
	}
	switch op {
	case opText:
		e, err := parseEnvelope(payload)
		return one(e, n, err)
	case opPing, opPong:
		return nil, n, nil
	case opClose:
		return nil, 0, fmt.Errorf("got a close frame %q", payload)
	}
	return nil, 0, fmt.Errorf("got a frame with opcode %d, want text", op)
}

const (
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

// readFrame reads a server's frame at the start of b; n is 0 if b ends first.
func readFrame(b []byte) (op int, payload []byte, n int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	if b[0]&0xf0 != 0x80 || b[1]&0x80 != 0 {
		return 0, nil, 0, fmt.Errorf("frame % x: want FIN, no reserved bit and no mask", b[:2])
	}
	size, start := uint64(b[1]), 2
	switch {
	case size == 126 && len(b) >= 4:
		size, start = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case size == 127 && len(b) >= 10:
		size, start = binary.BigEndian.Uint64(b[2:]), 10
	case size >= 126:
		return 0, nil, 0, nil
	}
	if uint64(len(b)-start) < size {
		return 0, nil, 0, nil
	}
	n = start + int(size)
	return int(b[0] & 15), b[start:n], n, nil
}
