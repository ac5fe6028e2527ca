package pump

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine"
)

// TestDeliveryAllocates shows that what a message costs a worker in allocations
// does not depend on how many parked connections get it: once its buffers have
// grown, there are none for each.
func TestDeliveryAllocates(t *testing.T) {
	for _, noRing := range []bool{false, true} {
		for _, tt := range []struct {
			name      string
			few, many int
			own       bool // each connection has a channel of its own
			messages  int  // in a batch to each channel
		}{
			{name: "few", few: ringBatch, many: wideList, messages: 1},
			{name: "several messages", few: ringBatch, many: wideList, messages: 3},
			{name: "a fan-out", few: wideList + 1, many: 3 * wideList, messages: 1},
			{name: "a fan-out of several messages", few: wideList + 1, many: 3 * wideList, messages: 3},
			{name: "one each", few: ringBatch, many: sendBatch + 50, own: true, messages: 1},
			{name: "two each", few: ringBatch, many: 100, own: true, messages: 2},
		} {
			t.Run(fmt.Sprintf("%s, NoRing %v", tt.name, noRing), func(t *testing.T) {
				few := deliveryAllocates(t, tt.few, tt.messages, tt.own, noRing)
				many := deliveryAllocates(t, tt.many, tt.messages, tt.own, noRing)
				if few > 50 || many > few+3 { // a list of the runtime's own may grow
					t.Errorf("%d allocations for %d connections, %d for %d", few, tt.few, many, tt.many)
				}
			})
		}
	}
}

// deliveryAllocates returns the allocations of a warm worker for a batch, the
// fewest of several.
func deliveryAllocates(t *testing.T, connections, messages int, own, noRing bool) uint64 {
	w, log := testWorker(t)
	defer w.close()
	w.pump.opts.NoRing = noRing
	kind := &Kind{Framing: plain{}, Silent: true}
	channels, peers := []string{"a"}, make([]int, connections)
	for i := range peers {
		if own && i > 0 {
			channels = append(channels, "a/"+strconv.Itoa(i))
		}
		var fd int
		fd, peers[i] = socketPair(t)
		w.pump.Park(ConnOptions{Kind: kind, Channels: channels[len(channels)-1:], After: log.End()}, Socket{FD: fd})
	}
	defer func() {
		for _, fd := range peers {
			closeFD(int32(fd))
		}
	}()
	busy := func() bool { return w.pos != log.End() || len(w.fanouts)+len(w.catchups) > 0 }
	for w.work() || busy() {
	}
	if !noRing && w.sockets.sender.ring == nil {
		t.Skip("no io_uring here")
	}
	var batch engine.Batch
	want := ""
	for n := range messages {
		data := fmt.Sprintf("message %d of the batch;", n)
		want += data
		for _, channel := range channels {
			batch.Messages = append(batch.Messages, engine.Message{Channel: channel, Data: []byte(data)})
		}
	}
	buf := make([]byte, 1024)
	for _, fd := range peers { // the open control
		_, _ = receive(int32(fd), buf)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	fewest := ^uint64(0)
	var before, after runtime.MemStats
	for range 10 {
		if _, err := log.Append(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&before)
		for w.work() || busy() {
		}
		runtime.ReadMemStats(&after)
		fewest = min(fewest, after.Mallocs-before.Mallocs)
		for i, fd := range peers {
			got := ""
			for end := time.Now().Add(10 * time.Second); len(got) < len(want) && time.Now().Before(end); {
				b, err := receive(int32(fd), buf)
				if err != nil {
					break
				}
				got += string(b)
			}
			if got != want {
				t.Fatalf("connection %d got %q, want %q", i, got, want)
			}
		}
	}
	return fewest
}
