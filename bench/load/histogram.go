package load

import "math/bits"

// A Histogram counts times in buckets that are about 1.5 % wide.
type Histogram struct {
	counts [58 * 64]uint64
	total  uint64
}

// Add counts a time in nanoseconds, n times.
func (h *Histogram) Add(nanoseconds int64, n uint64) {
	h.counts[bucket(uint64(max(nanoseconds, 0)))] += n
	h.total += n
}

// Merge adds what another one has counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
}

// Total returns how many times were counted.
func (h *Histogram) Total() uint64 { return h.total }

// Reset forgets everything.
func (h *Histogram) Reset() { *h = Histogram{} }

// Quantile returns the time in nanoseconds below which a fraction q lies.
func (h *Histogram) Quantile(q float64) float64 {
	rank := uint64(q * float64(h.total))
	var sum uint64
	for i, n := range h.counts {
		sum += n
		if sum > rank {
			return middle(i)
		}
	}
	return 0
}

// Max returns the longest time in nanoseconds.
func (h *Histogram) Max() float64 {
	for i := len(h.counts) - 1; i >= 0; i-- {
		if h.counts[i] > 0 {
			return middle(i)
		}
	}
	return 0
}

// Values below 64 have a bucket each; above, each power of two has 64.
func bucket(v uint64) int {
	if v < 64 {
		return int(v)
	}
	shift := bits.Len64(v) - 7
	return min(shift*64+int(v>>shift), 58*64-1)
}

func middle(i int) float64 {
	if i < 128 {
		return float64(i)
	}
	shift := i/64 - 1
	return (float64(i-shift*64) + 0.5) * float64(uint64(1)<<shift)
}
