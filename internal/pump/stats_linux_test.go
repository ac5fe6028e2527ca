package pump

import (
	"fmt"
	"testing"

	"github.com/halley-comet/halley/engine"
)

// TestStatsOfCut wants what was handed to a connection that is read in bits to
// be what its client got: messages that its socket did not take are handed over
// again, and count once.
func TestStatsOfCut(t *testing.T) {
	for _, noRing := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoRing %v", noRing), func(t *testing.T) {
			w, log := testWorker(t)
			defer w.close()
			w.pump.opts.NoRing = noRing
			fd, peer := socketPair(t)
			defer closeFD(int32(peer))
			w.pump.Park(ConnOptions{Kind: &Kind{Class: 2, Framing: plain{}}, Channels: []string{"a"}, After: log.End()}, Socket{FD: fd})
			const messages, size = 300, 10_000
			for range messages / 10 {
				var b engine.Batch
				for range 10 {
					b.Messages = append(b.Messages, engine.Message{Channel: "a", Data: data(size)})
				}
				if _, err := log.Append(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				w.work()
			}
			before := stats(w)
			if before.Lag == 0 || before.Slow == 0 {
				t.Errorf("lag %d, %d slow clients, want some", before.Lag, before.Slow)
			}
			want := len("<open>") + messages*size
			got := 0
			buf := make([]byte, 30_001)
			for got < want {
				b, err := receive(int32(peer), buf)
				if err == errAgain {
					w.work()
					continue
				}
				if err != nil || len(b) == 0 {
					t.Fatalf("after %d bytes: %v", got, err)
				}
				got += len(b)
				w.work()
			}
			s := stats(w)
			if n := s.Classes[2]; n.Messages != messages || n.Bytes != uint64(want) || s.Lag != 0 {
				t.Errorf("%d messages, %d bytes, lag %d; want %d, %d, 0", n.Messages, n.Bytes, s.Lag, messages, want)
			}
			if n := before.Classes[2]; n.Messages >= messages || n.Bytes >= uint64(want) || before.Lag < messages-n.Messages {
				t.Errorf("before anything was read: %d messages, %d bytes, lag %d", n.Messages, n.Bytes, before.Lag)
			}
		})
	}
}
