package e2e

import "testing"

// A page subscribes, unsubscribes and publishes by frames, each answered under
// the reference it was given.
func TestWebSocketFrames(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		s := serve(t)
		p.visit(s.mount())
		st := p.open(find(t, "websocket-frames"), s.mount(), "")
		ask := func(frame, ref string) envelope {
			t.Helper()
			st.eval(st.name+".send("+frame+");", nil)
			st.until(`s.controls.some((c) => c.ref === ` + ref + `)`)
			var answer envelope
			st.get(`s.controls.find((c) => c.ref === `+ref+`)`, &answer)
			return answer
		}

		ack := ask(`{ publish: { channel: "news", type: "said", data: { "</script>": [1] } }, ref: 7 }`, "7")
		got := st.message(0)
		if ack.Control != "ack" || ack.ID != got.ID {
			t.Errorf("the publisher was answered %+v, want an ack with the message's id %q", ack, got.ID)
		}
		if got.Channel != "news" || got.Type != "said" || string(got.Data) != `{"</script>":[1]}` {
			t.Errorf("message %+v with data %s, want what was published", got, got.Data)
		}

		if ack := ask(`{ subscribe: ["other"], ref: "s" }`, `"s"`); ack.Control != "ack" || ack.ID == "" {
			t.Errorf("the subscriber was answered %+v, want an ack with the position", ack)
		}
		if ack := ask(`{ unsubscribe: ["news"], ref: "u" }`, `"u"`); ack.Control != "ack" {
			t.Errorf("the unsubscriber was answered %+v, want an ack", ack)
		}
		s.publish(text("nobody hears"))
		ask(`{ publish: { channel: "other", data: "heard" }, ref: 8 }`, "8")
		if got := st.message(1); got.Channel != "other" || string(got.Data) != `"heard"` {
			t.Errorf("message %+v with data %s, want that of the other channel", got, got.Data)
		}

		if answer := ask(`{ subscribe: ["a//b"], ref: 9 }`, "9"); answer.Control != "error" {
			t.Errorf("a bad channel was answered %+v, want an error", answer)
		}
		checkOpen(t, st)
	})
}
