package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

var channelCases = []testCase{
	{"channels/names", "2.1", "1–255 bytes; segments of ASCII letters, digits and -_.~!$()@:+,=%, case-sensitive; no empty segment, no . or .., no leading or trailing /", channelNames},
	{"channels/decoded-once", "2.2", "taken literally after one URL decoding", channelDecodedOnce},
	{"channels/reserved", "2.4", "meta/… and service/… are reserved for front ends", channelReserved},
	{"channels/patterns", "2.6", "Patterns: a last segment * or **; alone they are valid; a* and a/*/b are 400", channelPatterns},
	{"channels/matching", "2.5", "* (exactly one segment) or ** (one or more); a/** does not match a", channelMatching},
	{"channels/one-copy", "2.7", "A message that matches several of a subscription's channels comes once, with its real channel name", channelOneCopy},
	{"channels/patterns-not-published", "2.5", "Patterns (subscribing, history and rights only)", channelPatternsNotPublished},
}

// badNames can be neither names nor patterns.
var badNames = []string{"", "/", "/a", "a/", "a//b", ".", "..", "./a", "a/.", "a/./b", "a/../b", "a/..",
	"a b", "a\tb", "a\nb", "a\r\nb", "a\x00b", "a\x7fb", "é", "a\xffb", "a\u2028b",
	`a"b`, "a#b", "a&b", "a'b", "a;b", "a<b", "a>b", "a?b", "a[b", `a\b`, "a]b", "a^b", "a`b", "a{b", "a|b", "a}b",
	strings.Repeat("a", 256), "a/" + strings.Repeat("b", 254)}

// badPatterns have a wildcard where none may be.
var badPatterns = []string{"a*", "*a", "a/b*", "a/*/b", "*/b", "**/b", "a/**/b", "***", "a/***", "/*", "a//*", "a/./*", "*/", "a/*/", "a/*/*"}

func channelNames(t tb, s *server) {
	prefix := s.channel()
	long := prefix + "/" + strings.Repeat("x", 255-len(prefix)-1)
	good := []string{prefix, prefix + "/0", prefix + "/-_.~!$()@:+,=%", prefix + "/...", prefix + "/.a", prefix + "/a.", prefix + "/-",
		prefix + "/%2F", prefix + "/%", prefix + "/" + strings.Repeat("s/", 50) + "s", long, prefix + "/metax/a", prefix + "/meta/a"}
	for _, name := range good {
		p := &publication{channel: name, contentType: "text/plain", data: "x"}
		s.publish(t, p)
		isAll(t, name, s.history(t, "channel", name).messages, []*publication{p})
	}
	upper := &publication{channel: prefix + "/Case", contentType: "text/plain", data: "upper"}
	s.publish(t, upper)
	if p := s.history(t, "channel", prefix+"/case"); len(p.messages) > 0 {
		t.Errorf("names differ in case, but are one channel: got %v", p.messages)
	}
	for _, name := range badNames {
		problem(t, s.do(t, "POST", "/publish?"+query("channel", name), "x", "Content-Type", "text/plain"), http.StatusBadRequest)
		problem(t, s.get(t, "/history?"+query("channel", name)), http.StatusBadRequest)
		problem(t, s.get(t, "/subscribe?"+query("channel", name, "timeout", "0")), http.StatusBadRequest)
		line, _ := json.Marshal(map[string]string{"channel": name, "data": "x"})
		problem(t, s.do(t, "POST", "/publish", string(line), "Content-Type", "application/x-ndjson"), http.StatusBadRequest)
	}
	// One bad name among good ones.
	problem(t, s.get(t, "/subscribe?"+query("channel", prefix, "channel", "a//b", "timeout", "0")), http.StatusBadRequest)
	problem(t, s.do(t, "POST", "/publish?"+query("channel", prefix, "channel", "a//b"), "twice", "Content-Type", "text/plain"), http.StatusBadRequest)
	if p := s.history(t, "channel", prefix); len(p.messages) != 1 {
		t.Errorf("a publish with a bad name was stored in the good one: %v", p.messages)
	}
}

func channelDecodedOnce(t tb, s *server) {
	prefix := s.channel()
	for raw, name := range map[string]string{
		"%61":     "a",
		"%2541":   "%41",
		"%252F":   "%2F",
		"%25":     "%",
		"a%2Fb":   "a/b",
		"a/b/c":   "a/b/c",
		"%2Bplus": "+plus",
	} {
		path := "channel=" + url.QueryEscape(prefix) + "%2f" + raw
		id := s.published(t, s.do(t, "POST", "/publish?"+path, "x", "Content-Type", "text/plain"))
		want := []*publication{{channel: prefix + "/" + name, contentType: "text/plain", data: "x", id: id}}
		p := s.get(t, "/history?"+path+"&limit=1000").page(t)
		isAll(t, raw, p.messages, want)
		p = s.get(t, "/subscribe?"+path+"&cursor=earliest&timeout=0").page(t)
		isAll(t, raw, p.messages, want)
	}
}

