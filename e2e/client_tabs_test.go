package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/browser"
)

// tabs opens so many pages of one origin, each with a client that shares, and
// waits until all are open.
func (s *site) tabs(t *testing.T, browser browser.Browser, number int, tr *traffic) ([]*page, []*recorder) {
	t.Helper()
	var pages []*page
	var recorders []*recorder
	cursor := s.server.cursor()
	for i := range number {
		p := newPage(t, browser)
		recorders = append(recorders, s.record(s.page(t, p), recording{
			Name: fmt.Sprintf("tab-%d", i), Mount: s.mount(0), Share: true, Channels: tr.channels, Cursor: cursor, Times: true,
		}))
		pages = append(pages, p)
	}
	s.await(recorders, patience, "open", func(state recordState) bool { return state.State == "open" })
	return pages, recorders
}

// streams waits until there is as many connections as wanted at the proxy.
func (s *site) streams(want int, when string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := s.proxy.Pending("/subscribe")
		if len(got) == want {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: %d connections, want %d: %q", when, len(got), want, got)
		}
	}
}

// leader is the number of the tab that holds the lock of the connection.
func (s *site) leader(pages []*page, closed map[int]bool) int {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		for i, p := range pages {
			if closed[i] {
				continue
			}
			var holds bool
			p.eval(`
				const probe = "probe " + Math.random();
				return navigator.locks.request(probe, async () => {
					const { held } = await navigator.locks.query();
					const me = held.find((lock) => lock.name === probe).clientId;
					return held.some((lock) => lock.clientId === me && lock.name !== probe);
				});`, &holds)
			if holds {
				return i
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatal("no tab leads")
		}
	}
}

// Three tabs hold one connection. When the one that holds it is closed, another
// has taken over within a second, and no tab misses a message or has one twice.
func TestClientTabsClose(t *testing.T) {
	const limit = time.Second
	oneByOne(t, []string{"--heartbeat", heartbeat.String()}, func(t *testing.T, s *site, b browser.Browser) {
		tr := &traffic{site: s, channels: []string{"tabs/a", "tabs/b"}}
		pages, recorders := s.tabs(t, b, 3, tr)
		s.streams(1, "three tabs")
		stop := tr.start(50)
		closed := make(map[int]bool)
		left := recorders
		for range 2 {
			time.Sleep(2 * heartbeat)
			leader := s.leader(pages, closed)
			began := time.Now()
			pages[leader].close()
			took := time.Since(began)
			closed[leader] = true
			left = nil
			for i, r := range recorders {
				if !closed[i] {
					left = append(left, r)
				}
			}
			time.Sleep(2 * heartbeat)
			s.streams(1, fmt.Sprintf("%d tabs", len(left)))
			for _, r := range left {
				handover := tr.latest(r.times(), began.Add(-heartbeat), began.Add(2*heartbeat))
				t.Logf("%s: tab %d closed (in %v); the latest message of %s by %v", s.name, leader,
					took.Round(time.Millisecond), r.name, handover.Round(time.Millisecond))
				if handover > limit {
					t.Errorf("%s: a message was late by %v, want %v: %s", r.name, handover, limit, describe(r.state()))
				}
			}
		}
		total := stop()
		s.await(left, patience, "every message", func(state recordState) bool { return state.Next >= total })
		s.check(left, total)
	})
}

// freezes are the ways in which a tab stops.
var freezes = []struct {
	name       string
	only       string // the engine that can do it
	begin, end func(s *site, p *page)
}{
	// The browser freezes the page, which learns of it.
	{"frozen", "chromium", lifecycle("frozen"), lifecycle("active")},
	// The page learns nothing: it is silent towards the other tabs and deaf,
	// and nothing that it does takes effect. For every engine.
	{"silent", "", evaluate("freezing.on = true;"), evaluate("freezing.thaw();")},
	// A script keeps the page busy. It has to be a process of its own.
	{"busy", "", evaluate(`setTimeout(() => {
		for (const end = performance.now() + 4000; performance.now() < end; );
	});`), evaluate("")},
}

func lifecycle(state string) func(s *site, p *page) {
	return func(s *site, p *page) {
		s.t.Helper()
		p.step(func(ctx context.Context) error {
			return p.tab.(devTools).DevTools(ctx, "Page.setWebLifecycleState", map[string]any{"state": state}, nil)
		})
	}
}

func evaluate(script string) func(s *site, p *page) {
	return func(s *site, p *page) { s.t.Helper(); p.eval(script, nil) }
}

// devTools are what Chromium's tabs have.
type devTools interface {
	DevTools(ctx context.Context, command string, params, result any) error
}

