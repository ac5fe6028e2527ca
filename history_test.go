package halley_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/halley-comet/halley"
)

// A historyPage is an answer of history.
type historyPage struct {
	Cursor   string
	Gap      bool
	More     *bool
	Messages []struct{ ID, Channel, Data string }
}

func history(t testing.TB, hub *halley.Hub, query string) (p historyPage) {
	t.Helper()
	w := call(hub, "GET", "/comet/history?"+query, "")
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 200 || p.More == nil {
		t.Fatalf("history?%s: %d %s", query, w.Code, w.Body)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json; charset=utf-8" {
		t.Errorf("Content-Type %q", ct)
	}
	return p
}

func (p historyPage) data() string {
	var list []string
	for _, m := range p.Messages {
		list = append(list, m.Data)
	}
	return strings.Join(list, " ")
}

// fill publishes 1 to n on the channels a, b/1 and b/2 in turn, with others
// between, and returns the ids of those that are on a or below b.
func fill(t testing.TB, hub *halley.Hub, n int) (ids []halley.Cursor) {
	t.Helper()
	for i := range n {
		publish(t, hub, "other", "x")
		ids = append(ids, publish(t, hub, []string{"a", "b/1", "b/2"}[i%3], strconv.Itoa(i+1))...)
	}
	publish(t, hub, "other", "x")
	return ids
}

// Paging in either direction, in steps of any size, brings every message once.
func TestHistoryPaging(t *testing.T) {
	hub := newHub(t, halley.Options{})
	const n = 13
	fill(t, hub, n)
	var want []string
	for i := range n {
		want = append(want, strconv.Itoa(i+1))
	}
	const channels = "channel=a&channel=b/*&channel=b/**&channel=b/1"
	for limit := 1; limit <= n+1; limit++ {
		var forward, backward []string
		query := fmt.Sprintf("%s&limit=%d", channels, limit)
		for cursor, more := "", true; more; {
			p := history(t, hub, query+"&cursor="+cursor)
			if p.Gap || len(p.Messages) > limit {
				t.Fatalf("forward by %d: %+v", limit, p)
			}
			forward = append(forward, strings.Fields(p.data())...)
			if *p.More && p.Cursor != p.Messages[len(p.Messages)-1].ID {
				t.Errorf("forward by %d: cursor %s after %+v", limit, p.Cursor, p.Messages)
			}
			cursor, more = p.Cursor, *p.More
		}
		for before, more := "now", true; more; {
			p := history(t, hub, query+"&before="+before)
			if p.Gap || len(p.Messages) > limit {
				t.Fatalf("backward by %d: %+v", limit, p)
			}
			backward = append(strings.Fields(p.data()), backward...)
			if len(p.Messages) > 0 && p.Cursor != p.Messages[0].ID {
				t.Errorf("backward by %d: cursor %s with %+v", limit, p.Cursor, p.Messages)
			}
			before, more = p.Cursor, *p.More
		}
		if !slices.Equal(forward, want) || !slices.Equal(backward, want) {
			t.Errorf("by %d: forward %v, backward %v, want %v", limit, forward, backward, want)
		}
	}
}

