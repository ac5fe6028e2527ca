package scenario

import (
	"os/exec"
	"testing"
	"time"

	"github.com/halley-comet/halley/bench/peers"
)

// TestNodes runs the scenarios of several nodes in small: nothing is lost on
// the way from one to the other.
func TestNodes(t *testing.T) {
	t.Chdir("..") // where the command is run
	for _, p := range []peers.Peer{&peers.HalleyNodes{}, &peers.CentrifugeNodes{}} {
		t.Run(p.Name(), func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("redis-server"); err != nil && p.Name() == "centrifuge-redis" {
				t.Skip(err)
			}
			dir := t.TempDir()
			if err := p.Install(dir); err != nil {
				t.Fatal(err)
			}
			for _, s := range []Scenario{nodesLatency, nodesKill} {
				config := Config{Limit: 500 * time.Millisecond, Connections: []int{100}, Dir: dir}
				for _, c := range s.Cases(config) {
					if !s.Fits(p, c) {
						continue
					}
					measures, err := s.Run(p, c, config)
					if err != nil {
						t.Fatalf("%s: %v", s.Name, err)
					}
					values := measures[0].Values
					for _, key := range []string{"lost", "doubled", "reordered", "gaps"} {
						if values[key] != 0 {
							t.Errorf("%s: %s is %v (%v)", s.Name, key, values[key], values)
						}
					}
					for _, column := range s.Columns {
						if _, ok := values[column.Key]; !ok {
							t.Errorf("%s: there is no %q", s.Name, column.Key)
						}
					}
					if len(values) != len(s.Columns) {
						t.Errorf("%s: %d figures in %d columns: %v", s.Name, len(values), len(s.Columns), values)
					}
					t.Log(s.Name, values)
				}
			}
		})
	}
}

// TestFits shows that servers of one node and of several are not mixed up.
func TestFits(t *testing.T) {
	for _, p := range peers.All("") {
		_, several := p.(peers.Nodes)
		for _, s := range All() {
			if s.Stores != nil {
				continue
			}
			for _, c := range s.Cases(Config{}) {
				if s.Fits(p, c) && s.Nodes != several {
					t.Errorf("%s is put under %s", p.Name(), s.Name)
				}
			}
		}
	}
}
