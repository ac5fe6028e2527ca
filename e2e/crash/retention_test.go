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
		r.subscribing.Go(func() { comeAndGo(r.ctx, t, s, finish) })
	}
	n := max(crashtest.Rounds(t, 12, 8)/4, 1)
	for range n {
		r.round()
		r.ledger.Read(true)
	}
	r.stopPublishing()
	close(finish)
	r.ledger.Read(true)

	known := make(map[uint64]crashtest.Name)
	know := func(seq uint64, n crashtest.Name) {
		if was, ok := known[seq]; ok && was != n {
			r.ledger.Doubled++
			t.Errorf("%v is at %d, and so was %v", n, seq, was)
		}
		known[seq] = n
	}
	for _, e := range r.ledger.Entries {
		know(e.Seq, e.Name)
	}
	for _, p := range r.publishers {
		for _, done := range p.Take() {
			for i, n := range done.Names {
				if done.First > 0 {
					know(done.First+uint64(i), n)
					r.acked++
				}
			}
		}
	}
	for _, s := range r.subscribers {
		s.AwaitEnd(r.ledger)
		for _, e := range s.Got {
			know(e.Seq, e.Name)
		}
	}
	r.checkKept(known, keep)
	at := make(map[crashtest.Name]uint64)
	for seq, n := range known {
		if at[n] != 0 {
			r.ledger.Doubled++
			t.Errorf("%v is at %d and at %d", n, at[n], seq)
		}
		at[n] = seq
	}
	told := 0
	for _, s := range r.subscribers {
		told += checkGaps(t, s, r.ledger, known)
	}
	r.leave()
	r.subscribing.Wait()
	if err := r.server.stop(); err != nil {
		t.Errorf("the server ended with %v; it printed:\n%s", err, r.server.process.Output())
	}
	gaps := make(map[comet.Transport]int)
	var list []string
	for _, s := range r.subscribers {
		gaps[s.Transport] += len(s.Gaps)
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
func (r *trial) checkKept(known map[uint64]crashtest.Name, keep int) {
	r.Helper()
	kept := crashtest.NewLedger(r.T, r.server.client(), "earliest")
	kept.Read(true)
	newest := make(map[string][]uint64)
	for seq, n := range known {
		newest[n.Channel] = append(newest[n.Channel], seq)
	}
	for channel, seqs := range newest {
		slices.Sort(seqs)
		for _, seq := range seqs[max(0, len(seqs)-keep):] {
			if kept.At[known[seq]] != seq {
				r.ledger.Lost++
				r.Errorf("%v at %d is one of the newest of %s, and is at %d", known[seq], seq, channel, kept.At[known[seq]])
			}
		}
	}
}

// comeAndGo subscribes for a few messages at a time, and then stays away until
// some are gone, until finish is closed.
func comeAndGo(ctx context.Context, t *testing.T, s *crashtest.Subscriber, finish <-chan struct{}) {
	defer s.Client.HTTPClient.CloseIdleConnections()
	for ; ctx.Err() == nil; miss(ctx, s, finish) {
		messages := 0
		for e, err := range s.Client.Subscribe(ctx, s.Options()) {
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Errorf("%v: %v", s, err)
				return
			}
			s.Take(ctx, e)
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
func miss(ctx context.Context, s *crashtest.Subscriber, finish <-chan struct{}) {
	for ctx.Err() == nil && !isClosed(finish) {
		page, err := s.Client.History(ctx, comet.Query{Channels: s.Channels, Cursor: s.Options().Cursor, Limit: 1})
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
func checkGaps(t *testing.T, s *crashtest.Subscriber, l *crashtest.Ledger, known map[uint64]crashtest.Name) (told int) {
	t.Helper()
	s.Lock()
	defer s.Unlock()
	came := make(map[uint64]bool)
	for _, e := range s.Got {
		came[e.Seq] = true
		if !s.Wants(e.Name.Channel) {
			t.Errorf("%v: got %v", s, e)
		}
	}
	for seq, n := range known {
		if came[seq] || !s.Wants(n.Channel) || seq > s.Cursor.Seq {
			continue
		}
		told++
		if !slices.ContainsFunc(s.Gaps, func(g crashtest.Gap) bool { return g.From < seq && seq <= g.To }) {
			l.Lost++
			t.Errorf("%v: %v at %d did not come, and no gap was told; gaps %v", s, n, seq, s.Gaps)
		}
	}
	return told
}
