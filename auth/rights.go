package auth

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
)

// Rights are what a token's claim and a webhook's answer say of what a client
// may do. In JSON:
//
//	{"subscribe": ["chat/**"], "publish": ["chat/7"], "admin": false,
//	 "limits": {"connections": 10, "publishRate": 5, "publishBurst": 20}}
//
// Each member may be left out, and means nothing then: no right, and no limit
// of the client's own. Unknown members are refused, as a misspelt limit would
// be none; so are names that come twice.
type Rights struct {
	// Subscribe and Publish are names and patterns of channels, at most 1,000
	// each.
	Subscribe []string `json:"subscribe,omitempty"`
	Publish   []string `json:"publish,omitempty"`
	Admin     bool     `json:"admin,omitempty"`
	Limits    Limits   `json:"limits,omitzero"`
}

// Limits are halley.Limits in JSON.
type Limits struct {
	Connections  int     `json:"connections,omitempty"`
	PublishRate  float64 `json:"publishRate,omitempty"`
	PublishBurst int     `json:"publishBurst,omitempty"`
}

const (
	// maxPatterns is the length of a list of rights at most.
	maxPatterns = 1000
	// maxLimit is the highest of any number in Limits.
	maxLimit = 1 << 30
	// maxName is the length of a user's name or a token's id at most, in bytes.
	maxName = 255
)

// UnmarshalJSON refuses what it does not know, and what Check finds.
func (r *Rights) UnmarshalJSON(b []byte) error {
	m, err := members(b)
	if err != nil {
		return err
	}
	*r = Rights{}
	if err := r.take(m); err != nil {
		return err
	}
	return noneLeft(m)
}

// take removes the members that are rights from m, and checks them.
func (r *Rights) take(m map[string]json.RawMessage) error {
	if err := cmp.Or(
		take(m, "subscribe", "a list of strings", &r.Subscribe),
		take(m, "publish", "a list of strings", &r.Publish),
		take(m, "admin", "true or false", &r.Admin),
	); err != nil {
		return err
	}
	if raw, ok := m["limits"]; ok {
		delete(m, "limits")
		if err := json.Unmarshal(raw, &r.Limits); err != nil {
			return fmt.Errorf("limits: %w", err)
		}
	}
	return r.Check()
}

// UnmarshalJSON refuses what it does not know.
func (l *Limits) UnmarshalJSON(b []byte) error {
	m, err := members(b)
	if err != nil {
		return err
	}
	*l = Limits{}
	if err := cmp.Or(
		take(m, "connections", "a whole number", &l.Connections),
		take(m, "publishRate", "a number", &l.PublishRate),
		take(m, "publishBurst", "a whole number", &l.PublishBurst),
	); err != nil {
		return err
	}
	return noneLeft(m)
}

// Check reports what is wrong with the rights: a pattern by engine.CheckPattern,
// lists that are too long, limits out of range.
func (r *Rights) Check() error {
	for _, l := range []struct {
		name     string
		patterns []string
	}{{"subscribe", r.Subscribe}, {"publish", r.Publish}} {
		if len(l.patterns) > maxPatterns {
			return fmt.Errorf("%s: %d patterns, at most %d", l.name, len(l.patterns), maxPatterns)
		}
		for i, p := range l.patterns {
			if err := engine.CheckPattern(p); err != nil {
				return fmt.Errorf("%s[%d]: %w", l.name, i, err)
			}
		}
	}
	for _, l := range []struct {
		name  string
		value float64
	}{
		{"connections", float64(r.Limits.Connections)},
		{"publishRate", r.Limits.PublishRate},
		{"publishBurst", float64(r.Limits.PublishBurst)},
	} {
		if !(math.Abs(l.value) <= maxLimit) { // nor NaN
			return fmt.Errorf("limits: %s: %v, at most %d", l.name, l.value, maxLimit)
		}
	}
	return nil
}

// grant returns what a client with these rights may do.
func (r *Rights) grant() *halley.Grant {
	return &halley.Grant{Subscribe: r.Subscribe, Publish: r.Publish, Admin: r.Admin, Limits: halley.Limits(r.Limits)}
}

// checkGrant reports what is wrong with a grant that a program has made.
func checkGrant(g *halley.Grant) error {
	if g == nil {
		return nil
	}
	r := Rights{Subscribe: g.Subscribe, Publish: g.Publish, Admin: g.Admin, Limits: Limits(g.Limits)}
	if err := r.Check(); err != nil {
		return err
	}
	return cmp.Or(checkName("User", g.User), checkName("ID", g.ID))
}

// checkName reports what is wrong with a user's name or a token's id. Both are
// parts of keys, so no two may look or be stored alike: no control characters,
// and none that stand for a byte which could not be read.
func checkName(what, name string) error {
	if len(name) > maxName {
		return fmt.Errorf("%s: %d bytes, at most %d", what, len(name), maxName)
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, func(c rune) bool {
		return c < ' ' || c >= 0x7f && c < 0xa0 || c == utf8.RuneError
	}) {
		return fmt.Errorf("%s: %q has characters that are not allowed", what, name)
	}
	return nil
}

// members parses a JSON object. Names are taken to the letter and come once,
// where encoding/json would take "Exp" for "exp", and the last of two. What is
// null is left out.
func members(b []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("want a JSON object")
	}
	seen := make(map[string]bool)
	m := make(map[string]json.RawMessage)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		name, _ := t.(string) // an object's names are nothing else
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, notJSON(err)
		}
		if seen[name] {
			return nil, fmt.Errorf("%.64q is there twice", name)
		}
		seen[name] = true
		if string(value) != "null" {
			m[name] = value
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, notJSON(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not valid JSON: more than one value")
	}
	return m, nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("not valid JSON: %w", err)
}

// take removes a member from m and decodes it.
func take[T any](m map[string]json.RawMessage, name, want string, to *T) error {
	raw, ok := m[name]
	if !ok {
		return nil
	}
	delete(m, name)
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("%s: want %s", name, want)
	}
	return nil
}

// takeTime removes a member from m and reads it as a NumericDate (RFC 7519, 2):
// seconds since 1970, which may have a fraction. Those beyond the year 9999,
// where the arithmetic of others ends too, are refused.
func takeTime(m map[string]json.RawMessage, name string, to *time.Time) error {
	const want, last = "a time in seconds since 1970, before the year 10000", 253402300799
	var seconds float64
	if _, ok := m[name]; !ok {
		return nil
	}
	if err := take(m, name, want, &seconds); err != nil {
		return err
	}
	if seconds < 0 || seconds > last {
		return fmt.Errorf("%s: want %s", name, want)
	}
	*to = time.Unix(int64(seconds), 0)
	return nil
}

// noneLeft reports members that nobody took.
func noneLeft(m map[string]json.RawMessage) error {
	if len(m) == 0 {
		return nil
	}
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	return fmt.Errorf("%.64q is not known here", slices.Min(names))
}