func channelReserved(t tb, s *server) {
	for _, name := range []string{"meta/handshake", "meta/x/y", "service/x"} {
		problem(t, s.do(t, "POST", "/publish?"+query("channel", name), "x", "Content-Type", "text/plain"), 0)
		problem(t, s.get(t, "/subscribe?"+query("channel", name, "timeout", "0")), 0)
		problem(t, s.get(t, "/history?"+query("channel", name)), 0)
	}
	for _, name := range []string{"meta/*", "meta/**", "service/*"} {
		problem(t, s.get(t, "/subscribe?"+query("channel", name, "timeout", "0")), 0)
	}
}

func channelPatterns(t tb, s *server) {
	prefix := s.channel()
	for _, pattern := range []string{"*", "**", prefix + "/*", prefix + "/**", prefix + "/a/b/**"} {
		if r := s.get(t, "/subscribe?"+query("channel", pattern, "timeout", "0", "cursor", "now")); r.status != http.StatusOK {
			t.Errorf("got %s, want 200", r)
		}
		if r := s.get(t, "/history?"+query("channel", pattern, "limit", "1")); r.status != http.StatusOK {
			t.Errorf("got %s, want 200", r)
		}
	}
	for _, pattern := range badPatterns {
		problem(t, s.get(t, "/subscribe?"+query("channel", pattern, "timeout", "0")), http.StatusBadRequest)
		problem(t, s.get(t, "/history?"+query("channel", pattern)), http.StatusBadRequest)
	}
}

func channelPatternsNotPublished(t tb, s *server) {
	prefix := s.channel()
	for _, pattern := range append([]string{"*", "**", prefix + "/*", prefix + "/**"}, badPatterns...) {
		problem(t, s.do(t, "POST", "/publish?"+query("channel", pattern), "x", "Content-Type", "text/plain"), http.StatusBadRequest)
	}
}

func channelMatching(t tb, s *server) {
	for _, c := range []struct {
		pattern string
		want    []string
	}{
		{"", []string{""}},
		{"/*", []string{"/b", "/c"}},
		{"/**", []string{"/b", "/b/c", "/b/c/d", "/c"}},
		{"/b/*", []string{"/b/c"}},
		{"/b/**", []string{"/b/c", "/b/c/d"}},
		{"/b/c/d/**", nil},
	} {
		a := s.channel()
		q := subscription{channels: []string{a + c.pattern, a + "/the/last/of/all"}, cursor: "now"}
		// Open before there is anything: a stream decides in another way than a
		// read of the past.
		live := s.open(t, kindXHRStreaming, q)
		live.next()
		var want []*publication
		for _, name := range []string{"", "/b", "/b/c", "/b/c/d", "/c", "x/b", "/the/last/of/all"} {
			p := s.text(t, a+name, name)[0]
			if slices.Contains(c.want, name) || name == "/the/last/of/all" {
				want = append(want, p)
			}
		}
		var got []event
		for len(got) < len(want) && (len(got) == 0 || got[len(got)-1].id != want[len(want)-1].id) {
			got = append(got, live.nextMessage())
		}
		isAll(t, "stream of a"+c.pattern, got, want)
		q.cursor, q.extra = "earliest", []string{"timeout", "0"}
		isAll(t, "poll of a"+c.pattern, s.pollOnce(t, kindLongPolling, q).messages, want)
		isAll(t, "history of a"+c.pattern, s.history(t, "channel", q.channels[0], "channel", q.channels[1]).messages, want)
	}
}

func channelOneCopy(t tb, s *server) {
	a := s.channel()
	q := subscription{channels: []string{a + "/b/c", a + "/b/c", a + "/b/*", a + "/**", a + "/b/**"}}
	want := s.text(t, a+"/b/c", "one")
	want = append(want, s.text(t, a+"/d", "two")...)
	want = append(want, s.text(t, a+"/b/c", "three")...)
	q.cursor = "earliest"
	for _, k := range kinds {
		isAll(t, k.name, s.receive(t, k, 3, q).messages, want)
	}
	isAll(t, "history", s.history(t, "channel", a+"/b/c", "channel", a+"/b/*", "channel", a+"/**").messages, want)
	for _, k := range streams {
		live := q
		live.cursor = "now"
		st := s.open(t, k, live)
		st.next()
		more := s.text(t, a+"/b/c", "live", "last")
		isAll(t, k.name+", live", []event{st.nextMessage(), st.nextMessage()}, more)
	}
}
