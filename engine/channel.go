package engine

import (
	"fmt"
	"iter"
	"strings"
)

// MaxChannel is the length of a channel name or pattern at most, in bytes.
const MaxChannel = 255

// CheckChannel reports what is wrong with a channel name. The error wraps
// ErrInvalid.
func CheckChannel(name string) error { return check(name, "channel") }

// CheckPattern reports what is wrong with s as a channel name or a pattern: a
// name whose last segment may be "*", for exactly one segment, or "**", for
// one or more. The error wraps ErrInvalid.
func CheckPattern(s string) error {
	prefix, kind := SplitPattern(s)
	if kind == Exact {
		return check(s, "channel")
	}
	if len(s) > MaxChannel {
		return fmt.Errorf("%w: pattern of %d bytes, at most %d", ErrInvalid, len(s), MaxChannel)
	}
	if prefix == "" && (s == "*" || s == "**") {
		return nil
	}
	if reserved(s) {
		return fmt.Errorf("%w: pattern %q: meta/ and service/ are reserved", ErrInvalid, s)
	}
	return checkSegments(prefix, s, "pattern")
}

func check(name, what string) error {
	if len(name) > MaxChannel {
		return fmt.Errorf("%w: %s of %d bytes, at most %d", ErrInvalid, what, len(name), MaxChannel)
	}
	if reserved(name) {
		return fmt.Errorf("%w: %s %q: meta/ and service/ are reserved", ErrInvalid, what, name)
	}
	return checkSegments(name, name, what)
}

func reserved(s string) bool {
	return strings.HasPrefix(s, "meta/") || strings.HasPrefix(s, "service/")
}

func checkSegments(s, whole, what string) error {
	if s == "" {
		return fmt.Errorf("%w: %s %q: empty", ErrInvalid, what, whole)
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '/' {
			if s[i] == '*' {
				return fmt.Errorf("%w: %s %q: a wildcard must be a whole last segment, and only of a pattern", ErrInvalid, what, whole)
			}
			if !channelByte[s[i]] {
				return fmt.Errorf("%w: %s %q: byte %q is not allowed", ErrInvalid, what, whole, s[i])
			}
			continue
		}
		switch s[start:i] {
		case "":
			return fmt.Errorf("%w: %s %q: empty segment", ErrInvalid, what, whole)
		case ".", "..":
			return fmt.Errorf("%w: %s %q: segment %q", ErrInvalid, what, whole, s[start:i])
		}
		start = i + 1
	}
	return nil
}

var channelByte = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "-_.~!$()@:+,=%" {
		t[c] = true
	}
	return t
}()

// A PatternKind tells a pattern's last segment.
type PatternKind uint8

// The kinds of patterns.
const (
	Exact PatternKind = iota // no wildcard: a channel's name
	One                      // ends in "*": exactly one more segment
	Below                    // ends in "**": one or more segments
)

// SplitPattern returns a pattern's part before the last "/" and its kind:
// "a/b/*" is "a/b" and One, "**" is "" and Below. For a name it returns the
// name and Exact.
func SplitPattern(s string) (prefix string, kind PatternKind) {
	switch {
	case s == "*":
		return "", One
	case s == "**":
		return "", Below
	case len(s) > 2 && strings.HasSuffix(s, "/*"): // "/*" is no pattern, and no right to "*"
		return s[:len(s)-2], One
	case len(s) > 3 && strings.HasSuffix(s, "/**"):
		return s[:len(s)-3], Below
	}
	return s, Exact
}

// Patterns yields the prefix and kind, as SplitPattern returns them, of every
// pattern that matches the channel: one of kind One and, for each segment, one
// of kind Below. It allocates nothing, as the prefixes are parts of channel.
func Patterns(channel string) iter.Seq2[string, PatternKind] {
	return func(yield func(string, PatternKind) bool) {
		end := strings.LastIndexByte(channel, '/')
		if !yield(channel[:max(end, 0)], One) {
			return
		}
		for ; end >= 0; end = strings.LastIndexByte(channel[:end], '/') {
			if !yield(channel[:end], Below) {
				return
			}
		}
		yield("", Below)
	}
}

// Match tells whether a name or pattern matches the channel.
func Match(pattern, channel string) bool {
	prefix, kind := SplitPattern(pattern)
	if kind == Exact {
		return pattern == channel
	}
	rest := channel
	if prefix != "" {
		if len(channel) <= len(prefix)+1 || channel[len(prefix)] != '/' || channel[:len(prefix)] != prefix {
			return false
		}
		rest = channel[len(prefix)+1:]
	}
	return kind == Below || strings.IndexByte(rest, '/') < 0
}

// Covers tells whether a right to the first name or pattern is one to all that
// the second matches: "a/**" covers "a/b", "a/*" and "a/b/**", but neither "a"
// nor "**". Both must be valid by CheckPattern.
func Covers(right, pattern string) bool {
	_, has := SplitPattern(right)
	_, wants := SplitPattern(pattern)
	if wants == Below && has != Below {
		return false
	}
	// "*" stands for any one segment, and "**" for any under the same prefix:
	// what matches them as they are written matches all they stand for.
	return Match(right, pattern)
}
