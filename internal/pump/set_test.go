package pump

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/halley-comet/halley/engine"
)

// TestIndex has connections with sets drawn by lot come and go, also during
// walks, and compares what is found with what each wants.
func TestIndex(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, 1))
	channels := []string{"a", "a/b", "a/c", "a/b/c", "b", "b/b/b/b"}
	names := append([]string{"*", "**", "a/*", "a/**", "a/b/*", "b/**", "c", "d", "e", "f"}, channels...)
	x := newIndex()
	wants := map[*Conn][]string{}
	var walked []*set
	for step := range 10_000 {
		// It grows to some hundred and goes down to none, several times.
		odds := 7 - step/1000%2*4 // in ten
		if rnd.IntN(10) < odds || len(wants) == 0 {
			c := &Conn{}
			list := []string{}
			for _, i := range rnd.Perm(len(names))[:min(rnd.IntN(12), 1+rnd.IntN(12))] {
				list = append(list, names[i])
			}
			wants[c] = list
			x.add(c, list)
		} else {
			for c := range wants {
				x.remove(c)
				delete(wants, c)
				break
			}
		}
		switch {
		case len(walked) == 0 && step%50 == 0:
			walked = x.find(nil, channels[rnd.IntN(len(channels))])
			for _, s := range walked {
				s.rarely().walkers++
			}
		case step%50 == 30:
			for _, s := range walked {
				x.release(s)
			}
			walked = nil
		}
		if step%7 != 0 {
			continue
		}
		for _, channel := range channels {
			found := map[*Conn]int{}
			for _, s := range x.find(nil, channel) {
				for i, c := range s.members {
					if c == nil {
						continue
					}
					found[c]++
					if c.set != s || int(c.at) != i {
						t.Fatalf("seed %d, step %d: a connection is not where it is said to be", seed, step)
					}
				}
			}
			for c, list := range wants {
				want := slices.ContainsFunc(list, func(name string) bool { return engine.Match(name, channel) })
				if c.set.wants(channel) != want {
					t.Fatalf("seed %d, step %d: wants(%q) of %q is %v", seed, step, channel, list, !want)
				}
				if got := found[c]; got > 1 || (got == 1) != want {
					t.Fatalf("seed %d, step %d: %q was found %d times for %q", seed, step, list, got, channel)
				}
				delete(found, c)
			}
			if len(found) > 0 {
				t.Fatalf("seed %d, step %d: %d that have left were found", seed, step, len(found))
			}
		}
	}
	for _, s := range walked {
		x.release(s)
	}
	for c := range wants {
		x.remove(c)
	}
	if len(x.sets.chains)+len(x.lists)+x.patterns > 0 {
		t.Errorf("%d sets, %d lists and %d patterns are left of nothing", len(x.sets.chains), len(x.lists), x.patterns)
	}
}
