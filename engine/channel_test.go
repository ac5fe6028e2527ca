package engine_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/halley-comet/halley/engine"
)

func TestCheckChannel(t *testing.T) {
	long := strings.Repeat("a", engine.MaxChannel)
	valid := []string{
		"a", "chat/room/7", "A", "a/b/c/d/e/f", "...", "a/...", ".a", "a.", "-_.~!$()@:+,=%", "%2F", "a/b",
		"meta", "service", "metadata/x", "a/meta/b", "Meta/x", long,
	}
	patterns := []string{"*", "**", "a/*", "a/**", "a/b/*", "metax/*", long[:engine.MaxChannel-2] + "/*"}
	invalid := []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/..", "./a", "../a", "a/../b", "a b", "a\x00", "a?b", "a#b",
		"a&b", "a;b", "a'b", "a\\b", "a|b", "a<b", "é", "\xff", "meta/connect", "service/x", long + "a",
	}
	wild := []string{
		"a*", "*a", "a/*/b", "a/**/b", "*/a", "**/a", "***", "a/***", "a/b*", "a/*b", "/*", "/**", "a//*", "./*", "a/../*",
		"meta/*", "meta/**", "service/*", "service/a/**", "*/*", "*/**", "**/**", long + "/*",
	}
	check := func(what string, f func(string) error, ok bool, names []string) {
		t.Helper()
		for _, s := range names {
			err := f(s)
			if (err == nil) != ok || err != nil && !errors.Is(err, engine.ErrInvalid) {
				t.Errorf("%s(%.30q) = %v, want ok %v", what, s, err, ok)
			}
		}
	}
	check("CheckChannel", engine.CheckChannel, true, valid)
	check("CheckChannel", engine.CheckChannel, false, slices.Concat(patterns, invalid, wild))
	check("CheckPattern", engine.CheckPattern, true, slices.Concat(valid, patterns))
	check("CheckPattern", engine.CheckPattern, false, slices.Concat(invalid, wild))
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern  string
		channels string // those of all that match
	}{
		{"a", "a"},
		{"a/b", "a/b"},
		{"*", "a b ab"},
		{"**", "a b ab a/b a/c a/b/c a/b/c/d ab/c"},
		{"a/*", "a/b a/c"},
		{"a/**", "a/b a/c a/b/c a/b/c/d"},
		{"a/b/*", "a/b/c"},
		{"a/b/**", "a/b/c a/b/c/d"},
		{"ab/*", "ab/c"},
		{"c/*", ""},
	} {
		var got []string
		for _, c := range []string{"a", "b", "ab", "a/b", "a/c", "a/b/c", "a/b/c/d", "ab/c"} {
			if engine.Match(tt.pattern, c) {
				got = append(got, c)
			}
		}
		if s := strings.Join(got, " "); s != tt.channels {
			t.Errorf("%s matches %q, want %q", tt.pattern, s, tt.channels)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		right    string
		patterns string // those of all that it covers
	}{
		{"a", "a"},
		{"a/b", "a/b"},
		{"*", "* a ab"},
		{"**", "* ** a ab a/* a/** a/b a/b/* a/b/** a/b/c ab/*"},
		{"a/*", "a/* a/b"},
		{"a/**", "a/* a/** a/b a/b/* a/b/** a/b/c"},
		{"a/b/*", "a/b/* a/b/c"},
		{"a/b/**", "a/b/* a/b/** a/b/c"},
		{"c/**", ""},
		{"A/**", ""},
		{"/*", ""},
		{"/**", ""},
	} {
		var got []string
		for _, p := range strings.Fields("* ** a ab a/* a/** a/b a/b/* a/b/** a/b/c ab/*") {
			if engine.Covers(tt.right, p) {
				got = append(got, p)
			}
		}
		if s := strings.Join(got, " "); s != tt.patterns {
			t.Errorf("%s covers %q, want %q", tt.right, s, tt.patterns)
		}
	}
}

// What covers a pattern matches every channel that the pattern matches, and
// what does not leaves one out. The channels are all of up to four segments, one
// more than patterns have, of one letter more.
func TestCoversIsMatchOfAll(t *testing.T) {
	patterns := []string{"*", "**"}
	names := words("ab", 3)
	for _, n := range names {
		patterns = append(patterns, n)
		if strings.Count(n, "/") < 2 {
			patterns = append(patterns, n+"/*", n+"/**")
		}
	}
	channels := words("abc", 4)
	for _, right := range patterns {
		for _, pattern := range patterns {
			want := true
			for _, c := range channels {
				if engine.Match(pattern, c) && !engine.Match(right, c) {
					want = false
					break
				}
			}
			if got := engine.Covers(right, pattern); got != want {
				t.Errorf("Covers(%q, %q) = %v, want %v", right, pattern, got, want)
			}
		}
	}
}

