package transport

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"github.com/halley-comet/halley/internal/wire"
)

// A frame has one command, and its ref is what the client will know it by: or
// it is refused under its ref.
func FuzzCommand(f *testing.F) {
	for _, frame := range []string{
		`{"subscribe":["a","b/**"],"ref":1}`, `{"unsubscribe":[],"ref":"x"}`, `{"publish":{"channel":"a","data":1},"ref":-1.5e3}`, `{"publish":null}`,
		`{"subscribe":["a"],"publish":{}}`, `{"subscribe":null}`, `{"subscribe":[1]}`, `{"subscribe":[null]}`, `{"Subscribe":["a"]}`, `{"ref":{}}`, `{"ref":null,"subscribe":["a"]}`,
		`{"ref":true,"subscribe":["a"]}`, `{}`, `[]`, ``, `{"subscribe":["a"],"subscribe":["b"]}`, "{\"subscribe\":[\"\xff\"]}", ` {"publish":"no"} `, `{"ref":"\ud800","unsubscribe":["\u0000"]}`,
	} {
		f.Add([]byte(frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		cmd, p := parseCommand(frame)
		if cmd.Ref != nil {
			var ref any
			if err := json.Unmarshal(cmd.Ref, &ref); err != nil || len(cmd.Ref) > maxRef || !utf8.Valid(cmd.Ref) {
				t.Errorf("%q: ref %q, %v", frame, cmd.Ref, err)
			}
			switch ref.(type) {
			case string, float64:
			default:
				t.Errorf("%q: ref %q", frame, cmd.Ref)
			}
		}
		if p != nil {
			if p.Code != wire.InvalidFrame || p.Detail == "" {
				t.Errorf("%q: got %+v", frame, p)
			}
			return
		}
		if !json.Valid(frame) || !utf8.Valid(frame) {
			t.Errorf("%q is taken for JSON", frame)
		}
		n := 0
		members := map[string]any{}
		if cmd.Subscribe != nil {
			n++
			members["subscribe"] = *cmd.Subscribe
		}
		if cmd.Unsubscribe != nil {
			n++
			members["unsubscribe"] = *cmd.Unsubscribe
		}
		if cmd.Publish != nil {
			n++
			members["publish"] = cmd.Publish
		}
		if n != 1 {
			t.Fatalf("%q: %d commands", frame, n)
		}
		if cmd.Ref != nil {
			members["ref"] = cmd.Ref
		}
		again, err := json.Marshal(members)
		if err != nil {
			t.Fatalf("%q: %v", frame, err)
		}
		same, p := parseCommand(again)
		// What was escaped may be longer as it is written here.
		if p != nil && len(again) <= len(frame) || p == nil && !reflect.DeepEqual(same.Subscribe, cmd.Subscribe) || p == nil && !reflect.DeepEqual(same.Unsubscribe, cmd.Unsubscribe) {
			t.Errorf("%q becomes %q: %+v, %+v", frame, again, same, p)
		}
	})
}
