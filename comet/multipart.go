package comet

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// maxPartHeader bounds the header of a part, in bytes.
const maxPartHeader = 8 << 10

// multipartParser parses server push in the envelope format:
//
//	--B CRLF header CRLF CRLF Content-Length bytes CRLF --B CRLF header …
//
// A part is complete with its last byte: nothing after it is waited for.
type multipartParser struct {
	streaming
	delimiter []byte // CRLF--boundary
	max       int
	buf       []byte
	state     multipartState
	length    int // of the body that is being read
}

type multipartState uint8

const (
	inPreamble  multipartState = iota // which is skipped (RFC 2046, 5.1.1)
	atDelimiter                       // CRLF--B is next
	afterDelimiter
	inHeader
	inBody
)

func newMultipartParser(boundary string, max int) *multipartParser {
	// The first delimiter has no CRLF before it; given one, it is as the others.
	return &multipartParser{delimiter: []byte("\r\n--" + boundary), max: max, buf: []byte("\r\n")}
}

func (p *multipartParser) feed(b []byte) (frames []frame, err error) {
	p.buf = append(p.buf, b...)
	rest := p.buf
	defer func() { p.buf = append(p.buf[:0], rest...) }()
	for {
		switch p.state {
		case inPreamble:
			i := bytes.Index(rest, p.delimiter)
			if i < 0 {
				rest = rest[max(0, len(rest)-len(p.delimiter)+1):]
				return frames, nil
			}
			rest, p.state = rest[i:], atDelimiter
		case atDelimiter:
			n := min(len(rest), len(p.delimiter))
			if !bytes.Equal(rest[:n], p.delimiter[:n]) {
				return frames, fmt.Errorf("comet: multipart: %.80q stands where a boundary should", rest)
			}
			if n < len(p.delimiter) {
				return frames, nil
			}
			rest, p.state = rest[n:], afterDelimiter
		case afterDelimiter:
			if len(rest) < 2 {
				return frames, nil
			}
			switch string(rest[:2]) {
			case "--":
				return frames, errCut
			case "\r\n":
				// Left in place: a header may be empty.
				p.state = inHeader
			default:
				return frames, fmt.Errorf("comet: multipart: %.80q follows a boundary", rest)
			}
		case inHeader:
			i := bytes.Index(rest[:min(len(rest), maxPartHeader)], []byte("\r\n\r\n"))
			if i < 0 {
				if len(rest) >= maxPartHeader {
					return frames, fmt.Errorf("comet: multipart: header of more than %d bytes", maxPartHeader)
				}
				return frames, nil
			}
			if p.length, err = contentLength(string(rest[:i])); err != nil {
				return frames, err
			}
			if p.length > p.max {
				return frames, errTooLarge
			}
			rest, p.state = rest[i+4:], inBody
		case inBody:
			if len(rest) < p.length {
				return frames, nil
			}
			body := rest[:p.length]
			rest, p.state = rest[p.length:], atDelimiter
			if frames, err = appendDecoded(frames, body); err != nil {
				return frames, err
			}
		}
	}
}

func contentLength(header string) (int, error) {
	for line := range strings.SplitSeq(header, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Content-Length") {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
			if err != nil {
				return 0, fmt.Errorf("comet: multipart: content length %.40q", value)
			}
			return int(n), nil
		}
	}
	return 0, fmt.Errorf("comet: multipart: part without a length")
}
