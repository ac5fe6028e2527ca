package transport

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// newIFrame is for the hidden iframe, the "forever frame": an HTML page that
// does not end, with a script for each envelope. What the scripts call is bound
// in the page's preamble, so that they are the same for all. Engines show a
// page only after some of it has come, which the padding is for.
func newIFrame(q *Request, by framers) *stream {
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
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'unsafe-inline'"+by.directive(q.Origin))
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

// framers are the origins whose pages may have the page in a frame, beside its
// own and the one that gets the messages.
type framers struct {
	any    bool
	listed string // each with a space before it
}

func newFramers(origins []string) framers {
	var by framers
	for _, o := range origins {
		o = strings.ToLower(strings.TrimSuffix(o, "/"))
		if o == "*" {
			by.any = true
		} else if canBeSource(o) {
			by.listed += " " + o
		}
	}
	return by
}

// directive returns frame-ancestors for a page whose messages go to an origin,
// if it is not empty, with what parts it from the directive before (Content
// Security Policy Level 3, 6.4.2.1). It is left out where it could not say what
// it has to.
func (by framers) directive(origin string) string {
	if by.any || origin != "" && !canBeSource(origin) {
		return ""
	}
	if origin != "" {
		origin = " " + origin
		if strings.Contains(by.listed+" ", origin+" ") {
			origin = ""
		}
	}
	return "; frame-ancestors 'self'" + origin + by.listed
}

// sourceSyntax is that of a host-source, as far as it is an origin; ipv4 are
// the hosts that no source matches by the standard, 127.0.0.1 excepted, though
// browsers do. IPv6 addresses are in neither.
var (
	sourceSyntax = regexp.MustCompile(`^https?://([a-z0-9-]+(?:\.[a-z0-9-]+)*)(:[0-9]{1,5})?$`)
	ipv4         = regexp.MustCompile(`^[0-9.]+$`)
)

// canBeSource tells whether a policy can name an origin (Content Security Policy
// Level 3, 2.3.1 and 6.7.2.9).
func canBeSource(origin string) bool {
	m := sourceSyntax.FindStringSubmatch(origin)
	return m != nil && (m[1] == "127.0.0.1" || !ipv4.MatchString(m[1]))
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
