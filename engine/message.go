package engine

import (
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"
)

// A Message is one entry of the log. Once stored it never changes.
type Message struct {
	// ID is the message's position, set by the engine.
	ID Cursor
	// Channel is a name, not a pattern: see CheckChannel.
	Channel string
	// Type is an optional event name: at most MaxType bytes of UTF-8 without
	// control characters, not "open" or "error", not starting with "comet:".
	Type string
	// ContentType is the media type of Data (RFC 9110, 8.3.1). Empty when
	// publishing means application/octet-stream, and is stored as that.
	ContentType string
	// Data is the message's content: for JSON types valid JSON, for text
	// types valid UTF-8.
	Data []byte
	// Time is when the message was stored, in Unix milliseconds, set by the
	// engine. It never decreases along the log.
	Time int64
	// Headers carry what is not for the native wire: trace context (as
	// traceparent and tracestate), what other protocols need. At most MaxHeaders pairs and MaxHeaderBytes of
	// names and values in all. Nil where there are none.
	Headers map[string]string
}

// Bounds of what a message and a batch may hold. The size of Data is bounded
// by the front ends, which know what their operator allows.
const (
	MaxType        = 64
	MaxContentType = 255
	MaxHeaders     = 32
	MaxHeaderBytes = 4096
	MaxBatch       = 1000
	MaxKey         = 512
)

// Kind sorts content types by how a message's data is shown to clients.
type Kind uint8

// The kinds of data.
const (
	Binary Kind = iota
	Text        // text/*
	JSON        // application/json and any +json
)

// KindOf returns the kind of a content type, parameters and case aside.
func KindOf(contentType string) Kind {
	t, _, _ := strings.Cut(contentType, ";")
	t = strings.TrimSpace(t)
	switch {
	case strings.EqualFold(t, "application/json"), hasSuffixFold(t, "+json"):
		return JSON
	case len(t) >= 5 && strings.EqualFold(t[:5], "text/"):
		return Text
	}
	return Binary
}

func hasSuffixFold(s, suffix string) bool {
	return len(s) >= len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}

// Check reports what is wrong with a message that is to be stored, but for
// whether JSON data parses, which front ends check as they read it. The error
// wraps ErrInvalid.
func (m *Message) Check() error {
	if err := CheckChannel(m.Channel); err != nil {
		return err
	}
	if err := CheckType(m.Type); err != nil {
		return err
	}
	if err := CheckContentType(m.ContentType); err != nil {
		return err
	}
	if KindOf(m.ContentType) == Text && !utf8.Valid(m.Data) {
		return fmt.Errorf("%w: data of type %s is not UTF-8", ErrInvalid, m.ContentType)
	}
	if len(m.Headers) > MaxHeaders {
		return fmt.Errorf("%w: %d headers, at most %d", ErrInvalid, len(m.Headers), MaxHeaders)
	}
	n := 0
	for k, v := range m.Headers {
		n += len(k) + len(v)
	}
	if n > MaxHeaderBytes {
		return fmt.Errorf("%w: %d bytes of headers, at most %d", ErrInvalid, n, MaxHeaderBytes)
	}
	return nil
}

// CheckType reports what is wrong with a message's type; empty is valid.
func CheckType(t string) error {
	switch {
	case len(t) > MaxType:
		return fmt.Errorf("%w: type of %d bytes, at most %d", ErrInvalid, len(t), MaxType)
	case t == "open", t == "error", strings.HasPrefix(t, "comet:"):
		return fmt.Errorf("%w: type %q is reserved", ErrInvalid, t)
	case !utf8.ValidString(t):
		return fmt.Errorf("%w: type %q is not UTF-8", ErrInvalid, t)
	}
	for _, r := range t {
		// C0, DEL, C1, and the two that JavaScript takes for line ends.
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return fmt.Errorf("%w: type %q has a control character", ErrInvalid, t)
		}
	}
	return nil
}

// isPlain tells whether a content type is one without parameters, of letters,
// digits and the signs that registered names have (RFC 6838, section 4.2).
func isPlain(t string) bool {
	slash := strings.IndexByte(t, '/')
	for i := 0; i < len(t); i++ {
		c := t[i]
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && i != slash && strings.IndexByte("+-._", c) < 0 {
			return false
		}
	}
	return 0 < slash && slash < len(t)-1
}

// CheckContentType reports what is wrong with a content type; empty is valid.
// One that passes can stand in a header line.
func CheckContentType(t string) error {
	if t == "" {
		return nil
	}
	if len(t) > MaxContentType {
		return fmt.Errorf("%w: content type of %d bytes, at most %d", ErrInvalid, len(t), MaxContentType)
	}
	for i := 0; i < len(t); i++ {
		if t[i] < ' ' || t[i] > '~' {
			return fmt.Errorf("%w: content type %q is not printable ASCII", ErrInvalid, t)
		}
	}
	if isPlain(t) {
		return nil // as most are
	}
	media, _, err := mime.ParseMediaType(t)
	if err != nil || !strings.Contains(media, "/") {
		return fmt.Errorf("%w: content type %q is not a media type", ErrInvalid, t)
	}
	return nil
}
