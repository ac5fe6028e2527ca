// Package result keeps what was measured, and shows it.
package result

import (
	"encoding/json"
	"os"
	"slices"
	"time"

	"github.com/halley-comet/halley/bench/scenario"
)

// A File is the results of one run of the harness.
type File struct {
	Date     time.Time         `json:"date"`
	Machine  Machine           `json:"machine"`
	Command  string            `json:"command"`
	Load     string            `json:"load"` // of the machine, when it began
	Versions map[string]string `json:"versions"`
	Skipped  map[string]string `json:"skipped,omitempty"`
	Failures []string          `json:"failures,omitempty"`
	Rows     []*Row            `json:"rows"`
}

// A Row is one server in one case of a scenario.
type Row struct {
	Scenario    string            `json:"scenario"`
	Server      string            `json:"server"`
	Transport   string            `json:"transport"`
	Connections int               `json:"connections"`
	Burst       int               `json:"burst,omitempty"`
	Runs        []scenario.Values `json:"runs"`
	Curves      [][]float64       `json:"curves,omitempty"` // of the runs, in scenarios that have them
	Median      scenario.Values   `json:"median"`
	Ratio       scenario.Values   `json:"ratio,omitempty"` // to the limit of the same run, or what the scenario has for it, medians
}

// Row returns the row of a server in a case, which it adds if it is not there.
func (f *File) Row(scenario, server, transport string, connections, burst int) *Row {
	for _, row := range f.Rows {
		if row.Scenario == scenario && row.Server == server && row.Transport == transport &&
			row.Connections == connections && row.Burst == burst {
			return row
		}
	}
	row := &Row{Scenario: scenario, Server: server, Transport: transport, Connections: connections, Burst: burst}
	f.Rows = append(f.Rows, row)
	return row
}

// Summarise computes medians and ratios.
func (f *File) Summarise() {
	for _, row := range f.Rows {
		limit := f.limit(row)
		row.Median, row.Ratio = scenario.Values{}, scenario.Values{}
		for key := range row.Runs[0] {
			row.Median[key] = median(row.Runs, func(i int) (float64, bool) { return row.Runs[i][key], true })
			if limit == nil {
				continue
			}
			// Servers take turns within a run, so that the runs of the same
			// number met the same machine.
			ratio := median(row.Runs, func(i int) (float64, bool) {
				if i >= len(limit.Runs) || limit.Runs[i][key] == 0 {
					return 0, false
				}
				return row.Runs[i][key] / limit.Runs[i][key], true
			})
			if ratio > 0 {
				row.Ratio[key] = ratio
			}
		}
	}
}

// limit finds the row that another is compared with.
func (f *File) limit(row *Row) *Row {
	for _, other := range f.Rows {
		if other.Scenario != row.Scenario || other.Connections != row.Connections || other.Burst != row.Burst {
			continue
		}
		// Servers have each their own transports, stores are asked for the same.
		against := against(row.Scenario)
		if against == nil && other.Server == "limit" ||
			other.Transport == row.Transport && slices.Contains(against, other.Server) {
			return other
		}
	}
	return nil
}

// against is what a scenario compares with, nil for the limit.
func against(name string) []string {
	for _, s := range scenario.All() {
		if s.Name == name {
			return s.Against
		}
	}
	return nil
}

func median(runs []scenario.Values, value func(i int) (float64, bool)) float64 {
	var values []float64
	for i := range runs {
		if v, ok := value(i); ok {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// Write stores the results as JSON.
func (f *File) Write(path string) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// Read reads what Write stored.
func Read(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := new(File)
	return f, json.Unmarshal(data, f)
}
