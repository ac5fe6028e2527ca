package main

import (
	"path/filepath"
	"slices"

	"github.com/halley-comet/halley/bench/result"
)

// A source is the file that a scenario's results are taken from.
type source struct {
	*result.File
	name string // of the file
}

// read returns the newest results of each scenario.
func read(dir string) (map[string]*source, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	newest := map[string]*source{}
	for _, path := range paths { // in the order of their names
		file, err := result.Read(path)
		if err != nil {
			return nil, err
		}
		s := &source{file, filepath.Base(path)}
		for _, row := range file.Rows {
			if old := newest[row.Scenario]; old == nil || !file.Date.Before(old.Date) {
				newest[row.Scenario] = s
			}
		}
	}
	return newest, nil
}

// rows returns a scenario's rows that have a figure.
func (s *source) rows(scenario, key string) []*result.Row {
	if s == nil {
		return nil
	}
	var rows []*result.Row
	for _, row := range s.Rows {
		if _, ok := row.Median[key]; ok && row.Scenario == scenario {
			rows = append(rows, row)
		}
	}
	return rows
}

// where returns the rows for which keep is true.
func where(rows []*result.Row, keep func(*result.Row) bool) []*result.Row {
	return slices.DeleteFunc(slices.Clone(rows), func(row *result.Row) bool { return !keep(row) })
}

// usual returns the rows of each server's event stream: sse where it has that,
// or else its first transport.
func usual(rows []*result.Row) []*result.Row {
	chosen := map[string]string{}
	for _, row := range rows {
		if _, ok := chosen[row.Server]; !ok || row.Transport == "sse" {
			chosen[row.Server] = row.Transport
		}
	}
	return where(rows, func(row *result.Row) bool { return row.Transport == chosen[row.Server] })
}
