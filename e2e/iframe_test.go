package e2e

import "testing"

// The forever frame runs each script as it comes, cleans up after it, and the
// page around it shows no sign of a load that goes on.
func TestForeverFrame(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		p.visit(s.mount())
		for _, name := range []string{"iframe", "iframe-post"} {
			t.Run(name, func(t *testing.T) {
				var before int
				p.eval(`return history.length;`, &before)
				stream := p.in(t).open(way{name: name, stream: true}, s.mount(), s.cursor())
				for i := range 50 {
					s.publish(text("<b>"))
					stream.message(i)
				}
				var got struct {
					Page, Frame string // readyState
					Scripts     int    // in the frame
					Nodes       int    // in the frame's body
					History     int
				}
				stream.get(`({
					page: document.readyState,
					frame: s.frame.contentDocument.readyState,
					scripts: s.frame.contentDocument.scripts.length,
					nodes: s.frame.contentDocument.body.children.length,
					history: history.length,
				})`, &got)
				if got.Page != "complete" || got.Frame == "complete" {
					t.Errorf("the page is %s and the frame %s, want complete and not", got.Page, got.Frame)
				}
				// The preamble's own script stays.
				if got.Scripts > 1 || got.Nodes > 2 {
					t.Errorf("%d scripts and %d elements in the frame after 50 messages, want them removed", got.Scripts, got.Nodes)
				}
				if got.History != before {
					t.Errorf("%d entries in the history, want %d", got.History, before)
				}
				checkOpen(t, stream)
				stream.close()
			})
		}
	})
}
