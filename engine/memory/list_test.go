package memory

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/halley-comet/halley/engine"
)

// TestListModel compares a list with a sorted slice under random pushes and
// removals, in mixes that leave empty slots in front, in the middle and all
// over.
func TestListModel(t *testing.T) {
	for name, pick := range map[string]func(r *rand.Rand, n int) int{
		"front":      func(*rand.Rand, int) int { return 0 },
		"near front": func(r *rand.Rand, n int) int { return r.IntN(min(n, 10)) },
		"anywhere":   func(r *rand.Rand, n int) int { return r.IntN(n) },
		"but first":  func(r *rand.Rand, n int) int { return min(1+r.IntN(n), n-1) },
		"newest":     func(_ *rand.Rand, n int) int { return n - 1 },
	} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			var l list
			var model []uint64
			var seq, trimmed uint64
			for range 40 {
				// Phases that grow and phases that shrink.
				grow := r.Float64()
				for range r.IntN(1500) {
					if r.Float64() < grow || len(model) == 0 {
						seq += 1 + r.Uint64N(3)
						l.push(&engine.Message{ID: engine.Cursor{Seq: seq}})
						model = append(model, seq)
					} else {
						i := pick(r, len(model))
						l.remove(model[i])
						trimmed = max(trimmed, model[i])
						model = slices.Delete(model, i, i+1)
					}
				}
				checkList(t, &l, model, trimmed, seq, r)
			}
			for len(model) > 0 {
				l.remove(model[0])
				model = model[1:]
			}
			if l.sealed != nil || l.open.slots != nil {
				t.Error("an empty list keeps its chunks")
			}
		})
	}
}

func checkList(t *testing.T, l *list, model []uint64, trimmed, seq uint64, r *rand.Rand) {
	t.Helper()
	if l.live != len(model) || l.trimmed != trimmed {
		t.Fatalf("live, trimmed = %d, %d, want %d, %d", l.live, l.trimmed, len(model), trimmed)
	}
	switch first := l.first(); {
	case (first == nil) != (len(model) == 0):
		t.Fatalf("first = %v with %d messages", first, len(model))
	case first != nil && first.ID.Seq != model[0]:
		t.Fatalf("first = %d, want %d", first.ID.Seq, model[0])
	}
	slots := len(l.open.slots)
	for _, c := range l.sealed {
		slots += len(c.slots)
	}
	if slots > 2*l.live+6*chunkLen {
		t.Fatalf("%d slots for %d messages", slots, l.live)
	}
	for range 20 {
		after, until := r.Uint64N(seq+2), r.Uint64N(seq+2)
		lo, _ := slices.BinarySearch(model, after+1)
		hi, _ := slices.BinarySearch(model, until+1)
		var got []uint64
		for w := l.walkFrom(after); w.next(); {
			got = append(got, w.seq)
		}
		if !slices.Equal(got, model[lo:]) {
			t.Fatalf("after %d: got %d messages, want %d: %v, %v", after, len(got), len(model)-lo, got, model[lo:])
		}
		got = nil
		for w := l.walkBack(until, after); w.prev(); {
			got = append(got, w.seq)
		}
		slices.Reverse(got)
		if want := model[min(lo, hi):hi]; !slices.Equal(got, want) {
			t.Fatalf("back from %d to %d: got %v, want %v", until, after, got, want)
		}
	}
}
