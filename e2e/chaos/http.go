package chaos

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"
)

// head is a request's or a response's (RFC 9112, 2.1), as it was sent.
type head struct {
	start  string   // without its line end
	fields []string // the same
}

const headLimit = 1 << 20

func readHead(r *bufio.Reader) (head, error) {
	var h head
	for size := 0; ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return h, err
		}
		if size += len(line); size > headLimit {
			return h, errors.New("chaos: a head is too long")
		}
		line = strings.TrimRight(line, "\r\n")
		switch {
		case line == "" && h.start == "": // RFC 9112, 2.2
		case line == "":
			return h, nil
		case h.start == "":
			h.start = line
		default:
			h.fields = append(h.fields, line)
		}
	}
}

func (h head) bytes() []byte {
	var b bytes.Buffer
	b.WriteString(h.start + "\r\n")
	for _, field := range h.fields {
		b.WriteString(field + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// get is the value of a field, "" if there is none.
func (h head) get(name string) string {
	for _, field := range h.fields {
		if key, value, ok := strings.Cut(field, ":"); ok && strings.EqualFold(key, name) {
			return textproto.TrimString(value)
		}
	}
	return ""
}

// without takes out fields.
func (h head) without(names ...string) head {
	kept := head{start: h.start}
	for _, field := range h.fields {
		key, _, _ := strings.Cut(field, ":")
		drop := false
		for _, name := range names {
			drop = drop || strings.EqualFold(key, name)
		}
		if !drop {
			kept.fields = append(kept.fields, field)
		}
	}
	return kept
}

func (h head) upgrades() bool { return strings.EqualFold(h.get("Upgrade"), "websocket") }

// status is a response's.
func (h head) status() (int, error) {
	_, rest, _ := strings.Cut(h.start, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil {
		return 0, fmt.Errorf("chaos: status line %q", h.start)
	}
	return status, nil
}

// body finds the end of a message's body in its bytes (RFC 9112, 6.3).
type body struct {
	chunked bool
	open    bool  // ends with the connection
	left    int64 // of the body or of the chunk, with its line end

	line    []byte // chunked: what is there of the line that is being read
	trailer bool   // chunked: after the last chunk
}

func requestBody(h head) (*body, error) { return newBody(h, false) }

// responseBody is for a response that is no 1xx.
func responseBody(h head, method string) (*body, error) {
	status, err := h.status()
	if err != nil {
		return nil, err
	}
	if method == "HEAD" || status == 204 || status == 304 {
		return new(body), nil
	}
	return newBody(h, true)
}

func newBody(h head, open bool) (*body, error) {
	length := h.get("Content-Length")
	switch {
	case strings.EqualFold(h.get("Transfer-Encoding"), "chunked"):
		return &body{chunked: true}, nil
	case length != "":
		n, err := strconv.ParseInt(length, 10, 64)
		return &body{left: n}, err
	}
	return &body{open: open}, nil
}

// ended reports whether nothing more belongs to the body, which for one of no
// length is so before its first byte.
func (b *body) ended() bool { return !b.chunked && !b.open && b.left == 0 }

// take tells how many bytes of p belong to the body; ended is up to date after.
func (b *body) take(p []byte) (int, error) {
	n := 0
	for n < len(p) && !b.ended() {
		switch {
		case b.open:
			n = len(p)
		case b.left > 0:
			step := min(b.left, int64(len(p)-n))
			b.left -= step
			n += int(step)
		default: // a line of a chunked body
			c := p[n]
			n++
			if c != '\n' {
				b.line = append(b.line, c)
				continue
			}
			line := strings.TrimRight(string(b.line), "\r")
			b.line = b.line[:0]
			if err := b.endLine(line); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (b *body) endLine(line string) error {
	if b.trailer {
		if line == "" {
			*b = body{}
		}
		return nil
	}
	digits, _, _ := strings.Cut(line, ";")
	size, err := strconv.ParseInt(strings.TrimSpace(digits), 16, 63)
	if err != nil {
		return fmt.Errorf("chaos: chunk size: %w", err)
	}
	if size == 0 {
		b.trailer = true
		return nil
	}
	b.left = size + 2
	return nil
}
