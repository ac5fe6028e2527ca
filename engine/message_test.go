package engine_test

import (
	"errors"
	"fmt"
	"mime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/halley-comet/halley/engine"
)

func TestKindOf(t *testing.T) {
	for contentType, want := range map[string]engine.Kind{
		"":                                engine.Binary,
		"application/octet-stream":        engine.Binary,
		"image/png":                       engine.Binary,
		"application/jsonp":               engine.Binary,
		"application/json-seq":            engine.Binary,
		"text":                            engine.Binary,
		"application/json":                engine.JSON,
		"Application/JSON; charset=utf-8": engine.JSON,
		"application/problem+json":        engine.JSON,
		"image/svg+JSON ;a=b":             engine.JSON,
		"text/plain":                      engine.Text,
		"TEXT/html;charset=utf-8":         engine.Text,
		"text/x+json":                     engine.JSON,
	} {
		if got := engine.KindOf(contentType); got != want {
			t.Errorf("KindOf(%q) = %d, want %d", contentType, got, want)
		}
	}
}

func TestCheckMessage(t *testing.T) {
	headers := func(n, size int) map[string]string {
		h := make(map[string]string)
		for i := range n {
			h[fmt.Sprintf("%08d", i)] = strings.Repeat("v", size-8)
		}
		return h
	}
	for _, tt := range []struct {
		what string
		m    engine.Message
		ok   bool
	}{
		{"a channel alone", engine.Message{}, true},
		{"everything", engine.Message{Type: "t", ContentType: "text/plain", Data: []byte("é"), Headers: headers(3, 20)}, true},
		{"as many headers as may be", engine.Message{Headers: headers(engine.MaxHeaders, 128)}, true},
		{"too many headers", engine.Message{Headers: headers(engine.MaxHeaders+1, 10)}, false},
		{"too long headers", engine.Message{Headers: headers(engine.MaxHeaders, 129)}, false},
		{"text that is not UTF-8", engine.Message{ContentType: "text/plain", Data: []byte("\xff")}, false},
		{"binary that is not UTF-8", engine.Message{ContentType: "image/png", Data: []byte("\xff")}, true},
		{"JSON that does not parse, which is not looked at", engine.Message{ContentType: "application/json", Data: []byte("{")}, true},
		{"a bad type", engine.Message{Type: "open"}, false},
		{"a bad content type", engine.Message{ContentType: "/"}, false},
		{"a bad channel", engine.Message{Channel: "a/*"}, false},
	} {
		if tt.m.Channel == "" {
			tt.m.Channel = "a/b"
		}
		if err := tt.m.Check(); (err == nil) != tt.ok || err != nil && !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("%s: got %v, want ok %v", tt.what, err, tt.ok)
		}
	}
}

func TestCheckType(t *testing.T) {
	for s, ok := range map[string]bool{
		"": true, "said": true, "größe 世界": true, "Open": true, "opened": true, "comet": true, "acomet:": true,
		strings.Repeat("t", engine.MaxType): true,

		"open": false, "error": false, "comet:": false, "comet:gap": false, "a\nb": false, "a\rb": false, "\x00": false,
		"\x7f": false, "\u0085": false, "\u2028": false, "\u2029": false, "\xff": false,
		strings.Repeat("t", engine.MaxType+1): false,
	} {
		if err := engine.CheckType(s); (err == nil) != ok || err != nil && !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("CheckType(%q) = %v, want ok %v", s, err, ok)
		}
	}
}

func TestCheckContentType(t *testing.T) {
	for s, ok := range map[string]bool{
		"": true, "text/plain": true, "text/plain; charset=utf-8": true, "application/vnd.x+json;v=1": true,
		`multipart/mixed; boundary="a b"`: true,

		"text": false, "/": false, "a/": false, "/b": false, "text/plain\r\nA: b": false, "text/plain\n": false,
		"text/plain; é=b": false, "text/plain;;;=": false, "text/plain\x00": false, "text/pl ain": false,
		"text/plain;" + strings.Repeat(" ", engine.MaxContentType): false,
	} {
		if err := engine.CheckContentType(s); (err == nil) != ok || err != nil && !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("CheckContentType(%q) = %v, want ok %v", s, err, ok)
		}
	}
}

// FuzzCheckMessage wants what passes to be safe where framings put it: a type
// on a line of its own, a content type in a header.
func FuzzCheckMessage(f *testing.F) {
	f.Add("a/b", "said", "text/plain", []byte("x"))
	f.Add("a", "comet:x", "application/json; a=\"b\"", []byte("\xff"))
	f.Add("meta/x", "a\u2028b", "text", []byte{})
	f.Fuzz(func(t *testing.T, channel, typ, contentType string, data []byte) {
		m := engine.Message{Channel: channel, Type: typ, ContentType: contentType, Data: data}
		if err := m.Check(); err != nil {
			if !errors.Is(err, engine.ErrInvalid) {
				t.Errorf("%+v: %v is not ErrInvalid", m, err)
			}
			return
		}
		if strings.ContainsAny(typ, "\r\n\x00\u0085\u2028\u2029") || !utf8.ValidString(typ) || len(typ) > engine.MaxType {
			t.Errorf("type %q passes", typ)
		}
		if strings.ContainsAny(contentType, "\r\n\x00") || len(contentType) > engine.MaxContentType {
			t.Errorf("content type %q passes", contentType)
		}
		if contentType != "" {
			if _, _, err := mime.ParseMediaType(contentType); err != nil {
				t.Errorf("content type %q passes: %v", contentType, err)
			}
		}
		if engine.KindOf(contentType) == engine.Text && !utf8.Valid(data) {
			t.Errorf("data %q of type %q passes", data, contentType)
		}
	})
}