// freezable prepares a page for going silent, before its client is there.
const freezable = `
	window.freezing = { on: false, later: [], thaw() { this.on = false; for (const act of this.later.splice(0)) act(); } };
	const thawed = () => new Promise((act) => freezing.on ? freezing.later.push(act) : act());
	const post = BroadcastChannel.prototype.postMessage;
	BroadcastChannel.prototype.postMessage = function (message) {
		if (!freezing.on) post.call(this, message);
		else freezing.later.push(() => post.call(this, message));
	};
	const hear = (channel, listener) => listener && ((event) => {
		if (!freezing.on) listener.call(channel, event);
		else freezing.later.push(() => listener.call(channel, event));
	});
	const listen = BroadcastChannel.prototype.addEventListener;
	BroadcastChannel.prototype.addEventListener = function (type, listener, options) {
		listen.call(this, type, hear(this, listener), options);
	};
	const { get, set } = Object.getOwnPropertyDescriptor(BroadcastChannel.prototype, "onmessage");
	Object.defineProperty(BroadcastChannel.prototype, "onmessage", { get, set(listener) { set.call(this, hear(this, listener)); } });
	// A lock that is stolen meanwhile, and one that is asked for, wait too.
	const request = LockManager.prototype.request;
	LockManager.prototype.request = async function (...all) {
		await thawed();
		try {
			return await request.apply(this, all);
		} finally {
			await thawed();
		}
	};`

// When the tab that holds the connection freezes, another has taken over within
// two heartbeats. After it thaws there is one connection again, and it has
// missed nothing either.
func TestClientTabsFreeze(t *testing.T) {
	oneByOne(t, []string{"--heartbeat", heartbeat.String()}, func(t *testing.T, s *site, b browser.Browser) {
		for _, f := range freezes {
			t.Run(f.name, func(t *testing.T) {
				if f.only != "" && f.only != s.name {
					t.Skip("only in " + f.only)
				}
				s := &site{t: t, name: s.name, server: s.server, proxy: s.proxy, prepare: freezable}
				s.freezeLeader(b, f.name, f.begin, f.end)
			})
		}
	})
}

func (s *site) freezeLeader(b browser.Browser, name string, freeze, thaw func(s *site, p *page)) {
	s.t.Helper()
	const limit = 2 * heartbeat
	tr := &traffic{site: s, channels: []string{"tabs/" + name + "/a", "tabs/" + name + "/b"}}
	pages, recorders := s.tabs(s.t, b, 3, tr)
	s.streams(1, "three tabs")
	stop := tr.start(50)
	time.Sleep(heartbeat)
	leader := s.leader(pages, nil)
	began := time.Now()
	freeze(s, pages[leader])
	time.Sleep(4 * heartbeat)
	for i, r := range recorders {
		if i == leader {
			continue
		}
		handover := tr.latest(r.times(), began.Add(-heartbeat), began.Add(3*heartbeat))
		s.t.Logf("%s: tab %d is %s; the latest message of %s by %v", s.name, leader, name, r.name, handover.Round(time.Millisecond))
		if handover > limit {
			s.t.Errorf("%s: a message was late by %v, want %v: %s", r.name, handover, limit, describe(r.state()))
		}
	}
	thawed := time.Now()
	thaw(s, pages[leader])
	time.Sleep(3 * heartbeat)
	s.streams(1, "after the thaw")
	total := stop()
	s.await(recorders, patience, "every message", func(state recordState) bool { return state.Next >= total })
	s.check(recorders, total)
	s.t.Logf("%s: the %s tab had everything %v after the thaw", s.name, name,
		tr.caughtUp(recorders[leader].times(), thawed).Round(time.Millisecond))
}

// A tab whose session storage is another's, as a duplicated tab's is, is a tab
// of its own.
func TestClientTabsDuplicate(t *testing.T) {
	everyBrowser(t, []string{"--heartbeat", heartbeat.String()}, func(t *testing.T, s *site, b browser.Browser) {
		tr := &traffic{site: s, channels: []string{"tabs/a"}}
		pages, recorders := s.tabs(t, b, 1, tr)
		var storage json.RawMessage
		pages[0].eval("return { ...sessionStorage };", &storage)
		s.prepare = fmt.Sprintf("Object.assign(sessionStorage, %s);", storage)
		_, more := s.tabs(t, b, 1, tr)
		recorders = append(recorders, more...)
		s.streams(1, "a tab and its duplicate")
		if err := tr.batch(t.Context(), 200); err != nil {
			t.Fatal(err)
		}
		s.await(recorders, patience, "every message", func(state recordState) bool { return state.Next >= 200 })
		time.Sleep(heartbeat)
		s.check(recorders, 200)
	})
}
