package engine_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/halley-comet/halley/engine"
)

func TestParseCursor(t *testing.T) {
	for _, tt := range []struct {
		s    string
		want engine.Cursor
	}{
		{"a-0", engine.Cursor{Epoch: "a"}},
		{"0-1", engine.Cursor{Epoch: "0", Seq: 1}},
		{"0123456789abcdez-9223372036854775807", engine.Cursor{Epoch: "0123456789abcdez", Seq: engine.MaxSeq}},
	} {
		got, err := engine.ParseCursor(tt.s)
		if err != nil || got != tt.want {
			t.Errorf("ParseCursor(%q) = %+v, %v, want %+v", tt.s, got, err, tt.want)
		}
		if s := got.String(); s != tt.s {
			t.Errorf("%+v is %q, want %q", got, s, tt.s)
		}
	}
	for _, s := range []string{
		"", "-", "a", "a-", "-1", "a1", "A-1", "é-1", "a b-1", " a-1", "a-1 ", "a-+1", "a--1", "a-01", "a-00",
		"a-1-2", "a-0x1", "a-1e3", "a-1_0", "a-١", "a-9223372036854775808", "a-18446744073709551616",
		strings.Repeat("a", 17) + "-1", "earliest", "now", "a-1\x00", "a_-1",
	} {
		if got, err := engine.ParseCursor(s); err == nil {
			t.Errorf("ParseCursor(%q) = %+v, want an error", s, got)
		}
	}
	if _, err := engine.ParseCursor(strings.Repeat("x", 1<<20)); err == nil || len(err.Error()) > 200 {
		t.Error("a long cursor is quoted whole")
	}
}

func TestCursorText(t *testing.T) {
	type doc struct {
		ID engine.Cursor `json:"id"`
	}
	for _, tt := range []struct {
		json string
		want engine.Cursor
	}{
		{`{"id":"ab-12"}`, engine.Cursor{Epoch: "ab", Seq: 12}},
		{`{"id":""}`, engine.Cursor{}},
	} {
		d := doc{engine.Cursor{Epoch: "old", Seq: 1}}
		if err := json.Unmarshal([]byte(tt.json), &d); err != nil || d.ID != tt.want {
			t.Errorf("%s: got %+v, %v, want %+v", tt.json, d.ID, err, tt.want)
		}
		if b, err := json.Marshal(d); err != nil || string(b) != tt.json {
			t.Errorf("%+v: got %s, %v, want %s", d.ID, b, err, tt.json)
		}
	}
	d := doc{engine.Cursor{Epoch: "old", Seq: 1}}
	if err := json.Unmarshal([]byte(`{"id":"x"}`), &d); err == nil || d.ID.Seq != 1 {
		t.Errorf("a malformed cursor: got %+v, %v, want an error and no change", d.ID, err)
	}
	if !(engine.Cursor{}).IsZero() || (engine.Cursor{Epoch: "a"}).IsZero() || (engine.Cursor{Seq: 1}).IsZero() {
		t.Error("IsZero is wrong")
	}
	r := engine.Receipt{First: engine.Cursor{Epoch: "a", Seq: 7}, Count: 3}
	if got, want := r.ID(2), (engine.Cursor{Epoch: "a", Seq: 9}); got != want {
		t.Errorf("the third of %+v is %v, want %v", r, got, want)
	}
}

// FuzzParseCursor wants what parses to be exactly what is written, and what is
// written to parse.
func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{"a-0", "0123456789abcdez-9223372036854775807", "a-01", "a-+1", "a-1-1", "", "A-1"} {
		f.Add(s, uint64(1))
	}
	f.Add("epoch", uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, s string, seq uint64) {
		if c, err := engine.ParseCursor(s); err == nil {
			if c.String() != s || !engine.ValidEpoch(c.Epoch) || c.Seq > engine.MaxSeq {
				t.Errorf("ParseCursor(%q) = %+v, which is %q", s, c, c.String())
			}
		}
		c := engine.Cursor{Epoch: s, Seq: seq}
		got, err := engine.ParseCursor(c.String())
		if valid := engine.ValidEpoch(s) && seq <= engine.MaxSeq; valid != (err == nil) || valid && got != c {
			t.Errorf("ParseCursor(%q) = %+v, %v", c.String(), got, err)
		}
	})
}
