package wire

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

// An object's members are what a decoder that knows nothing of structs finds,
// the last of each name, and nothing else is an object.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{}`, ` {"a":1,"A":[2],"a":{"b":null}} `, `[]`, `null`, `"a"`, `{"a":1}x`, `{"a":1}{"b":2}`, `{"\u0061":1}`, `{"a":01}`, "{\"a\":\"\xff\"}", "\ufeff{}", `{"":""}`, `{"a":1,}`, "{\"a\"\n:\t1}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Members(b)
		object := utf8.Valid(b) && json.Valid(b) && bytes.TrimLeft(b, " \t\r\n")[0] == '{'
		if object != (err == nil) {
			t.Fatalf("%q: %v", b, err)
		}
		if err != nil {
			return
		}
		d := json.NewDecoder(bytes.NewReader(b))
		if _, err := d.Token(); err != nil {
			t.Fatal(err)
		}
		want := map[string]json.RawMessage{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				t.Fatal(err)
			}
			want[name.(string)] = value
		}
		if len(got) != len(want) {
			t.Errorf("%q: got %q, want %q", b, got, want)
		}
		for name, value := range want {
			if !bytes.Equal(got[name], value) {
				t.Errorf("%q: got %s %q, want %q", b, name, got[name], value)
			}
		}
	})
}
