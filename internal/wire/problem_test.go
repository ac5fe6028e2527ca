package wire

import (
	"fmt"
	"testing"

	"github.com/halley-comet/halley/engine"
)

// What a client is told has no names of our packages in it.
func TestDetail(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{engine.CheckChannel("a//b"), `channel "a//b": empty segment`},
		{fmt.Errorf("halley: publish: %w", engine.ErrUnavailable), "unavailable"},
		{fmt.Errorf("halley: publish: %w", engine.CheckChannel("")), `channel "": empty`},
	} {
		if got := Detail(c.err); got != c.want {
			t.Errorf("Detail(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}

// Each code has a status and a title, and only some may succeed later.
func TestProblems(t *testing.T) {
	for code, kind := range kinds {
		p := NewProblem(code, "")
		if p.Status < 400 || p.Title == "" || p.Error() != p.Title {
			t.Errorf("%s: %+v", code, p)
		}
		if p.Temporary() != (kind.status == 503 || kind.status == 429) {
			t.Errorf("%s with status %d: Temporary is %v", code, p.Status, p.Temporary())
		}
	}
	if got := NewProblem(NotFound, "x").Error(); got != "There is nothing at this path: x" {
		t.Errorf("Error: %s", got)
	}
}
