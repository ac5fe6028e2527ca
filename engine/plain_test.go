package engine

import (
	"mime"
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
