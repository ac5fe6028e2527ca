package comet

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// jsonpCallback is the name that the client gives, since one must be given.
const jsonpCallback = "_"

// expression returns the JSON of a script's argument: itself, or as it is given
// to JSON.parse where a name in it has a meaning of its own in scripts.
func expression(b []byte) []byte {
	inner, ok := bytes.CutPrefix(b, []byte("JSON.parse("))
	inner, whole := bytes.CutSuffix(inner, []byte(")"))
	var s string
	if !ok || !whole || json.Unmarshal(inner, &s) != nil {
		return b
	}
	return []byte(s)
}

// jsonpParser parses a poll's answer wrapped as /**/callback(…);
type jsonpParser struct{ pollParser }

func (p *jsonpParser) end() ([]frame, error) {
	body, ok := bytes.CutPrefix(p.buf, []byte("/**/"+jsonpCallback+"("))
	body, whole := bytes.CutSuffix(bytes.TrimRight(body, "\r\n"), []byte(");"))
	if !ok || !whole {
		return nil, fmt.Errorf("comet: %.80q is not a whole call of the callback", p.buf)
	}
	body = expression(body)
	var e struct{ Control Control }
	if json.Unmarshal(body, &e) == nil && e.Control != "" {
		return appendDecoded(nil, body)
	}
	return parsePage(body)
}