// words returns all names of up to n segments, each a letter of those given.
func words(letters string, n int) []string {
	var all, last []string
	for i := range n {
		var next []string
		for _, l := range letters {
			if i == 0 {
				next = append(next, string(l))
			}
			for _, w := range last {
				next = append(next, w+"/"+string(l))
			}
		}
		last = next
		all = append(all, next...)
	}
	return all
}

func TestPatterns(t *testing.T) {
	for channel, want := range map[string]string{
		"a":       `"" 1, "" 2`,
		"a/b":     `"a" 1, "a" 2, "" 2`,
		"a/b/c/d": `"a/b/c" 1, "a/b/c" 2, "a/b" 2, "a" 2, "" 2`,
	} {
		var got []string
		for prefix, kind := range engine.Patterns(channel) {
			got = append(got, fmt.Sprintf("%q %d", prefix, kind))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("Patterns(%q) = %s, want %s", channel, s, want)
		}
		// A loop may end at any of them.
		for n := range got {
			for range engine.Patterns(channel) {
				if n--; n < 0 {
					break
				}
			}
		}
		if n := testing.AllocsPerRun(100, func() {
			for range engine.Patterns(channel) {
			}
		}); n > 0 {
			t.Errorf("Patterns(%q) allocates %v times", channel, n)
		}
	}
}

// FuzzChannel wants the three ways to say which patterns match a channel to
// agree: Match, Patterns, and the sentence in CheckPattern's comment.
func FuzzChannel(f *testing.F) {
	for _, p := range []string{"a/b", "*", "**", "a/*", "a/**", "a/b/*", "a*", "a//b", "meta/*", "", "/*"} {
		for _, c := range []string{"a", "a/b", "a/b/c", "ab/c", "a/", "*"} {
			f.Add(p, c)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, channel string) {
		if engine.CheckChannel(channel) == nil {
			if err := engine.CheckPattern(channel); err != nil {
				t.Errorf("channel %q is no pattern: %v", channel, err)
			}
			if !engine.Match(channel, channel) || !engine.Match("**", channel) {
				t.Errorf("%q does not match itself and **", channel)
			}
		}
		if engine.CheckPattern(pattern) != nil {
			return
		}
		prefix, kind := engine.SplitPattern(pattern)
		if joined := join(prefix, kind); joined != pattern {
			t.Errorf("SplitPattern(%q) = %q, %d, which is %q", pattern, prefix, kind, joined)
		}
		if (kind == engine.Exact) != (engine.CheckChannel(pattern) == nil) {
			t.Errorf("%q has kind %d, CheckChannel says %v", pattern, kind, engine.CheckChannel(pattern))
		}
		if engine.CheckChannel(channel) != nil {
			return
		}
		matches := engine.Match(pattern, channel)
		listed := pattern == channel
		for p, k := range engine.Patterns(channel) {
			listed = listed || p == prefix && k == kind
			if q := join(p, k); len(q) <= engine.MaxChannel && engine.CheckPattern(q) != nil || !engine.Match(q, channel) {
				t.Errorf("Patterns(%q) has %q, which is invalid or does not match", channel, q)
			}
		}
		said := matchSegments(pattern, channel)
		if matches != listed || matches != said {
			t.Errorf("%q and %q: Match %v, in Patterns %v, by segments %v", pattern, channel, matches, listed, said)
		}
	})
}

func join(prefix string, kind engine.PatternKind) string {
	last := [...]string{"", "*", "**"}[kind]
	if prefix == "" || last == "" {
		return prefix + last
	}
	return prefix + "/" + last
}

// matchSegments is Match as its definition reads.
func matchSegments(pattern, channel string) bool {
	p, c := strings.Split(pattern, "/"), strings.Split(channel, "/")
	n := len(p) - 1
	switch p[n] {
	case "*":
		return len(c) == n+1 && slices.Equal(p[:n], c[:n])
	case "**":
		return len(c) > n && slices.Equal(p[:n], c[:n])
	}
	return slices.Equal(p, c)
}
