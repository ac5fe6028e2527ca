package crash

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/internal/crashtest"
)

// TestKillRetention kills a server that keeps few messages. Two subscribers of
// every transport stay, and one leaves again and again until it has missed
// something. What did not come to them was told as a gap, and the newest
// messages of each channel are kept.
func TestKillRetention(t *testing.T) {
	const keep = 40
	r := newTrial(t, crashtest.Seeded(t), "--retain-count", fmt.Sprint(keep))
	finish := make(chan struct{})
	for _, transport := range comet.Transports {
		s := newSubscriber(t, r.server, transport, r.start, "load/2", "load/deep/**")
		r.subscribers = append(r.subscribers, s)
		r.subscribing.Go(func() { s.comeAndGo(r.ctx, finish) })
	}
	n := max(crashtest.Rounds(t, 12, 8)/4, 1)
	for range n {
		r.round()
		r.ledger.read(true)
	}
	r.stopPublishing()
	close(finish)
	r.ledger.read(true)

	known := make(map[uint64]name)
	know := func(seq uint64, n name) {
		if was, ok := known[seq]; ok && was != n {
			r.ledger.doubled++
			t.Errorf("%v is at %d, and so was %v", n, seq, was)
		}
		known[seq] = n
	}
	for _, e := range r.ledger.entries {
		know(e.seq, e.name)
	}
	for _, p := range r.publishers {
		for _, done := range p.take() {
			for i, n := range done.names {
				if done.first > 0 {
					know(done.first+uint64(i), n)
					r.acked++
				}
			}
		}
	}
	for _, s := range r.subscribers {
		s.awaitEnd(r.ledger)
		for _, e := range s.got {
			know(e.seq, e.name)
		}
	}
	r.checkKept(known, keep)
	at := make(map[name]uint64)
	for seq, n := range known {
		if at[n] != 0 {
			r.ledger.doubled++
			t.Errorf("%v is at %d and at %d", n, at[n], seq)
		}
		at[n] = seq
	}
	told := 0
	for _, s := range r.subscribers {
		told += s.checkGaps(r.ledger, known)
	}
	r.leave()
	r.subscribing.Wait()
	if err := r.server.stop(); err != nil {
		t.Errorf("the server ended with %v; it printed:\n%s", err, r.server.process.Output())
	}
	gaps := make(map[comet.Transport]int)
	var list []string
	for _, s := range r.subscribers {
		gaps[s.transport] += len(s.gaps)
	}
	for _, transport := range comet.Transports {
		if gaps[transport] == 0 {
			t.Errorf("%s was told of no gap", transport)
		}
		list = append(list, fmt.Sprintf("%s %d", transport, gaps[transport]))
	}
	slices.Sort(list)
	t.Logf("%d times a message did not come and was told as a gap; gaps: %s", told, strings.Join(list, ", "))
	r.report(n)
}

// checkKept wants the newest of each channel to be in the log.
func (r *trial) checkKept(known map[uint64]name, keep int) {
	r.Helper()
	kept := newLedger(r.T, r.server.client(), "earliest")
	kept.read(true)
	newest := make(map[string][]uint64)
	for seq, n := range known {
		newest[n.channel] = append(newest[n.channel], seq)
	}
	for channel, seqs := range newest {
		slices.Sort(seqs)
		for _, seq := range seqs[max(0, len(seqs)-keep):] {
			if kept.at[known[seq]] != seq {
				r.ledger.lost++
				r.Errorf("%v at %d is one of the newest of %s, and is at %d", known[seq], seq, channel, kept.at[known[seq]])
			}
		}
	}
}

// comeAndGo subscribes for a few messages at a time, and then stays away until
// some are gone, until finish is closed.
func (s *subscriber) comeAndGo(ctx context.Context, finish <-chan struct{}) {
	defer s.client.HTTPClient.CloseIdleConnections()
	for ; ctx.Err() == nil; s.miss(ctx, finish) {
		messages := 0
		for e, err := range s.client.Subscribe(ctx, s.options()) {
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.t.Errorf("%v: %v", s, err)
				return
			}
			s.take(ctx, e)
			if e.Control == "" {
				messages++
			}
			if messages > 20 && !isClosed(finish) {
				break
			}
		}
	}
}

// miss waits until history has a gap after the cursor, or finish is closed. A
// kill may take back what was removed, and the gap with it.
func (s *subscriber) miss(ctx context.Context, finish <-chan struct{}) {
	for ctx.Err() == nil && !isClosed(finish) {
		page, err := s.client.History(ctx, comet.Query{Channels: s.channels, Cursor: s.options().Cursor, Limit: 1})
		if err == nil && page.Gap {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-finish:
		case <-ctx.Done():
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// checkGaps wants each message of the subscriber's channels to have come, or to
// be covered by a gap. It returns how many are.
func (s *subscriber) checkGaps(l *ledger, known map[uint64]name) (told int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	came := make(map[uint64]bool)
	for _, e := range s.got {
		came[e.seq] = true
		if !s.wants(e.name.channel) {
			s.t.Errorf("%v: got %v", s, e)
		}
	}
	for seq, n := range known {
		if came[seq] || !s.wants(n.channel) || seq > s.cursor.Seq {
			continue
		}
		told++
		if !slices.ContainsFunc(s.gaps, func(g gap) bool { return g.from < seq && seq <= g.to }) {
			l.lost++
			s.t.Errorf("%v: %v at %d did not come, and no gap was told; gaps %v", s, n, seq, s.gaps)
		}
	}
	return told
}
