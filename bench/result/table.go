package result

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/halley-comet/halley/bench/scenario"
)

// Table returns the table of a scenario: its titles, then its rows.
func (f *File) Table(s scenario.Scenario) [][]string {
	var rows []*Row
	bursts, transports := false, false
	for _, row := range f.Rows {
		if row.Scenario == s.Name {
			rows = append(rows, row)
			bursts = bursts || row.Burst > 0
			transports = transports || row.Transport != ""
		}
	}
	if len(rows) == 0 {
		return nil
	}
	title := []string{s.SizesTitle()}
	if bursts {
		title = append(title, "at once")
	}
	if transports {
		title = append(title, s.KindsTitle())
	}
	compared := "server"
	if s.Stores != nil {
		compared = "store"
	}
	title = append(title, cmp.Or(s.Compares, compared))
	for _, column := range s.Columns {
		title = append(title, column.Title)
		if column.Ratio {
			title = append(title, "× "+s.AgainstTitle())
		}
	}
	slices.SortStableFunc(rows, func(a, b *Row) int {
		if a.Connections != b.Connections {
			return a.Connections - b.Connections
		}
		return a.Burst - b.Burst
	})
	table := [][]string{title}
	for _, row := range rows {
		line := []string{strconv.Itoa(row.Connections)}
		if bursts {
			line = append(line, strconv.Itoa(row.Burst))
		}
		if transports {
			line = append(line, row.Transport)
		}
		line = append(line, row.Server)
		for _, column := range s.Columns {
			line = append(line, number(row.Median, column.Key, column.Digits))
			if column.Ratio {
				line = append(line, number(row.Ratio, column.Key, 2))
			}
		}
		table = append(table, line)
	}
	return table
}

func number(values scenario.Values, key string, digits int) string {
	value, ok := values[key]
	if !ok {
		return "–"
	}
	text := strconv.FormatFloat(value, 'f', digits, 64)
	if digits > 0 {
		return text
	}
	// Thousands are set apart.
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// Print writes the tables of what was measured.
func (f *File) Print(w io.Writer) {
	for _, s := range scenario.All() {
		table := f.Table(s)
		if table == nil {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n\n", s.Name, s.About)
		columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, line := range table {
			fmt.Fprintln(columns, strings.Join(line, "\t"))
		}
		columns.Flush()
	}
	for _, failure := range f.Failures {
		fmt.Fprintf(w, "\nfailed: %s\n", failure)
	}
	for server, reason := range f.Skipped {
		fmt.Fprintf(w, "\n%s was left out: %s\n", server, reason)
	}
}
