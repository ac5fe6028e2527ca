package transport

import (
	"net/http"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// newIFrame is for the hidden iframe, the "forever frame": an HTML page that
// does not end, with a script for each envelope. What the scripts call is bound
// in the page's preamble, so that they are the same for all. Engines show a
// page only after some of it has come, which the padding is for.
func newIFrame(q *Request) *stream {
	target := "parent." + q.Callback + "(m)"
	if q.Origin != "" {
		target = `parent.postMessage(m,"` + q.Origin + `")`
	}
	head := `<!DOCTYPE html><html><head><meta charset="utf-8"><title>comet</title></head><body><script>` +
		// The executed script goes first: the callback may throw.
		`function _(m){var s=document.currentScript;if(s)s.parentNode.removeChild(s);` + target + `}` +
		"</script>\n"
	return &stream{
		transport:   IFrame,
		contentType: "text/html; charset=utf-8",
		framing:     iframe{},
		header: func(h http.Header) {
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'")
		},
		head: func(padding int) []byte {
			if len(head) >= padding {
				return []byte(head)
			}
			const begin, end = "<!--", "-->\n"
			return []byte(head + begin + pad(head+begin+end, padding, " ") + end)
		},
	}
}

type iframe struct{}

func (iframe) Slot() int { return iframeSlot }

func (iframe) AppendMessage(dst []byte, m *engine.Message) []byte {
	return appendScript(dst, wire.AppendEnvelope(nil, m))
}

func (iframe) AppendControl(dst []byte, c *wire.Control) []byte {
	return appendScript(dst, wire.AppendControl(nil, c))
}

func appendScript(dst, json []byte) []byte {
	dst = append(dst, "<script>_("...)
	dst = wire.AppendScriptSafe(dst, json)
	return append(dst, ")</script>"...)
}
