package browser_test

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/png"
	"strings"
	"testing"

	"github.com/halley-comet/halley/e2e/browser"
)

func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, engine := range browser.Engines {
		_, err := browser.Start(t.Context(), engine)
		if !errors.Is(err, browser.ErrMissing) || !strings.Contains(err.Error(), "script/browsers") {
			t.Errorf("%s: error %v, want ErrMissing and what to run", engine, err)
		}
	}
}

func TestUniform(t *testing.T) {
	picture := image.NewGray(image.Rect(0, 0, 20, 10))
	check := func(want bool) {
		t.Helper()
		var encoded bytes.Buffer
		if err := png.Encode(&encoded, picture); err != nil {
			t.Fatal(err)
		}
		if got, err := browser.Uniform(encoded.Bytes()); got != want || err != nil {
			t.Errorf("Uniform: %v, %v; want %v", got, err, want)
		}
	}
	check(true)
	picture.Set(19, 9, color.White)
	check(false)
	if _, err := browser.Uniform([]byte("no picture")); err == nil {
		t.Error("Uniform takes what is no PNG")
	}
}
