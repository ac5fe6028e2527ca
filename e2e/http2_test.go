package e2e

import (
	"testing"

	"github.com/halley-comet/halley/internal/certtest"
)

// Every way works over HTTP/2 and TLS too, and there a page may hold more
// streams than HTTP/1.1 has connections for.
func TestHTTP2(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		certificate, key := certtest.SelfSigned(t)
		s := serve(t, "--tls-cert", certificate, "--tls-key", key)
		s.scheme = "https"
		p.visit(s.mount())
		var protocol string
		p.eval(`return performance.getEntriesByType("navigation")[0].nextHopProtocol;`, &protocol)
		if protocol != "h2" {
			t.Errorf("the page came by %q, want h2", protocol)
		}
		eachWay(t, p, func(t *testing.T, p *page, w way) {
			stream := p.open(w, s.mount(), s.cursor())
			for i := range 3 {
				id := s.publish(text("</script>"))
				if got := stream.message(i); got.ID != id {
					t.Errorf("id %q, want %q", got.ID, id)
				}
			}
			if w.stream {
				checkOpen(t, stream)
			}
			stream.close()
		})
		t.Run("many streams", func(t *testing.T) {
			p := p.in(t)
			var streams []stream
			for range 10 {
				streams = append(streams, p.open(find(t, "sse"), s.mount(), s.cursor()))
			}
			id := s.publish(text("to all"))
			for _, st := range streams {
				if got := st.message(0); got.ID != id {
					t.Errorf("id %q, want %q", got.ID, id)
				}
			}
		})
	})
}
