package main

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/halley-comet/halley/bench/scenario"
)

// A block of the page stands between these.
const (
	blockBegin = "<!-- generated: "
	blockEnd   = "<!-- end -->"
)

// fill puts the blocks into the page. Each must have a place there.
func fill(page string, blocks map[string]string) ([]byte, error) {
	missing := map[string]bool{}
	for name := range blocks {
		missing[name] = true
	}
	var out bytes.Buffer
	for {
		before, rest, found := strings.Cut(page, blockBegin)
		out.WriteString(before)
		if !found {
			break
		}
		name, rest, found := strings.Cut(rest, " -->")
		_, rest, ended := strings.Cut(rest, blockEnd)
		text, known := blocks[name]
		if !found || !ended || !known {
			return nil, fmt.Errorf("the page has a block %.40q that is not known, or has no end", name)
		}
		delete(missing, name)
		fmt.Fprintf(&out, "%s%s -->\n%s%s", blockBegin, name, text, blockEnd)
		page = rest
	}
	for name := range missing {
		return nil, fmt.Errorf("the page has no block %q", name)
	}
	return out.Bytes(), nil
}

// block is the charts and the table of a scenario, and where they come from.
func block(s scenario.Scenario, from *source, images []image) string {
	if from == nil {
		return "There are no results yet.\n"
	}
	var b strings.Builder
	for _, i := range images {
		fmt.Fprintf(&b, "![%s](performance/%s.svg)\n\n", i.text, i.name)
	}
	b.WriteString("<details><summary>All figures</summary>\n\n")
	for i, line := range from.Table(s) {
		for j, cell := range line {
			line[j] = strings.ReplaceAll(cell, "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat(" --- |", len(line)))
		}
	}
	b.WriteString("\n</details>\n\n")
	runs := 0
	for _, row := range from.Rows {
		if row.Scenario == s.Name {
			runs = max(runs, len(row.Runs))
		}
	}
	fmt.Fprintf(&b, "%s, from [%s](../bench/results/%s).\n", medians(runs), from.name, from.name)
	for _, failure := range from.Failures {
		if strings.HasPrefix(failure, s.Name+",") {
			fmt.Fprintf(&b, "\nFailed: %s.\n", strings.ReplaceAll(failure, "\n", " "))
		}
	}
	return b.String()
}

func medians(runs int) string {
	if runs == 1 {
		return "One run"
	}
	return fmt.Sprintf("Medians of %d runs", runs)
}

// machines tells of each file that is used, when, where and of what it is.
func machines(newest map[string]*source) string {
	var files []*source
	for _, s := range newest {
		if !slices.ContainsFunc(files, func(o *source) bool { return o.name == s.name }) {
			files = append(files, s)
		}
	}
	if len(files) == 0 {
		return "There are no results yet.\n"
	}
	slices.SortFunc(files, func(a, b *source) int { return cmp.Compare(a.name, b.name) })
	var b strings.Builder
	for _, s := range files {
		m := s.Machine
		fmt.Fprintf(&b, "[%s](../bench/results/%s), %s: %s, %d cores, %d GiB, %s, %s; load average %s when it began. By\n\n```sh\n%s\n```\n\n",
			s.name, s.name, s.Date.Format("2 January 2006"), m.CPU, m.Cores, m.Memory, m.Kernel, m.Go, s.Load, s.Command)
		b.WriteString("| server | version |\n| --- | --- |\n")
		var names []string
		for name := range s.Versions {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&b, "| %s | %s |\n", name, strings.ReplaceAll(s.Versions[name], "\n", " "))
		}
		b.WriteString("\n")
		names = names[:0]
		for name := range s.Skipped {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			reason, _, _ := strings.Cut(s.Skipped[name], "\n")
			fmt.Fprintf(&b, "%s could not be run: %s.\n\n", name, reason)
		}
	}
	return b.String()
}
