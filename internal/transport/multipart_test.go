package transport

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// A part is what a reader of multipart bodies finds.
type part struct{ contentType, body string }

func parts(t *testing.T, body []byte) (list []part) {
	t.Helper()
	r := multipart.NewReader(bytes.NewReader(body), "BOUNDARY")
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if n := p.Header.Get("Content-Length"); n != "" && n != strconv.Itoa(len(b)) {
			t.Errorf("a part of %d bytes has Content-Length %s", len(b), n)
		}
		list = append(list, part{p.Header.Get("Content-Type"), string(b)})
	}
}

// FuzzMultipart holds that a reader of multipart bodies finds in both formats
// just the parts that were pushed, and the empty ones that were announced.
func FuzzMultipart(f *testing.F) {
	addMessages(f)
	f.Add("a", "", "text/csv ", []byte("1,2"))
	// The spaces around a header's value are not its own (RFC 9110, 5.5).
	sent := func(contentType string) string { return strings.Trim(contentType, " ") }
	f.Fuzz(func(t *testing.T, channel, typ, contentType string, data []byte) {
		m := fuzzMessage(t, channel, typ, contentType, data)
		text := &engine.Message{ID: engine.Cursor{Epoch: "e1", Seq: 8}, Channel: "z", ContentType: "text/plain", Data: []byte("text")}
		c := notice(string(data))

		s := newMultipart("BOUNDARY")
		body := s.head(len(typ))
		body = s.framing.AppendMessage(body, m)
		body = s.framing.AppendMessage(body, text)
		body = s.framing.AppendControl(body, c)
		body = append(body, s.tail...)
		want := []part{
			{"application/json", string(wire.AppendEnvelope(nil, m))},
			{"application/json", string(wire.AppendEnvelope(nil, text))},
			{"application/json", string(wire.AppendControl(nil, c))},
			{"", ""},
		}
		if got := parts(t, body); !slices.Equal(got, want) {
			t.Errorf("envelope: got %q, want %q", got, want)
		}

		s = newMultipartRaw("BOUNDARY", []string{"pages/*"}, time.Minute)
		body = s.head(len(typ))
		want = nil
		announced, prefix := "", s.prefixWriter(false)
		for _, m := range []*engine.Message{m, m, text, m} {
			it := pump.Item{Message: m, Bytes: s.framing.AppendMessage(nil, m)}
			body = append(append(body, prefix(it)...), it.Bytes...)
			if bytes.Contains(m.Data, []byte("--BOUNDARY")) || isActive(m.ContentType) && !engine.Match("pages/*", m.Channel) {
				continue
			}
			if announced != "" && announced != m.ContentType {
				want = append(want, part{sent(announced), ""})
			}
			announced = m.ContentType
			want = append(want, part{sent(m.ContentType), string(m.Data)})
		}
		body = append(body, s.tail...)
		want = append(want, part{sent(announced), ""})
		if got := parts(t, body); !slices.Equal(got, want) {
			t.Errorf("raw: got %q, want %q", got, want)
		}
	})
}

// Scripts must not come from where pictures are pushed.
func TestActiveContent(t *testing.T) {
	for contentType, want := range map[string]bool{
		"text/html": true, "TEXT/HTML ; charset=utf-8": true, "image/svg+xml": true, "application/xml": true, "text/xml": true,
		"application/xhtml+xml": true, "text/javascript": true, "application/x-javascript": true, "multipart/mixed; boundary=x": true,
		"text/plain": false, "image/png": false, "application/json": false, "application/octet-stream": false, "text/css": false,
	} {
		if got := isActive(contentType); got != want {
			t.Errorf("isActive(%q) = %v", contentType, got)
		}
	}
}
