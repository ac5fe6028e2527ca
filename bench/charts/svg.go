package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Charts have a background of their own, so that they look the same on light
// and on dark pages.
const (
	width      = 760
	margin     = 20
	background = "#fdfdfc"
	border     = "#d0d7de"
	ink        = "#1f2328"
	faint      = "#59636e"
	grid       = "#e4e7eb"
)

// colours of servers; others get plainColour.
var colours = map[string]string{
	"halley":       "#d1500d",
	"halley-epoll": "#e39a6f",
	"limit":        "#6e7781",
	"plain-go":     "#1a7f37",
	"nchan":        "#0969da",
	"centrifuge":   "#8250df",
	"faye":         "#bf3989",
	"socket.io":    "#9a6700",
	"sockjs":       "#0b7285",

	"halley-nodes":       "#d1500d",
	"centrifuge-redis":   "#8250df",
	"jetstream-read":     "#0b7285",
	"jetstream-read-ids": "#0b7285",

	"halley-group":          "#d1500d",
	"halley-always":         "#e39a6f",
	"halley-never":          "#d1500d",
	"halley-cache-quarter":  "#e39a6f",
	"halley-cache-fourfold": "#e39a6f",
	"pebble":                "#6e7781",
	"pebble-never":          "#6e7781",
	"pebble-index":          "#9a6700",
	"bbolt":                 "#1a7f37",
	"jetstream":             "#0969da",
	"jetstream-never":       "#0969da",
}

const plainColour = "#57606a"

func colour(server string) string {
	if c, ok := colours[server]; ok {
		return c
	}
	return plainColour
}

// A drawing is an SVG that is being written.
type drawing struct {
	strings.Builder
}

// start begins a drawing with its title and what it shows.
func start(height float64, title, note string) *drawing {
	d := &drawing{}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%s" viewBox="0 0 %d %s" role="img" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="13">`+"\n",
		width, number(height), width, number(height))
	fmt.Fprintf(d, "<title>%s</title>\n", escape(title))
	fmt.Fprintf(d, `<rect x="0.5" y="0.5" width="%d" height="%s" rx="6" fill="%s" stroke="%s"/>`+"\n",
		width-1, number(height-1), background, border)
	d.text(margin, 30, "", ink, `font-size="16" font-weight="bold"`, title)
	d.text(margin, 49, "", faint, "", note)
	return d
}

// top is where the part below the titles begins.
const top = 66

func (d *drawing) text(x, y float64, anchor, fill, more, text string) {
	if anchor != "" {
		more = strings.TrimSpace(`text-anchor="` + anchor + `" ` + more)
	}
	if more != "" {
		more = " " + more
	}
	fmt.Fprintf(d, `<text x="%s" y="%s" fill="%s"%s>%s</text>`+"\n", number(x), number(y), fill, more, escape(text))
}

// halo keeps a text readable over the lines of the grid.
const halo = `stroke="` + background + `" stroke-width="4" stroke-linejoin="round" paint-order="stroke"`

func (d *drawing) bar(x, y, width, height float64, fill, more string) {
	fmt.Fprintf(d, `<rect x="%s" y="%s" width="%s" height="%s" fill="%s"%s/>`+"\n",
		number(x), number(y), number(max(width, 1)), number(height), fill, more)
}

func (d *drawing) line(x1, y1, x2, y2 float64, stroke string) {
	fmt.Fprintf(d, `<line x1="%s" y1="%s" x2="%s" y2="%s" stroke="%s"/>`+"\n", number(x1), number(y1), number(x2), number(y2), stroke)
}

func (d *drawing) end() string {
	d.WriteString("</svg>\n")
	return d.String()
}

func escape(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text))
	return b.String()
}

// number writes a coordinate.
func number(v float64) string {
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}

// figure writes a value with three digits that count, thousands set apart.
func figure(v float64) string {
	digits := 0
	if v != 0 {
		digits = max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	}
	if digits > 0 {
		return strings.TrimSuffix(strconv.FormatFloat(v, 'f', min(digits, 3), 64), ".0")
	}
	text := strconv.FormatFloat(v, 'f', 0, 64)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// short writes a round value of an axis.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', -1, 64) + " million"
	case v >= 1000:
		return figure(v)
	}
	return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64)
}

// wide estimates the width of a text.
func wide(text string) float64 { return float64(len([]rune(text))) * 7.2 }

// ticks returns round values from 0 to at least most.
func ticks(most float64) []float64 {
	if most <= 0 {
		return []float64{0, 1}
	}
	step := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, times := range []float64{1, 2, 2.5, 5, 10} {
		if most/(step*times) <= 5 {
			step *= times
			break
		}
	}
	list := []float64{0}
	for list[len(list)-1] < most*0.999 {
		list = append(list, float64(len(list))*step)
	}
	return list
}
