package e2e

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math/rand/v2"
	"strings"
	"testing"
)

// An <img> changes by server push, as Netscape had it: the response stays open
// and each part takes the place of the one before.
func TestImage(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		r := newRelay(t, s.address)
		mount := "http://" + r.address() + "/comet"
		p.visit(mount)
		p.eval(fmt.Sprintf(`
			window.image = new Image();
			image.src = %s;
			image.style = "position: fixed; left: 0; top: 0";
			document.body.append(image);`,
			quote(mount+"/subscribe?transport=multipart&channel=news&cursor="+s.cursor())), nil)
		for i, width := range []int{64, 48, 80} {
			shade := color.RGBA{uint8(40 * i), 200, 10, 255}
			s.publish(picture(t, width, shade))
			p.eval(fmt.Sprintf(`
				while (image.naturalWidth !== %d) await new Promise((look) => setTimeout(look, 10));`, width), nil)
			// What a canvas takes of it is the first picture in Firefox, so
			// the test looks at the screen.
			p.screen(func(shot image.Image) bool { return color.RGBAModel.Convert(shot.At(1, 1)) == shade })
			// No event of an <img> tells that its response goes on.
			if open := r.count("transport=multipart"); open != 1 {
				t.Errorf("picture %d: %d connections hold the stream, want 1", i, open)
			}
		}
	})
}

// picture is a PNG with a corner of the shade and noise elsewhere: WebKit
// shows nothing of a stream's first 512 bytes.
func picture(t *testing.T, width int, shade color.RGBA) body {
	t.Helper()
	drawn := image.NewRGBA(image.Rect(0, 0, width, 16))
	noise := rand.New(rand.NewPCG(1, uint64(width)))
	for i := range drawn.Pix {
		drawn.Pix[i] = uint8(noise.Uint32()) | 1
	}
	draw.Draw(drawn, image.Rect(0, 0, 8, 8), image.NewUniform(shade), image.Point{}, draw.Src)
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, drawn); err != nil {
		t.Fatal(err)
	}
	return body{contentType: "image/png", data: encoded.Bytes()}
}

// count tells how many connections were last asked for something that
// contains part.
func (r *relay) count(part string) int {
	n := 0
	r.each(func(c *carriage) {
		if request, _ := c.request.Load().(string); strings.Contains(request, part) {
			n++
		}
	})
	return n
}
