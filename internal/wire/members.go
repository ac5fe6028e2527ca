package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Members parses a JSON object of a client's. Names are taken to the letter,
// where encoding/json would take "Channel" for "channel".
func Members(b []byte) (map[string]json.RawMessage, error) {
	if t := bytes.TrimLeft(b, " \t\r\n"); len(t) == 0 || t[0] != '{' {
		return nil, errors.New("want a JSON object")
	}
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, fmt.Errorf("not valid JSON: %v", err)
	}
	return members, nil
}
