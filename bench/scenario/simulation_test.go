package scenario

import "testing"

// TestSimulation shows that simulated connections get what they are to get.
func TestSimulation(t *testing.T) {
	for _, s := range []Scenario{simulationOne, simulationEach} {
		measures, err := s.Run(nil, Case{Connections: 5000}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range measures {
			if m.Values["lost"] != 0 || m.Values["doubled"] != 0 {
				t.Errorf("%s: %v", s.Name, m.Values)
			}
			for _, column := range s.Columns {
				if _, ok := m.Values[column.Key]; !ok {
					t.Errorf("%s has no %q", s.Name, column.Key)
				}
			}
		}
	}
}
