package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A table is one of the page's, with its titles first.
type table struct {
	name string
	rows [][]string
}

// sizes are the numbers of clients that are planned for.
var sizes = []float64{1e6, 1e8}

// tables computes everything.
func tables(c *Costs, s Site) ([]table, error) {
	costs := table{"costs", [][]string{{"what", "value", "from"}}}
	for _, one := range c.list {
		costs.rows = append(costs.rows, []string{one.name, strings.TrimSpace(number(one.value, one.digits) + " " + one.unit), one.source})
	}

	shapes := table{"loads", [][]string{{"load", "what it is", "messages/s for 10⁶ clients", "for 10⁸", "clients that get a message, of 10⁶", "deliveries/s to 10⁶"}}}
	node := table{"node", [][]string{{"load", "clients of a node by its CPU", "by its line", "by its memory", "by handshakes, if a third of all nodes is killed"}}}
	for _, l := range loads() {
		cpu, line, memory := most(c, s, l)
		node.rows = append(node.rows, []string{
			l.Name, significant(cpu), significant(line), significant(memory),
			significant(handshaken(c, s)),
		})
	}
	first := table{"limits", [][]string{{"load", "what breaks in one log", "at clients", "that is nodes", "messages/s"}}}
	for _, l := range loads() {
		rate, mean := l.Rate(1e6), l.Mean(1e6)
		shapes.rows = append(shapes.rows, []string{
			l.Name, l.About, significant(rate), significant(l.Rate(1e8)), significant(mean), significant(rate * mean),
		})
		list := limits(c, s, l)
		slices.SortStableFunc(list, func(a, b limit) int {
			return int(math.Copysign(1, a.clients-b.clients))
		})
		for i, one := range list {
			name := l.Name
			if i > 0 {
				name = ""
			}
			if math.IsInf(one.clients, 1) {
				first.rows = append(first.rows, []string{name, one.name, "never", "–", "–"})
				continue
			}
			first.rows = append(first.rows, []string{
				name, one.name, significant(one.clients), significant(nodesFor(c, s, l, one.clients)), significant(l.Rate(one.clients)),
			})
		}
	}

	plans := table{"plans", [][]string{{
		"clients", "load", "logs", "nodes of each", "nodes in all", "NATS servers in all", "messages/s in a log", "clients of a node",
		"log's rate", "NATS servers' CPU", "their lines", "intake core", "CPU", "memory", "line to clients", "kept for",
	}}}
	runs := table{"runs", [][]string{{
		"clients", "load", "what happens", "p50 ms", "p99 ms", "p99.9 ms", "CPU of a node", "deliveries that are writes",
		"99 % are back, s", "all are back, s", "refusals a client", "waits in vain", "a publish waits, s", "until after, s",
	}}}
	for _, clients := range sizes {
		for _, l := range loads() {
			p, err := plan(c, s, l, clients)
			if err != nil {
				return nil, err
			}
			u := p.Use
			plans.rows = append(plans.rows, []string{
				power(clients), l.Name, significant(p.Logs), significant(p.Nodes), significant(p.Logs * p.Nodes), significant(p.Logs * servers),
				significant(p.Rate), significant(clients / p.Logs / p.Nodes),
				percent(u.LogRate), percent(p.Usually.Servers), percent(p.Usually.Lines), percent(u.Intake), percent(u.CPU), percent(u.Memory), percent(u.Egress),
				span(s.Disk / c.Stored / p.Rate),
			})
			outcomes := make([]Outcome, len(events))
			var wg sync.WaitGroup
			for i, event := range events {
				wg.Go(func() { outcomes[i] = simulate(c, s, p, event, 1) })
			}
			wg.Wait()
			for i, event := range events {
				o := outcomes[i]
				row := []string{
					power(clients), l.Name, eventNames[event],
					number(o.P50*1e3, 1), number(o.P99*1e3, 1), number(o.P999*1e3, 1), percent(o.CPU), percent(o.Writes), "–", "–", "–", "–", "–", "–",
				}
				if event == nodeDies || event == zoneDies || event == zoneSilent {
					row[8], row[9] = number(o.Back99, 1), number(o.Back, 1)
					row[10], row[11] = number(o.Refused, 2), number(o.GivenUp, 2)
				}
				if event == leaderDies {
					row[12], row[13] = number(o.Log, 1), number(o.Over, 1)
				}
				runs.rows = append(runs.rows, row)
			}
		}
	}
	return []table{costs, shapes, node, first, plans, runs}, nil
}

var events = []Event{nothing, nodeDies, zoneDies, zoneSilent, leaderDies}

var eventNames = map[Event]string{
	nothing: "nothing", nodeDies: "a node is killed", zoneDies: "a third of the nodes is killed", zoneSilent: "a third of the nodes is cut off", leaderDies: "the log's leader is killed",
}

// markdown is the table as the page has it.
func (t table) markdown() string {
	var b strings.Builder
	for i, row := range t.rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat(" --- |", len(row)))
		}
	}
	return b.String()
}

// A table of the page stands between these.
const (
	tableBegin = "<!-- computed: "
	tableEnd   = "<!-- end -->"
)

// fill puts the tables into the page.
func fill(page string, all []table) (string, error) {
	for _, t := range all {
		begin := tableBegin + t.name + " -->\n"
		before, rest, found := strings.Cut(page, begin)
		_, after, ended := strings.Cut(rest, tableEnd)
		if !found || !ended {
			return "", fmt.Errorf("the page has no table %q", t.name)
		}
		page = before + begin + t.markdown() + tableEnd + after
	}
	return page, nil
}

func number(v float64, digits int) string {
	text := strconv.FormatFloat(v, 'f', digits, 64)
	whole, part, _ := strings.Cut(text, ".")
	for at := len(whole) - 3; at > 0 && whole[at-1] != '-'; at -= 3 {
		whole = whole[:at] + "," + whole[at:]
	}
	if part != "" {
		whole += "." + part
	}
	return whole
}

// significant shows two digits that mean something, and small counts whole.
func significant(v float64) string {
	switch {
	case v < 1:
		return strconv.FormatFloat(v, 'g', 2, 64)
	case v < 1000:
		return number(v, 0)
	case v < 1e6:
		unit := math.Pow(10, math.Floor(math.Log10(v))-1)
		return number(math.Round(v/unit)*unit, 0)
	case v < 1e9:
		unit := math.Pow(10, math.Floor(math.Log10(v))-1)
		return strconv.FormatFloat(math.Round(v/unit)*unit/1e6, 'f', -1, 64) + " million"
	}
	return number(v/1e9, 1) + " billion"
}

func percent(v float64) string {
	if v > 0 && v < 0.01 {
		return "< 1 %"
	}
	return number(v*100, 0) + " %"
}

func power(v float64) string {
	digits := strings.NewReplacer("6", "⁶", "8", "⁸", "5", "⁵", "7", "⁷")
	return "10" + digits.Replace(strconv.Itoa(int(math.Round(math.Log10(v)))))
}

// span tells a number of seconds.
func span(seconds float64) string {
	switch {
	case seconds < 2*3600:
		return number(seconds/60, 0) + " min"
	case seconds < 2*86400:
		return number(seconds/3600, 0) + " h"
	}
	if seconds > 60*86400 {
		return "> 60 days"
	}
	return number(seconds/86400, 0) + " days"
}
