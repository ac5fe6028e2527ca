package transport

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// An sseEvent is what an EventSource dispatches.
type sseEvent struct{ typ, data, lastID string }

// parseSSE interprets a stream as the HTML Standard does ("Interpreting an
// event stream"), whoever wrote it.
func parseSSE(stream string) (events []sseEvent, retry string) {
	stream = strings.TrimPrefix(stream, "\ufeff")
	lines := strings.Split(normalised(stream), "\n")
	var typ, data, lastID string
	for _, line := range lines[:len(lines)-1] {
		if line == "" {
			if data != "" {
				if typ == "" {
					typ = "message"
				}
				events = append(events, sseEvent{typ, strings.TrimSuffix(data, "\n"), lastID})
			}
			typ, data = "", ""
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			typ = value
		case "data":
			data += value + "\n"
		case "id":
			if !strings.Contains(value, "\x00") {
				lastID = value
			}
		case "retry":
			retry = value
		}
	}
	return events, retry
}

// FuzzSSE holds that an EventSource gets of any message one event, with its
// type, its data and its id, and nothing else of what is in it.
func FuzzSSE(f *testing.F) {
	addMessages(f)
	f.Fuzz(func(t *testing.T, channel, typ, contentType string, data []byte) {
		m := fuzzMessage(t, channel, typ, contentType, data)
		next := &engine.Message{ID: engine.Cursor{Epoch: "e1", Seq: 8}, Channel: "z", Type: "next", ContentType: "text/plain", Data: []byte("next")}
		want := sseEvent{"message", normalised(string(data)), "e1-7"}
		if typ != "" {
			want.typ = typ
		}
		if engine.KindOf(contentType) == engine.Binary {
			want.data = base64.StdEncoding.EncodeToString(data)
		}
		c := notice(string(data))
		errorEvent := sseEvent{"comet:error", string(wire.AppendControl(nil, c)), "e1-8"}
		for _, raw := range []bool{true, false} {
			s := newSSE(raw)
			b := s.head(int(data0(data)))
			b = s.framing.AppendMessage(b, m)
			b = s.framing.AppendMessage(b, next)
			b = s.framing.AppendControl(b, c)
			got, retry := parseSSE(string(b))
			wantAll := []sseEvent{want, {"next", "next", "e1-8"}, errorEvent}
			if !raw {
				wantAll = []sseEvent{
					{"message", string(wire.AppendEnvelope(nil, m)), "e1-7"},
					{"message", string(wire.AppendEnvelope(nil, next)), "e1-8"},
					errorEvent,
				}
			}
			if !reflect.DeepEqual(got, wantAll) || retry != "2000" {
				t.Errorf("raw %v: got %q, retry %s, want %q", raw, got, retry, wantAll)
			}
		}
	})
}

// data0 takes a padding from what is there.
func data0(data []byte) byte {
	if len(data) == 0 {
		return 0
	}
	return data[0]
}
