package crash

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/crashtest"
)

// TestKill kills the server at random moments of many publishers' work, now and
// then also while it opens its log, and starts it again at once. Subscribers of
// every transport stay for the whole run and come back from their cursors.
//
// What was acknowledged is in the log, once and in its place. What was repeated
// under a key is there once. What nobody knows the fate of is there whole and
// once, or not at all. Each subscriber sees what history shows, all of it, once
// and in order, and nothing that the log does not have after the crash.
//
//	script/crash 200
//
// runs 200 rounds. See the package's comment.
func TestKill(t *testing.T) {
	random := crashtest.Seeded(t)
	n := crashtest.Rounds(t, 6, 2)
	r := newTrial(t, random, "--retain-count", "0", "--retain-bytes", "0", "--disk-limit", "0")
	for range n {
		r.round()
		r.check()
	}
	r.finish()
	r.report(n)
}

// modes has group more often than the others.
var modes = []string{"group", "group", "group", "always", "never"}

// A trial is what goes on from the first start of a server to its end.
type trial struct {
	*testing.T
	random      *rand.Rand
	server      *server
	start       engine.Cursor
	acks        crashtest.Pulse
	publishers  []*crashtest.Publisher
	subscribers []*crashtest.Subscriber
	ledger      *crashtest.Ledger
	done        []*crashtest.Publish
	acked       int
	killed      int // how often the server was killed while it opened its log

	publishing, subscribing sync.WaitGroup
	stop                    chan struct{} // closed to let publishers finish
	leave                   context.CancelFunc
	ctx                     context.Context
}

func newTrial(t *testing.T, random *rand.Rand, flags ...string) *trial {
	return newTrialIn(t, random, t.TempDir(), flags...)
}

// newTrialIn returns a trial of a server whose log is in a directory.
func newTrialIn(t *testing.T, random *rand.Rand, dir string, flags ...string) *trial {
	r := &trial{T: t, random: random, stop: make(chan struct{})}
	r.server = newServer(t, dir, append([]string{"--heartbeat", "5s"}, flags...)...)
	r.server.start("--fsync", "group")
	info, err := r.server.client().Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.start, err = engine.ParseCursor(info.Cursor); err != nil {
		t.Fatal(err)
	}
	r.ledger = crashtest.NewLedger(t, r.server.client(), info.Cursor)
	r.ctx, r.leave = context.WithCancel(t.Context())
	t.Cleanup(func() {
		r.leave()
		r.publishing.Wait()
		r.subscribing.Wait()
	})
	for i := range 12 {
		p := newPublisher(t, r.server, i, random, &r.acks)
		r.publishers = append(r.publishers, p)
		r.publishing.Go(func() { p.Run(r.ctx, r.stop) })
	}
	for _, transport := range comet.Transports {
		r.subscribe(transport, "load/**")
		r.subscribe(transport, "load/1", "load/deep/*", "other")
	}
	return r
}

func (r *trial) subscribe(transport comet.Transport, channels ...string) {
	s := newSubscriber(r.T, r.server, transport, r.start, channels...)
	r.subscribers = append(r.subscribers, s)
	r.subscribing.Go(func() { s.Run(r.ctx) })
}

// round lets the server work for a while, kills it and starts it again.
func (r *trial) round() {
	r.Helper()
	select {
	case <-r.acks.Await(1 + r.random.IntN(300)):
	case <-time.After(patience):
		r.Fatalf("publishers are not answered; the server printed:\n%s", r.server.process.Output())
	}
	// Answers come in bursts, after a sync. The kill may come at any moment.
	time.Sleep(time.Duration(r.random.Int64N(int64(3 * time.Millisecond))))
	r.server.kill()
	for r.random.IntN(4) == 0 {
		r.server.launch("--fsync", modes[r.random.IntN(len(modes))])
		time.Sleep(time.Duration(r.random.Int64N(int64(100 * time.Millisecond))))
		r.server.kill()
		r.killed++
	}
	r.server.start("--fsync", modes[r.random.IntN(len(modes))])
}

// check compares what all have seen with the log, while they go on.
func (r *trial) check() {
	r.Helper()
	// Before history is read, so that it has what these were told of.
	var done []*crashtest.Publish
	for _, p := range r.publishers {
		done = append(done, p.Take()...)
	}
	r.ledger.Read(false)
	for _, s := range r.subscribers {
		s.Check(r.ledger)
	}
	r.acked += r.ledger.Check(done)
	r.done = append(r.done, done...)
	if r.Failed() {
		r.Fatal("not another round")
	}
}

// stopPublishing lets publishers finish, none of which was ever refused.
func (r *trial) stopPublishing() {
	r.Helper()
	close(r.stop)
	r.publishing.Wait()
	for _, p := range r.publishers {
		if p.Refused != nil {
			r.Error(p.Refused)
		}
	}
}

// finish lets all come to the end, and compares once more: with the whole log,
// which no crash since may have changed.
func (r *trial) finish() {
	r.Helper()
	r.stopPublishing()
	r.check()
	for _, s := range r.subscribers {
		s.Finish(r.ledger)
	}
	whole := crashtest.NewLedger(r.T, r.server.client(), r.start.String())
	whole.Read(false)
	if !slices.Equal(whole.Entries, r.ledger.Entries) {
		r.ledger.Lost++
		r.Errorf("history has %d messages in the end, and had %d", len(whole.Entries), len(r.ledger.Entries))
	}
	if n := whole.Check(r.done); n != r.acked {
		r.Errorf("%d messages were acknowledged, then %d", r.acked, n)
	}
	r.leave()
	r.subscribing.Wait()
	if err := r.server.stop(); err != nil {
		r.Errorf("the server ended with %v; it printed:\n%s", err, r.server.process.Output())
	}
}

// report prints the closing line.
func (r *trial) report(rounds int) {
	resumed := make(map[string]int)
	for _, s := range r.subscribers {
		resumed[string(s.Transport)] += s.Opens - 1
	}
	var list []string
	for _, transport := range slices.Sorted(maps.Keys(resumed)) {
		list = append(list, fmt.Sprintf("%s %d", transport, resumed[transport]))
		if resumed[transport] == 0 {
			r.Errorf("no %s came back", transport)
		}
	}
	r.Logf("%d rounds, and %d kills while opening: acknowledged %d, lost %d, doubled %d, out of order %d, epochs %d; resumed: %s",
		rounds, r.killed, r.acked, r.ledger.Lost, r.ledger.Doubled, r.ledger.Disordered, len(r.ledger.Epochs), strings.Join(list, ", "))
}
