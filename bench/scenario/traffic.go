package scenario

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/halley-comet/halley/bench/load"
	"github.com/halley-comet/halley/bench/stores"
)

// storedSize is the size of what stores are given.
const storedSize = 200

// letters are random and make poor work for compression: the codes that tables
// are written with by default find nothing in them.
var letters = sync.OnceValue(func() []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	text := make([]byte, 1<<20)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range text {
		text[i] = alphabet[random.IntN(len(alphabet))]
	}
	return text
})

// payload returns a new slice, since stores may keep it.
func payload(i uint64) []byte {
	text := letters()
	at := i * 2654435761 % uint64(len(text)-storedSize)
	return append(make([]byte, 0, storedSize), text[at:at+storedSize]...)
}

func named(prefix string, i int) string { return prefix + "/" + strconv.Itoa(i) }

// A traffic is what publishers have done in the time that was measured.
type traffic struct {
	waits load.Histogram // for acknowledgements
	cpu   time.Duration  // of the process
	total uint64         // that were acknowledged, with those before and after
}

// publish has n publishers publish for a time, after a fifth of it that does
// not count. Each waits for an acknowledgement before its next message.
func publish(s stores.Store, n int, d time.Duration, channel func(random *rand.Rand) string) (*traffic, error) {
	publishers := make([]func(stores.Message) error, n)
	for i := range publishers {
		var err error
		if publishers[i], err = s.Publisher(); err != nil {
			return nil, err
		}
	}
	var (
		t     traffic
		mu    sync.Mutex // of t and failed
		fault error
		wg    sync.WaitGroup
	)
	begin := time.Now().Add(d / 5)
	end := begin.Add(d)
	for i, publish := range publishers {
		wg.Go(func() {
			var own traffic
			var err error
			var seed [32]byte
			binary.LittleEndian.PutUint64(seed[:], uint64(i))
			random := rand.New(rand.NewChaCha8(seed))
			for err == nil {
				m := stores.Message{Channel: channel(random), Data: payload(random.Uint64() >> 32)}
				asked := time.Now()
				if asked.After(end) {
					break
				}
				if err = publish(m); err != nil {
					break
				}
				own.total++
				if now := time.Now(); now.After(begin) && now.Before(end) {
					own.waits.Add(int64(now.Sub(asked)), 1)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			t.total += own.total
			t.waits.Merge(&own.waits)
			if fault == nil {
				fault = err
			}
		})
	}
	time.Sleep(time.Until(begin))
	before := used()
	time.Sleep(time.Until(end))
	t.cpu = used() - before
	wg.Wait()
	return &t, fault
}

// values are the figures of a traffic that took d.
func (t *traffic) values(d time.Duration) Values {
	n := float64(t.waits.Total())
	return Values{
		"rate": n / d.Seconds(),
		"p50":  t.waits.Quantile(0.5) / 1e6,
		"p99":  t.waits.Quantile(0.99) / 1e6,
		"cpu":  t.cpu.Seconds() * 1e6 / max(n, 1),
	}
}

// used returns the CPU time that this process has used.
func used() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// lost compares what a store has with what it acknowledged.
func lost(s stores.Store, acknowledged uint64) (float64, error) {
	stored, err := s.Stored()
	return max(0, float64(acknowledged)-float64(stored)), err
}