// The parameters of history, and what comes of them.
func TestHistory(t *testing.T) {
	hub := newHub(t, halley.Options{})
	ids := fill(t, hub, 6)
	id := func(i int) string { return ids[i-1].String() }
	end := hub.End()
	past := halley.Cursor{Epoch: end.Epoch, Seq: end.Seq + 100}.String()
	zero := halley.Cursor{Epoch: end.Epoch}.String()
	for _, c := range []struct {
		query string
		want  string
		more  bool
		gap   bool
	}{
		{"", "1 2 3 4 5 6", false, false},
		{"cursor=earliest", "1 2 3 4 5 6", false, false},
		{"cursor=" + zero, "1 2 3 4 5 6", false, false},
		{"cursor=" + id(2), "3 4 5 6", false, false},
		{"cursor=" + id(2) + "&limit=2", "3 4", true, false},
		{"cursor=" + id(6), "", false, false},
		{"cursor=now", "", false, false},
		{"cursor=zzz-1", "1 2 3 4 5 6", false, true},
		{"cursor=" + past, "1 2 3 4 5 6", false, true},
		{"until=" + id(2), "1 2", false, false},
		{"until=" + id(2) + "&limit=1", "1", true, false},
		{"until=" + id(2) + "&limit=2", "1 2", false, false},
		{"until=" + past, "1 2 3 4 5 6", false, false},
		{"until=now", "1 2 3 4 5 6", false, false},
		{"until=earliest", "", false, false},
		{"until=" + zero, "", false, false},
		{"until=zzz-1", "1 2 3 4 5 6", false, true},
		{"cursor=" + id(2) + "&until=" + id(4), "3 4", false, false},
		{"cursor=" + id(4) + "&until=" + id(2), "", false, false},
		{"before=" + id(3), "1 2", false, false},
		{"before=" + id(3) + "&limit=1", "2", true, false},
		{"before=" + id(1), "", false, false},
		{"before=" + zero, "", false, false},
		{"before=earliest", "", false, false},
		{"before=now&limit=2", "5 6", true, false},
		{"before=" + past + "&limit=2", "5 6", true, false},
		{"before=zzz-1&limit=2", "5 6", true, true},
		{"before=now&cursor=" + id(4), "5 6", false, false},
		{"before=now&cursor=" + id(3) + "&limit=2", "5 6", true, false},
		{"before=" + id(5) + "&until=" + id(3), "1 2 3", false, false},
		{"before=" + id(3) + "&until=" + id(5), "1 2", false, false},
		{"limit=100000", "1 2 3 4 5 6", false, false},
		{"limit=", "1 2 3 4 5 6", false, false},
	} {
		p := history(t, hub, "channel=a&channel=b/**&"+c.query)
		if p.data() != c.want || *p.More != c.more || p.Gap != c.gap {
			t.Errorf("%s: got %q, more %v, gap %v, want %q, %v, %v", c.query, p.data(), *p.More, p.Gap, c.want, c.more, c.gap)
		}
		if _, err := halley.ParseCursor(p.Cursor); err != nil {
			t.Errorf("%s: cursor %v", c.query, err)
		}
		if strings.Contains(c.query, "before=") {
			continue
		}
		// What comes after the cursor is what was not in the page.
		rest := history(t, hub, "channel=a&channel=b/**&cursor="+p.Cursor)
		bound, _ := url.ParseQuery(c.query)
		if until := bound.Get("until"); until == "" || until == "now" || until == past || c.more {
			all := history(t, hub, "channel=a&channel=b/**&cursor="+bound.Get("cursor"))
			if got := strings.TrimSpace(p.data() + " " + rest.data()); got != all.data() {
				t.Errorf("%s, and from %s on: got %q, want %q", c.query, p.Cursor, got, all.data())
			}
		} else if first := strings.Fields(c.want); len(first) == 0 && rest.data() != "1 2 3 4 5 6" && bound.Get("cursor") == "" {
			t.Errorf("%s, and from %s on: got %q", c.query, p.Cursor, rest.data())
		}
	}
	if p := history(t, hub, "channel=nothing"); len(p.Messages) > 0 || *p.More {
		t.Errorf("an empty channel: %+v", p)
	}
}

// A page ends where its data would be large.
func TestHistoryBytes(t *testing.T) {
	hub := newHub(t, halley.Options{MaxMessage: 8 << 20})
	for _, size := range []int{3 << 20, 3 << 20, 100, 6 << 20, 100, 100} {
		publish(t, hub, "a", strings.Repeat("x", size))
	}
	var pages []int
	for cursor, more := "", true; more; {
		p := history(t, hub, "channel=a&cursor="+cursor)
		pages = append(pages, len(p.Messages))
		cursor, more = p.Cursor, *p.More
	}
	if want := []int{2, 2, 2}; !slices.Equal(pages, want) {
		t.Errorf("forward: pages of %v messages, want %v", pages, want)
	}
	pages = nil
	for before, more := "now", true; more; {
		p := history(t, hub, "channel=a&before="+before)
		pages = append(pages, len(p.Messages))
		before, more = p.Cursor, *p.More
	}
	if want := []int{3, 3}; !slices.Equal(pages, want) {
		t.Errorf("backward: pages of %v messages, want %v", pages, want)
	}
}
