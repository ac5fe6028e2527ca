package main

import (
	"slices"

	"github.com/halley-comet/halley/bench/result"
)

// bars compares servers, or other things, by horizontal bars.
type bars struct {
	title, note string
	unit        string // of the axis
	parts       []part
}

// A part is some bars under a heading.
type part struct {
	heading string
	bars    []bar
}

// A bar is one value, or two of which the second is longer.
type bar struct {
	label  string
	colour string
	value  float64
	longer float64 // drawn fainter behind; 0 for none
	text   string  // beside it
}

const (
	barHeight = 18
	barStep   = 27
	heading   = 26
	axis      = 48
)

func (b bars) svg() string {
	height, label, text, most := float64(top+axis), 0.0, 0.0, 0.0
	for _, p := range b.parts {
		if p.heading != "" {
			height += heading
		}
		for _, one := range p.bars {
			height += barStep
			label, text = max(label, wide(one.label)), max(text, wide(one.text))
			most = max(most, one.value, one.longer)
		}
	}
	scale := ticks(most)
	left := margin + label + 8
	right := width - margin - 24.0
	end := scale[len(scale)-1]
	at := func(v float64) float64 { return left + v/end*(right-left) }
	// The text beside the longest bar needs room too.
	if over := at(most) + text + 8 - (width - margin); over > 0 {
		right -= over * end / most
	}

	d := start(height, b.title, b.note)
	bottom := height - axis + 4
	for _, v := range scale {
		if at(v) <= width-margin {
			d.text(at(v), bottom+16, "middle", faint, `font-size="12"`, short(v))
		}
	}
	d.text(left, bottom+34, "", faint, `font-size="12"`, b.unit)
	y := float64(top)
	for _, p := range b.parts {
		if p.heading != "" {
			d.text(margin, y+17, "", ink, `font-weight="bold"`, p.heading)
			y += heading
		}
		for _, v := range scale {
			if at(v) <= width-margin {
				d.line(at(v), y, at(v), y+float64(len(p.bars)*barStep), grid)
			}
		}
		d.line(left, y, left, y+float64(len(p.bars)*barStep), faint)
		for _, one := range p.bars {
			d.text(left-8, y+18, "end", ink, "", one.label)
			if one.longer > 0 {
				d.bar(left, y+4, at(one.longer)-left, barHeight, one.colour, ` opacity="0.35"`)
			}
			d.bar(left, y+4, at(one.value)-left, barHeight, one.colour, "")
			d.text(at(max(one.value, one.longer))+6, y+18, "", ink, halo, one.text)
			y += barStep
		}
	}
	return d.end()
}

// compare makes a bar of a figure of each row. Where it has a ratio to the
// limit, the bar tells that too.
func compare(key, unit string) func([]*result.Row) []bar {
	return compareWith("limit", key, unit)
}

// compareWith is compare where ratios are to something else than the limit.
func compareWith(limit, key, unit string) func([]*result.Row) []bar {
	return func(rows []*result.Row) []bar {
		var list []bar
		for _, row := range rows {
			text := figure(row.Median[key]) + unit
			if ratio := row.Ratio[key]; ratio > 0 && row.Server != limit {
				text += " · " + figure(ratio) + " × " + limit
			}
			list = append(list, bar{label: row.Server, colour: colour(row.Server), value: row.Median[key], text: text})
		}
		return list
	}
}

// spread makes a bar of two quantiles of each row.
func spread(p50, p99, unit string) func([]*result.Row) []bar {
	return func(rows []*result.Row) []bar {
		var list []bar
		for _, row := range rows {
			list = append(list, bar{
				label: row.Server, colour: colour(row.Server), value: row.Median[p50], longer: row.Median[p99],
				text: figure(row.Median[p50]) + " / " + figure(row.Median[p99]) + unit,
			})
		}
		return list
	}
}

// sorted puts the shortest first.
func sorted(list []bar) []bar {
	slices.SortStableFunc(list, func(a, b bar) int {
		switch {
		case max(a.value, a.longer) < max(b.value, b.longer):
			return -1
		case max(a.value, a.longer) > max(b.value, b.longer):
			return 1
		}
		return 0
	})
	return list
}
