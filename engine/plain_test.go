package engine

import (
	"mime"
	"strings"
	"testing"
)

// TestPlain wants what is taken for a plain content type to be one.
func TestPlain(t *testing.T) {
	for _, c := range []string{"text/plain", "application/vnd.api+json", "image/svg+xml", "X/Y", "a/1-._+"} {
		if !isPlain(c) {
			t.Errorf("%q is not plain", c)
		}
	}
	for _, c := range []string{"", "/", "text", "text/", "/plain", "a/b/c", "text/plain; charset=utf-8", "text/ plain", "text/\"x\"", "t@xt/plain"} {
		if isPlain(c) {
			t.Errorf("%q is plain", c)
		}
	}
}

// FuzzPlain compares with package mime.
func FuzzPlain(f *testing.F) {
	f.Add("text/plain")
	f.Add("a/b;c=d")
	f.Fuzz(func(t *testing.T, c string) {
		if _, _, err := mime.ParseMediaType(c); isPlain(c) && err != nil {
			t.Errorf("%q: %v", c, err)
		}
	})
}

// A content type is of the kind that its media type, as others parse it, says.
func FuzzContentType(f *testing.F) {
	for _, c := range []string{"", "text/plain", "TEXT/html; charset=utf-8", "application/json", "application/x+JSON;a=b", "text/", "text", "image/png", " text/csv", "a/b;c=\"d;e\"", "application/json ;x=y", "a/b+json+json", "application/jsonp"} {
		f.Add(c)
	}
	f.Fuzz(func(t *testing.T, c string) {
		if CheckContentType(c) != nil || c == "" {
			return
		}
		media, _, err := mime.ParseMediaType(c)
		if err != nil {
			t.Fatalf("%q: %v", c, err)
		}
		want := Binary
		switch {
		case media == "application/json" || strings.HasSuffix(media, "+json"):
			want = JSON
		case strings.HasPrefix(media, "text/"):
			want = Text
		}
		if got := KindOf(c); got != want {
			t.Errorf("%q: got kind %d, want %d", c, got, want)
		}
	})
}
