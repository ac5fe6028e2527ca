package transport

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// newMultipart is Netscape's server push with a part for each envelope
// (multipart as of RFC 2046, 5.1). The boundary of the next part follows each
// part at once, so that a reader knows that it is whole.
func newMultipart(boundary string) *stream {
	return &stream{
		transport:   Multipart,
		contentType: "multipart/x-mixed-replace; boundary=" + boundary,
		framing:     multipartEnvelope{boundary},
		head: func(padding int) []byte {
			delimiter := "--" + boundary + "\r\n"
			return []byte(preamble(padding-len(delimiter)) + delimiter)
		},
		tail: []byte("\r\n--" + boundary + "--\r\n"),
	}
}

// preamble returns n bytes that readers of multipart bodies skip (RFC 2046,
// 5.1.1).
func preamble(n int) string {
	if n <= 0 {
		return ""
	}
	return strings.Repeat(" ", max(0, n-2)) + "\r\n"
}

type multipartEnvelope struct{ boundary string }

func (multipartEnvelope) Slot() int { return multipartSlot }

func (f multipartEnvelope) AppendMessage(dst []byte, m *engine.Message) []byte {
	return f.appendPart(dst, wire.AppendEnvelope(nil, m), m.ID, m.Channel)
}

func (f multipartEnvelope) AppendControl(dst []byte, c *wire.Control) []byte {
	return f.appendPart(dst, wire.AppendControl(nil, c), c.ID, "")
}

func (f multipartEnvelope) appendPart(dst, json []byte, id engine.Cursor, channel string) []byte {
	dst = append(dst, "Content-Type: application/json\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(json)), 10)
	if !id.IsZero() {
		dst = append(dst, "\r\nComet-Id: "...)
		dst = id.Append(dst)
	}
	if channel != "" {
		dst = append(dst, "\r\nComet-Channel: "...)
		dst = append(dst, channel...)
	}
	dst = append(dst, "\r\n\r\n"...)
	dst = append(dst, json...)
	dst = append(dst, "\r\n--"...)
	dst = append(dst, f.boundary...)
	return append(dst, "\r\n"...)
}

// newMultipartRaw is server push as Netscape had it: pictures in an <img>, or
// pages. Browsers show a part when the next one begins, so the next part's
// head follows each part at once: of the same type, which mostly proves right.
// There are no ids, no controls and no heartbeats, and the stream ends after a
// time, since an <img> cannot be closed.
func newMultipartRaw(boundary string, active []string, limit time.Duration) *stream {
	f := multipartRaw{boundary, active}
	return &stream{
		transport:   Multipart,
		contentType: "multipart/x-mixed-replace; boundary=" + boundary,
		framing:     f,
		header: func(h http.Header) {
			// A page that is pushed is not of this origin.
			h.Set("Content-Security-Policy", "sandbox")
		},
		head: func(padding int) []byte { return []byte(preamble(padding)) },
		// The part that was announced closes empty; before the first part this
		// is a close-delimiter alone.
		tail: []byte("\r\n--" + boundary + "--\r\n"),
		prefix: func(announced string, m *engine.Message) []byte {
			if m.ContentType == announced {
				return nil
			}
			var dst []byte
			if announced != "" {
				dst = append(dst, "\r\n"...)
			}
			return f.appendHead(dst, m.ContentType)
		},
		limit:  limit,
		silent: true,
	}
}

type multipartRaw struct {
	boundary string
	active   []string
}

func (multipartRaw) Slot() int { return multipartRawSlot }

// AppendMessage appends the data and the next part's head. A message that may
// not go out this way has no bytes.
func (f multipartRaw) AppendMessage(dst []byte, m *engine.Message) []byte {
	if isActive(m.ContentType) && !matchAny(f.active, m.Channel) {
		return dst
	}
	if bytes.Contains(m.Data, []byte("--"+f.boundary)) {
		return dst // it would end its part and forge another
	}
	dst = append(dst, m.Data...)
	dst = append(dst, "\r\n"...)
	return f.appendHead(dst, m.ContentType)
}

func (multipartRaw) AppendControl(dst []byte, _ *wire.Control) []byte { return dst }

func (f multipartRaw) appendHead(dst []byte, contentType string) []byte {
	dst = append(dst, "--"...)
	dst = append(dst, f.boundary...)
	dst = append(dst, "\r\nContent-Type: "...)
	dst = append(dst, contentType...)
	return append(dst, "\r\n\r\n"...)
}

// isActive tells whether a browser may run scripts of such content.
func isActive(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "text/html" || strings.HasSuffix(media, "/xml") || strings.HasSuffix(media, "+xml") ||
		strings.HasPrefix(media, "multipart/") || strings.HasSuffix(media, "xsl") || strings.HasSuffix(media, "javascript")
}

func matchAny(patterns []string, channel string) bool {
	for _, p := range patterns {
		if engine.Match(p, channel) {
			return true
		}
	}
	return false
}
