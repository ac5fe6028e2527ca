package e2e

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/halley-comet/halley/e2e/browser"
)

// The drivers do what the other tests take for granted.
func TestDriver(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, `<!doctype html><title>driven</title><p style="background: teal">A page.`)
		}))
		defer s.Close()
		p.navigate(s.URL)

		var title string
		p.eval(`return new Promise((yes) => setTimeout(() => yes(document.title), 10));`, &title)
		if title != "driven" {
			t.Errorf("title %q, want driven", title)
		}

		const odd = "</script> \u2028 \x00 \U0001F600 \" ' \\"
		var got string
		p.eval(`return "</scr" + "ipt> \u2028 \u0000 \u{1F600} \" ' \\";`, &got)
		if got != odd {
			t.Errorf("text %q, want %q", got, odd)
		}

		var nothing any = "something"
		p.eval(`await null;`, &nothing)
		if nothing != nil {
			t.Errorf("a promise of nothing gave %v, want nil", nothing)
		}

		var thrown *browser.ScriptError
		err := p.tab.Eval(t.Context(), `await null; throw new TypeError("no such comet");`, nil)
		if !errors.As(err, &thrown) || !strings.Contains(thrown.Text, "no such comet") {
			t.Errorf("error %v, want the script's", err)
		}

		for _, size := range []struct{ width, height int }{{1280, 900}, {390, 844}} {
			p.step(func(ctx context.Context) error { return p.tab.Resize(ctx, size.width, size.height) })
			picture, encoded := p.screenshot()
			if got := picture.Bounds().Size(); got.X != size.width || got.Y != size.height {
				t.Errorf("screenshot of %v, want %dx%d", got, size.width, size.height)
			}
			if uniform, err := browser.Uniform(encoded); uniform || err != nil {
				t.Errorf("screenshot uniform %v, error %v", uniform, err)
			}
		}
	})
}
