package pump

import (
	"hash/maphash"
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestTable puts sets in and takes them out by lot, from none to some thousand
// and back, and compares the table with a map.
func TestTable(t *testing.T) {
	const seed = 3
	rnd := rand.New(rand.NewPCG(seed, 1))
	table := table{seed: maphash.MakeSeed()}
	want := map[string]*set{}
	most, least := 0, 0
	for step := range 60_000 {
		odds := 95 - step/10_000%2*93 // in a hundred: it grows, and then shrinks
		key := strconv.Itoa(rnd.IntN(5000))
		switch s := table.get([]byte(key)); {
		case s != want[key]:
			t.Fatalf("step %d: get(%q) = %v, want %v", step, key, s, want[key])
		case rnd.IntN(100) < odds && s == nil:
			s = &set{key: [1]string{key}}
			table.put(s)
			want[key] = s
		case rnd.IntN(100) >= odds && s != nil:
			table.remove(s)
			delete(want, key)
			if s.next != nil {
				t.Fatalf("step %d: %q still is in a chain", step, key)
			}
		}
		if len(table.chains) != len(want) {
			t.Fatalf("step %d: %d chains for %d sets", step, len(table.chains), len(want))
		}
		most = max(most, len(want))
		if len(table.chains) > 64 && cap(table.chains) > 8*len(table.chains) {
			t.Fatalf("step %d: room for %d chains of %d", step, cap(table.chains), len(table.chains))
		}
		if step%1000 > 0 {
			continue
		}
		found := 0
		for i, s := range table.chains {
			length := 0
			for ; s != nil; s = s.next {
				if want[s.key[0]] != s {
					t.Fatalf("step %d: chain %d has %q, which is not there", step, i, s.key[0])
				}
				found, length = found+1, length+1
			}
			if length > 20 { // of one on the average
				t.Fatalf("step %d: chain %d of %d has %d sets", step, i, len(table.chains), length)
			}
		}
		if found != len(want) {
			t.Fatalf("step %d: %d sets in the chains, want %d", step, found, len(want))
		}
	}
	for _, s := range want {
		table.remove(s)
		least++
	}
	if len(table.chains) != 0 || table.get([]byte("1")) != nil {
		t.Errorf("%d chains are left of nothing", len(table.chains))
	}
	if most < 2000 || least == 0 {
		t.Errorf("%d sets at most, %d in the end: the test tests little", most, least)
	}
}
