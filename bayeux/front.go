package bayeux

import (
	"slices"
	"time"

	"github.com/halley-comet/halley"
)

// Read has hub.Front, which is to be called after it, read the connects of
// long-polling below the path where the handler is mounted ("/bayeux"): they
// then cost a fraction of what they cost through net/http. It is for programs
// that have nothing around the handler which has to see its requests.
func (h *Handler) Read(path string) { h.hub.ReadPolls(path, h.open) }

// open returns the poll for a request that is nothing but a connect, to be held.
// All else is ServeHTTP's.
func (h *Handler) open(body []byte, connection string) (*halley.Polls, *halley.Client, *halley.Poll) {
	messages, err := parse(body, 1)
	if err != nil {
		return nil, nil, nil
	}
	m := &messages[0]
	if m.fault != "" || m.channel != "/meta/connect" || m.connectionType == eventSource || !slices.Contains(connectionTypes, m.connectionType) {
		return nil, nil, nil
	}
	s := h.Session(m.clientID)
	if s == nil {
		return nil, nil, nil
	}
	c := &connect{m: m, session: s, pause: h.options.Interval, alone: true, remote: connection}
	timeout := h.timeout(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		h.browserLeft(s.held) // this one takes its place
	}
	streams := timeout == 0 && s.streaming != 0
	if s.ended || streams || h.isIdle(s) || timeout > 0 && !h.browserHolds(c, s.browser) {
		return nil, nil, nil
	}
	s.take(c, timeout, replyType)
	return h.pollsFor(s), s.client, c.poll // s.mu is held
}

// timeout returns how long a connect is held.
func (h *Handler) timeout(m *message) time.Duration {
	if m.timeout < 0 {
		return h.options.Timeout
	}
	return min(h.options.Timeout, time.Duration(min(m.timeout, 1e9))*time.Millisecond)
}
