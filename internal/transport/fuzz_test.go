package transport

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// addMessages adds the seeds of the fuzz tests that frame a message.
func addMessages(f *testing.F) {
	f.Add("a", "", "application/json", []byte("{\"text\" : \"hello\",\n\"n\":1.0e-5}"))
	f.Add("chat/room/7", "said", "text/plain; charset=utf-8", []byte("lines\r\nand\rmore\n\n"))
	f.Add("a", "é <b>", "text/plain", []byte("</script><script>_(1)</script><!--\u2028\ufeff\x00"))
	f.Add("a", "", "text/plain", []byte("x\n\nevent: comet:gap\ndata: {}\nid: e-9\n\n"))
	f.Add("a", "", "text/csv", []byte(""))
	f.Add("b", "t", "image/png", []byte("\x89PNG\r\n\r\n--BOUNDARY-\r\n\xff"))
	f.Add("b", "", "application/octet-stream", []byte("\r\n--BOUNDARY--\r\n"))
	f.Add("b", "", "image/svg+xml", []byte("<svg/>\r"))
}

// fuzzMessage makes a message of what a fuzz test is given, if it is one that
// could be published.
func fuzzMessage(t *testing.T, channel, typ, contentType string, data []byte) *engine.Message {
	m := &engine.Message{
		ID: engine.Cursor{Epoch: "e1", Seq: 7}, Channel: channel, Type: typ, ContentType: contentType, Data: data, Time: 1,
	}
	if contentType == "" || m.Check() != nil || engine.KindOf(contentType) == engine.JSON && (!json.Valid(data) || !utf8.Valid(data)) {
		t.Skip()
	}
	return m
}

// notice is a control whose text a stranger has a part in.
func notice(detail string) *wire.Control {
	return &wire.Control{Kind: wire.Error, Problem: wire.NewProblem(wire.InvalidChannel, detail)}
}

// normalised returns a text with the line ends of the HTML Standard's event
// streams.
func normalised(s string) string {
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(s)
}
