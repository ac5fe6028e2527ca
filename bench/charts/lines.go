package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/halley-comet/halley/bench/result"
	"github.com/halley-comet/halley/bench/scenario"
)

// lines shows what grows with the connections, on a logarithmic axis, or what
// happens in a time.
type lines struct {
	title, note string
	unit        string
	across      string // what grows; empty: connections
	linear      bool   // what grows is on a linear axis, from 0 on, with no mark for each point
	logarithmic bool   // the values are on a logarithmic axis too
	lines       []line
}

// A line is named at its end.
type line struct {
	label, colour string
	points        []point
}

type point struct{ x, y float64 }

const (
	linesHeight = 380
	labelStep   = 16
)

func (l lines) svg() string {
	low, high, label := math.Inf(1), 0.0, 0.0
	var sizes, values []float64
	for _, one := range l.lines {
		label = max(label, wide(one.label))
		for _, p := range one.points {
			sizes = append(sizes, p.x)
			low, high = min(low, p.y), max(high, p.y)
		}
	}
	if l.linear {
		label = 0
	}
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	first, last := sizes[0], sizes[len(sizes)-1]

	left, right := float64(margin+60), width-margin-label-14
	upper, bottom := float64(top+22), float64(linesHeight-axis)
	x := func(v float64) float64 {
		if first == last {
			return (left + right) / 2
		}
		return left + 16 + math.Log(v/first)/math.Log(last/first)*(right-left-32)
	}
	across := cmp.Or(l.across, "connections") + ", on a logarithmic scale"
	if l.linear {
		across = l.across
		marks := ticks(last)
		x = func(v float64) float64 { return left + v/marks[len(marks)-1]*(right-left) }
		sizes = marks
	}
	var y func(v float64) float64
	if l.logarithmic {
		from, to := math.Floor(math.Log10(max(low, 1e-6))), math.Ceil(math.Log10(max(high, 1e-5)))
		to = max(to, from+1)
		for e := from; e <= to; e++ {
			values = append(values, math.Pow(10, e))
		}
		y = func(v float64) float64 {
			return bottom - (math.Log10(max(v, 1e-6))-from)/(to-from)*(bottom-upper)
		}
	} else {
		values = ticks(high)
		y = func(v float64) float64 { return bottom - v/values[len(values)-1]*(bottom-upper) }
	}

	d := start(linesHeight, l.title, l.note)
	for _, v := range values {
		d.line(left, y(v), right, y(v), grid)
		d.text(left-8, y(v)+4, "end", faint, `font-size="12"`, short(v))
	}
	d.text(margin, upper-12, "", faint, `font-size="12"`, l.unit)
	for _, v := range sizes {
		d.line(x(v), bottom, x(v), bottom+4, faint)
		d.text(x(v), bottom+18, "middle", faint, `font-size="12"`, short(v))
	}
	d.line(left, bottom, right, bottom, faint)
	d.text((left+right)/2, bottom+36, "middle", faint, `font-size="12"`, across)

	for _, one := range l.lines {
		path := ""
		for i, p := range one.points {
			path += fmt.Sprintf("%c%s %s", "ML"[min(i, 1)], number(x(p.x)), number(y(p.y)))
		}
		fmt.Fprintf(d, `<path d="%s" fill="none" stroke="%s" stroke-width="2.5" stroke-linejoin="round"/>`+"\n", path, one.colour)
		if l.linear {
			continue
		}
		for _, p := range one.points {
			fmt.Fprintf(d, `<circle cx="%s" cy="%s" r="3.5" fill="%s"/>`+"\n", number(x(p.x)), number(y(p.y)), one.colour)
		}
	}
	if l.linear {
		l.key(d, left)
	} else {
		l.label(d, x, y)
	}
	return d.end()
}

// key names lines above the drawing, where their ends lie together.
func (l lines) key(d *drawing, left float64) {
	at := left + wide(l.unit)
	for _, one := range l.lines {
		d.text(at, float64(top+10), "", one.colour, `font-weight="bold"`, one.label)
		at += 1.15*wide(one.label) + 24 // bold letters are wider
	}
}

// label writes the lines' names at their ends, none over another.
func (l lines) label(d *drawing, x, y func(float64) float64) {
	order := slices.Clone(l.lines)
	end := func(one line) point { return one.points[len(one.points)-1] }
	slices.SortStableFunc(order, func(a, b line) int { return int(10 * (y(end(a).y) - y(end(b).y))) })
	places := make([]float64, len(order))
	for i, one := range order {
		places[i] = y(end(one).y) + 4
		if i > 0 {
			places[i] = max(places[i], places[i-1]+labelStep)
		}
	}
	// What was moved below the axis goes up again.
	for i, lowest := len(places)-1, float64(linesHeight-axis); i >= 0; i-- {
		places[i] = min(places[i], lowest)
		lowest = places[i] - labelStep
	}
	for i, one := range order {
		d.text(x(end(one).x)+10, places[i], "", one.colour, `font-weight="bold"`, one.label)
	}
}

// grow makes a line of a figure of each server, over the connections. Servers
// with one size have none.
func grow(rows []*result.Row, key string) []line {
	var list []line
	for _, row := range rows {
		i := slices.IndexFunc(list, func(l line) bool { return l.label == row.Server })
		if i < 0 {
			i = len(list)
			list = append(list, line{label: row.Server, colour: colour(row.Server)})
		}
		list[i].points = append(list[i].points, point{float64(row.Connections), row.Median[key]})
	}
	for _, one := range list {
		slices.SortFunc(one.points, func(a, b point) int { return int(a.x - b.x) })
	}
	return slices.DeleteFunc(list, func(l line) bool { return len(l.points) < 2 })
}

// curves makes a line of a curve of each row, of its first run.
func curves(rows []*result.Row, colours ...string) []line {
	var list []line
	for _, row := range rows {
		if len(row.Curves) == 0 {
			continue
		}
		one := line{label: row.Transport, colour: colours[len(list)%len(colours)]}
		for i, n := range row.Curves[0] {
			one.points = append(one.points, point{float64(i) * scenario.CurveStep, n})
		}
		list = append(list, one)
	}
	return list
}
