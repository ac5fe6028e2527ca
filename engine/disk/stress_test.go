package disk

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestStress has publishers, readers of all kinds, retention and a crash go on
// at once. Each channel's messages are numbered: a reader that is told of no gap
// misses none.
func TestStress(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	for i, opts := range []Options{
		{TailBytes: 100 * tailMessage, group: 16, delay: 1},
		{TailBytes: 3000 * tailMessage, group: 0, delay: 1, maxTrims: 5},
		{TailBytes: 300 * tailMessage, group: 64, delay: 1, channels: 3, many: 4, Limit: 400 << 10},
		{TailBytes: 1, delay: 1, Fsync: Always, channels: 2, Limit: 200 << 10},
		{TailBytes: 500 * tailMessage, group: 33, delay: 1, Fsync: Never, many: 2, GroupWait: 10 * time.Millisecond},
		{TailBytes: 500 * tailMessage, group: 100, delay: 1, many: 6},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) { stress(t, opts) })
	}
}

func stress(t *testing.T, opts Options) {
	opts.Rules = []engine.RetentionRule{
		{Pattern: "few/**", Retention: engine.Retention{Count: 3}},
		{Pattern: "age/*", Retention: engine.Retention{Age: 20 * time.Millisecond}},
		{Pattern: "age/x/*", Retention: engine.Retention{Age: 5 * time.Millisecond, Count: 5}},
		{Pattern: "keep/**", Retention: engine.Retention{Count: 1 << 30}},
	}
	mem := vfs.NewCrashableMem()
	counters := make(map[string]int)
	for round := range 2 {
		opts.fs = mem
		l, err := Open("log", opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Verify(t.Context()); err != nil {
			t.Fatal(round, err)
		}
		stop := make(chan struct{})
		var pubs, readers sync.WaitGroup
		var mu sync.Mutex
		for p := range 8 {
			pubs.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(p), uint64(round)))
				names := []string{"keep/" + strconv.Itoa(p), "few/" + strconv.Itoa(p), "few/a/b/" + strconv.Itoa(p), "age/" + strconv.Itoa(p), "age/x/" + strconv.Itoa(p), "top" + strconv.Itoa(p)}
				for range 80 {
					var b engine.Batch
					n := 1 + rng.IntN(3)
					if rng.IntN(30) == 0 {
						n = 120
					}
					mu.Lock()
					for range n {
						name := names[rng.IntN(len(names))]
						counters[name]++
						b.Messages = append(b.Messages, engine.Message{Channel: name, Data: []byte(strconv.Itoa(counters[name]))})
					}
					mu.Unlock()
					if rng.IntN(4) == 0 {
						b.Key = fmt.Sprint(p, round, rng.Uint64())
					}
					if _, err := l.Append(context.Background(), b); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		var pages, msgs atomic.Int64
		for r := range 3 {
			readers.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(r), uint64(round)+100))
				for {
					select {
					case <-stop:
						return
					default:
					}
					patterns := [][]string{{"**"}, {"keep/*"}, {"few/**", "keep/1"}, {"*"}, {"age/*", "age/**", "few/1"}, {"age/x/1", "age/x/2", "top1", "few/a/**"}, {"few/a/b/1"}, {"few/2"}}
					q := engine.Query{Channels: patterns[rng.IntN(len(patterns))], Limit: 1 + rng.IntN(300)}
					if rng.IntN(2) == 0 {
						end := l.End()
						q.After = end
						q.After.Seq -= min(q.After.Seq, uint64(rng.IntN(2000)))
					}
					if rng.IntN(3) == 0 {
						q.Backward = true
						readBackward(t, l, q)
						continue
					}
					last := make(map[string]int)
					var lastSeq uint64 = q.After.Seq
					for range 50 {
						page, err := l.Read(context.Background(), q)
						if err != nil {
							t.Errorf("%+v: %v", q, err)
							return
						}
						pages.Add(1)
						time.Sleep(200 * time.Microsecond)
						if page.Gap || q.After.IsZero() {
							clear(last)
						}
						lastSeq = checkOrder(t, q, page, last, lastSeq)
						for _, m := range page.Messages {
							msgs.Add(1)
							if m.ID.Seq <= page.Start.Seq || m.ID.Seq > page.End.Seq {
								t.Errorf("%+v: %d not in %v..%v", q, m.ID.Seq, page.Start, page.End)
							}
						}
						if !page.More && page.End.Seq > lastSeq {
							lastSeq = page.End.Seq
						}
						q.After = page.End
						if q.After.IsZero() {
							break
						}
					}
				}
			})
		}
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := l.Verify(context.Background()); err != nil {
					t.Errorf("Verify: %v", err)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
		pubs.Wait()
		close(stop)
		readers.Wait()
		t.Log(pages.Load(), msgs.Load(), l.End())
		end := l.End()
		if round%2 == 0 && opts.Fsync != Never {
			clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(1, uint64(round)))})
			l.Close()
			mem = clone
		} else if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		opts.fs = mem
		for _, ro := range []bool{true, false} {
			o := opts
			o.ReadOnly = ro
			l, err = Open("log", o)
			if err != nil {
				t.Fatal(err)
			}
			if l.End() != end {
				t.Errorf("End %v want %v", l.End(), end)
			}
			if _, err := l.Verify(t.Context()); err != nil {
				t.Errorf("%d ro %v: Verify: %v", round, ro, err)
			}
			for _, p := range []string{"keep/**", "few/**", "age/**", "*", "few/a/**", "age/x/*"} {
				readAll(t, l, p)
			}
			l.Close()
		}
	}
}

func readBackward(t *testing.T, l *Log, q engine.Query) {
	page, err := l.Read(context.Background(), q)
	if err != nil {
		t.Errorf("%+v: %v", q, err)
		return
	}
	checkOrder(t, q, page, make(map[string]int), 0)
}

// checkOrder wants a page's messages to follow lastSeq in order, and those of a
// channel to be numbered without a hole after last. It returns the last sequence.
func checkOrder(t *testing.T, q engine.Query, page engine.Page, last map[string]int, lastSeq uint64) uint64 {
	for _, m := range page.Messages {
		n, _ := strconv.Atoi(string(m.Data))
		if m.ID.Seq <= lastSeq {
			t.Errorf("%+v: %d after %d", q, m.ID.Seq, lastSeq)
		}
		lastSeq = m.ID.Seq
		if was, ok := last[m.Channel]; ok && n != was+1 {
			t.Errorf("%+v: %s %d follows %d, at %d, gap %v", q, m.Channel, n, was, m.ID.Seq, page.Gap)
		}
		last[m.Channel] = n
	}
	return lastSeq
}
