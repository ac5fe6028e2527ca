package peers

import "testing"

// TestWhole cuts streams everywhere and takes what is whole.
func TestWhole(t *testing.T) {
	for _, one := range []struct {
		name   string
		whole  func([]byte) int
		stream string
		ends   []int // of whole messages
	}{
		{"chunks", wholeChunks, "5\r\nhello\r\n0010\r\n0123456789abcdef\r\n3\r\nend\r\n", []int{10, 34, 42}},
		{"frames", wholeFrames, "\x81\x05hello\x81\x7e\x00\x80" + string(make([]byte, 128)) + "\x81\x00", []int{7, 139, 141}},
		{"a long frame", wholeFrames, "\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x02ab\x88\x02\x03\xe9", []int{12, 16}},
	} {
		for n := range len(one.stream) + 1 {
			want := 0
			for _, end := range one.ends {
				if end <= n {
					want = end
				}
			}
			if got := one.whole([]byte(one.stream[:n])); got != want {
				t.Errorf("%s: %d of the first %d bytes are whole, want %d", one.name, got, n, want)
			}
		}
	}
}
