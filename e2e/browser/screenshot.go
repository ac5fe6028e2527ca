package browser

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
)

// painted takes a picture once the page was painted, and takes another when
// it is of one colour: WebKitGTK's very first one is now and then.
func painted(ctx context.Context, t Tab, take func() ([]byte, error)) ([]byte, error) {
	for try := 0; ; try++ {
		if err := t.Eval(ctx, `for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);`, nil); err != nil {
			return nil, err
		}
		picture, err := take()
		if err != nil {
			return nil, err
		}
		uniform, err := Uniform(picture)
		if err != nil || !uniform || try == 2 {
			return picture, err
		}
	}
}

// Uniform reports whether a PNG shows a single colour.
func Uniform(picture []byte) (bool, error) {
	decoded, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return false, fmt.Errorf("browser: screenshot: %w", err)
	}
	bounds := decoded.Bounds()
	first := decoded.At(bounds.Min.X, bounds.Min.Y)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			if decoded.At(x, y) != first {
				return false, nil
			}
		}
	}
	return true, nil
}
