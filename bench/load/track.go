package load

// Counts is what the connections of a pool received.
type Counts struct {
	Delivered uint64 // messages, those that came twice not counted
	Lost      uint64 // messages that never came
	Doubled   uint64 // messages that came again
	Reordered uint64 // messages that came after a later one
	Refused   uint64 // requests to publish that were refused or cut, where that does not fail the pool
}

// window is how far back a message that comes late is told from a double.
const window = 64

// A track is what one connection has had: everything before next, but for what
// missing says.
type track struct {
	next    uint64
	missing uint64 // bit i: next-1-i has not come
}

// got notes a message and reports whether it is one that had not come before.
func (t *track) got(sequence uint64, c *Counts) bool {
	switch {
	case sequence == t.next:
		t.next++
		t.missing <<= 1
		c.Delivered++
		return true
	case sequence > t.next:
		skipped := sequence - t.next
		c.Lost += skipped
		if skipped >= window {
			t.missing = ^uint64(1)
		} else {
			t.missing = (t.missing<<skipped | (1<<skipped - 1)) << 1
		}
		t.next = sequence + 1
		c.Delivered++
		return true
	default:
		back := t.next - 1 - sequence
		if back < window && t.missing&(1<<back) != 0 {
			t.missing &^= 1 << back
			c.Lost--
			c.Reordered++
			c.Delivered++
			return true
		}
		c.Doubled++
		return false
	}
}

// finish counts what should have come before end and did not.
func (t *track) finish(end uint64, c *Counts) {
	if t.next < end {
		c.Lost += end - t.next
		t.next = end
	}
}
