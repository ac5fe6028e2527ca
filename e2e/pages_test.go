package e2e

import (
	"fmt"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whole pages take each other's place by server push in a frame, on a channel
// that is configured for it.
func TestPages(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		if p.engine == "chromium" {
			t.Skip("Chromium shows no HTML of a multipart stream")
		}
		config := filepath.Join(t.TempDir(), "halley.yaml")
		const policy = "channels:\n  - pattern: news\n    active-content: true\n"
		if err := os.WriteFile(config, []byte(policy), 0o600); err != nil {
			t.Fatal(err)
		}
		s := serve(t, "--config", config)
		p.visit(s.mount())
		p.eval(fmt.Sprintf(`
			const frame = document.createElement("iframe");
			frame.style = "position: fixed; left: 0; top: 0; border: 0";
			frame.src = %s;
			document.body.append(frame);`,
			quote(s.mount()+"/subscribe?transport=multipart&channel=news&cursor="+s.cursor())), nil)
		for i := range uint8(3) {
			shade := color.RGBA{60 * i, 200, 10, 255}
			s.publish(body{contentType: "text/html; charset=utf-8", data: fmt.Appendf(nil,
				"<!doctype html><title>%d</title><body bgcolor=#%02x%02x%02x><!--%s-->", i, shade.R, shade.G, shade.B, strings.Repeat(" ", 600))})
			p.screen(func(shot image.Image) bool { return color.RGBAModel.Convert(shot.At(5, 5)) == shade })
		}
	})
}
