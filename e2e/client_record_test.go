package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// recorder is a client that keeps account of numbered messages
// (client/test/e2e/recorder.ts).
type recorder struct {
	site  *site
	place place
	name  string
}

// recording says what a recorder does.
type recording struct {
	Name       string         `json:"name"`
	Mount      string         `json:"mount"`
	Transports []string       `json:"transports,omitempty"`
	Share      bool           `json:"share"`
	Channels   []string       `json:"channels"`
	Cursor     string         `json:"cursor"`
	Times      bool           `json:"times"`
	Publish    map[string]any `json:"publish,omitempty"`
	Options    map[string]any `json:"options,omitempty"`
}

// recordState is what a recorder says of itself.
type recordState struct {
	Next, Received, Published int
	Faults, Events            []string
	Opened                    map[string]int
	State, Transport, Cursor  string
}

func (s *site) record(p place, r recording) *recorder {
	s.t.Helper()
	s.eval(p, "suite.record("+quote(r)+");", nil)
	return &recorder{s, p, r.Name}
}

func (r *recorder) state() recordState {
	r.site.t.Helper()
	var states map[string]recordState
	r.site.eval(r.place, "return suite.states();", &states)
	return states[r.name]
}

// times are when the messages came, by number.
func (r *recorder) times() []time.Time {
	r.site.t.Helper()
	var numbers []int64
	r.site.eval(r.place, "return suite.times("+quote(r.name)+");", &numbers)
	times := make([]time.Time, len(numbers))
	for i, n := range numbers {
		times[i] = time.UnixMilli(n)
	}
	return times
}

// await waits until done is content with every one of the recorders.
func (s *site) await(recorders []*recorder, limit time.Duration, what string, done func(state recordState) bool) {
	s.t.Helper()
	for name, state := range s.watch(recorders, limit, done) {
		s.t.Errorf("%s: %s: not after %v: %s", name, what, limit, describe(state))
	}
}

// watch is await for what may take longer; it returns who isn't done.
func (s *site) watch(recorders []*recorder, limit time.Duration, done func(state recordState) bool) map[string]recordState {
	s.t.Helper()
	late := make(map[string]recordState)
	deadline := time.Now().Add(limit)
	for _, p := range places(recorders) {
		waiting := make(map[string]recordState)
		for {
			var states map[string]recordState
			s.eval(p, "return suite.states();", &states)
			clear(waiting)
			for _, r := range recorders {
				if r.place == p && !done(states[r.name]) {
					waiting[r.name] = states[r.name]
				}
			}
			if len(waiting) == 0 || time.Now().After(deadline) {
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
		maps.Copy(late, waiting)
	}
	return late
}

func places(recorders []*recorder) []place {
	var all []place
	for _, r := range recorders {
		if !slices.Contains(all, r.place) {
			all = append(all, r.place)
		}
	}
	return all
}

// check fails unless the recorders have all messages, once and in order.
func (s *site) check(recorders []*recorder, total int) {
	s.t.Helper()
	for _, p := range places(recorders) {
		var states map[string]recordState
		s.eval(p, "return suite.states();", &states)
		for _, r := range recorders {
			if state := states[r.name]; r.place == p && (len(state.Faults) > 0 || state.Received != total || state.Next != total) {
				s.t.Errorf("%s: want %d messages, has %s", r.name, total, describe(state))
			}
		}
	}
}

func describe(state recordState) string {
	return fmt.Sprintf("%d messages, the next one %d, %d published, %s on %q at %s\nfaults:\n\t%s\nevents:\n\t%s",
		state.Received, state.Next, state.Published, state.State, state.Transport, state.Cursor,
		strings.Join(state.Faults, "\n\t"), strings.Join(state.Events, "\n\t"))
}

// transports are those that the place of a site can do.
func (s *site) transports(p place) []string {
	s.t.Helper()
	var names []string
	s.eval(p, "return suite.available;", &names)
	return names
}

// traffic is numbered messages for recorders, with the times at which they
// were published. They go to the server, not through the proxy.
type traffic struct {
	site     *site
	channels []string

	mu   sync.Mutex // guards sent
	sent []time.Time
}

// batch publishes the next messages, of various lengths.
func (tr *traffic) batch(ctx context.Context, count int) error {
	const filling = "☄ a comet’s tail points away from the sun, whichever way it flies. "
	var lines bytes.Buffer
	tr.mu.Lock()
	first := len(tr.sent)
	for n := first; n < first+count; n++ {
		line, err := json.Marshal(map[string]any{
			"channel": tr.channels[n%len(tr.channels)],
			"data":    map[string]any{"n": n, "filling": strings.Repeat(filling, n*n%7)},
		})
		if err != nil {
			tr.mu.Unlock()
			return err
		}
		lines.Write(append(line, '\n'))
		tr.sent = append(tr.sent, time.Now())
	}
	tr.mu.Unlock()
	_, err := tr.site.forward(ctx, http.MethodPost, "/publish", "application/x-ndjson", &lines)
	return err
}

// run publishes so many a second until ctx is done.
func (tr *traffic) run(ctx context.Context, rate float64) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	began, base := time.Now(), tr.count()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due := base + int(time.Since(began).Seconds()*rate)
		if n := min(due-tr.count(), 1000); n > 0 {
			if err := tr.batch(context.WithoutCancel(ctx), n); err != nil {
				return err
			}
		}
	}
}

// start is run beside the test; stop ends it and tells how many messages there
// are in all.
func (tr *traffic) start(rate float64) (stop func() int) {
	ctx, cancel := context.WithCancel(tr.site.t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.run(ctx, rate) }()
	return func() int {
		tr.site.t.Helper()
		cancel()
		if err := <-done; err != nil {
			tr.site.t.Fatal(err)
		}
		return tr.count()
	}
}

func (tr *traffic) count() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.sent)
}

// latest is the longest time that a message published in a span took to come,
// or has not come for.
func (tr *traffic) latest(times []time.Time, from, to time.Time) time.Duration {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var worst time.Duration
	for n, sent := range tr.sent {
		if sent.Before(from) || sent.After(to) {
			continue
		}
		came := time.Now()
		if n < len(times) {
			came = times[n]
		}
		worst = max(worst, came.Sub(sent))
	}
	return worst
}

// caughtUp is how long after a moment the last message came that was published
// before it.
func (tr *traffic) caughtUp(times []time.Time, at time.Time) time.Duration {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var late time.Duration
	for n, sent := range tr.sent {
		if sent.After(at) || n >= len(times) {
			break
		}
		late = max(late, times[n].Sub(at))
	}
	return late
}

// history are the numbers of a channel's messages, in order.
func (s *site) history(channel string) []int {
	s.t.Helper()
	var numbers []int
	for cursor, more := "earliest", true; more; {
		query := url.Values{"channel": {channel}, "cursor": {cursor}, "limit": {"1000"}}
		answer, err := s.forward(s.t.Context(), http.MethodGet, "/history?"+query.Encode(), "", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		var page struct {
			Cursor   string
			More     bool
			Messages []struct{ Data struct{ N int } }
		}
		if err := json.Unmarshal(answer, &page); err != nil {
			s.t.Fatal(err)
		}
		for _, m := range page.Messages {
			numbers = append(numbers, m.Data.N)
		}
		cursor, more = page.Cursor, page.More
	}
	return numbers
}

// spread is a median and the worst of some durations.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	slices.Sort(all)
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
	return fmt.Sprintf("median %v, worst %v", round(all[len(all)/2]), round(all[len(all)-1]))
}
