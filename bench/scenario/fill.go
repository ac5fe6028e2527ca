package scenario

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley/bench/stores"
	"github.com/halley-comet/halley/engine"
)

// fill stores n messages in large batches, of which two are on the way. So two
// that follow each other may change places.
func fill(s stores.Store, n int, channel func(i int) string) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, 2)
	for range cap(errs) {
		wg.Go(func() {
			for {
				first := int(next.Add(engine.MaxBatch)) - engine.MaxBatch
				if first >= n {
					return
				}
				batch := make([]stores.Message, min(engine.MaxBatch, n-first))
				for i := range batch {
					batch[i] = stores.Message{Channel: channel(first + i), Data: payload(uint64(first + i))}
				}
				if err := s.Fill(batch); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// fillIn fills the store of a folder, and returns how long that took, in
// seconds. It then leaves the store time to tidy up, as one has that is not
// filled at once, and once more after opening it again: what is only in the
// write-ahead log comes into tables then.
func fillIn(k stores.Kind, dir string, n int, channel func(i int) string) (float64, error) {
	begin := time.Now()
	s, err := k.OpenToFill(dir)
	if err != nil {
		return 0, err
	}
	err = fill(s, n, channel)
	took := time.Since(begin).Seconds()
	if err := errors.Join(err, tidy(s)); err != nil {
		return took, err
	}
	if s, err = k.Open(dir); err != nil {
		return took, err
	}
	return took, tidy(s)
}

// tidy closes a store that has nothing left to do.
func tidy(s stores.Store) error {
	rest()
	return s.Close()
}

// rest waits until this process does next to nothing.
func rest() {
	const pause = 200 * time.Millisecond
	for range 300 {
		before := used()
		time.Sleep(pause)
		if used()-before < pause/20 {
			return
		}
	}
}

// scatter walks through 0 to n-1 in an order that has no locality.
func scatter(i, n int) int { return int(uint64(i) * 2654435761 % uint64(n)) }
