package scenario

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/halley-comet/halley/bench/peers"
)

// TestServers runs the scenarios of attacks and of restarts in small: who does
// no wrong loses nothing and is refused nothing. How long anything takes is not
// looked at.
func TestServers(t *testing.T) {
	t.Chdir("..") // where the command is run
	dir := t.TempDir()
	if err := new(peers.Halley).Install(dir); err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		scenario Scenario
		size     int
		// Of the figures, those that must be 0.
		none []string
	}{
		{siege, 60, []string{"lost", "doubled", "reordered", "cut", "unpublished"}},
		{restart, 300, []string{"lost", "doubled", "reordered", "gaps"}},
	} {
		s, config := one.scenario, Config{Limit: time.Second, Connections: []int{one.size}, Dir: dir}
		for _, c := range s.Cases(config) {
			t.Run(s.Name+"/"+c.Transport, func(t *testing.T) {
				t.Parallel()
				h := &peers.Halley{Binary: filepath.Join(dir, "halley")}
				if err := h.Install(""); err != nil {
					t.Fatal(err)
				}
				measures, err := s.Run(h, c, config)
				if err == nil && len(measures) != 1 {
					t.Fatalf("%d measures", len(measures))
				} else if err != nil {
					t.Fatal(err)
				}
				values := measures[0].Values
				for _, key := range one.none {
					if values[key] != 0 {
						t.Errorf("%s: %v (%v)", key, values[key], values)
					}
				}
				for _, column := range s.Columns {
					if _, ok := values[column.Key]; !ok {
						t.Errorf("there is no %q", column.Key)
					}
				}
				if len(values) != len(s.Columns) {
					t.Errorf("%d figures in %d columns: %v", len(values), len(s.Columns), values)
				}
				t.Log(values)
			})
		}
	}
}
