package load

import "testing"

func TestTrack(t *testing.T) {
	tests := []struct {
		name string
		got  []uint64
		end  uint64
		want Counts
	}{
		{"all", []uint64{0, 1, 2, 3}, 4, Counts{Delivered: 4}},
		{"none", nil, 4, Counts{Lost: 4}},
		{"lost in the middle", []uint64{0, 3}, 4, Counts{Delivered: 2, Lost: 2}},
		{"lost at the end", []uint64{0, 1}, 4, Counts{Delivered: 2, Lost: 2}},
		{"doubled", []uint64{0, 1, 1, 0, 2}, 3, Counts{Delivered: 3, Doubled: 2}},
		{"late", []uint64{0, 2, 1, 3}, 4, Counts{Delivered: 4, Reordered: 1}},
		{"late and doubled", []uint64{2, 0, 1, 1, 0, 2}, 3, Counts{Delivered: 3, Reordered: 2, Doubled: 3}},
		{"far ahead", []uint64{0, 200, 199, 199}, 201, Counts{Delivered: 3, Lost: 198, Reordered: 1, Doubled: 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var c Counts
			var track track
			for _, sequence := range test.got {
				track.got(sequence, &c)
			}
			track.finish(test.end, &c)
			if c != test.want {
				t.Errorf("got %+v, want %+v", c, test.want)
			}
		})
	}
}
