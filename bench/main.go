// Command bench puts Halley and its peers under the same loads, in the same run
// on the same machine, and prints what each cost next to the least that any
// server needs. Scenarios of stores do it with Halley's log on disk and others.
//
//	go run -C bench . -scenario fanout -servers limit,halley,nchan
//	go run -C bench . -scenario publish-disk -stores halley-group,pebble
//	go run -C bench . -scenario nodes-latency,nodes-kill
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/halley-comet/halley/bench/peers"
	"github.com/halley-comet/halley/bench/result"
	"github.com/halley-comet/halley/bench/scenario"
	"github.com/halley-comet/halley/bench/stores"
)

func main() {
	log.SetFlags(0)
	if scenario.Child() {
		return
	}
	if err := run(); err != nil {
		log.Fatal("bench: ", err)
	}
}

func run() error {
	var (
		names       = flag.String("scenario", "all", "scenarios, separated by commas")
		servers     = flag.String("servers", "limit,halley,plain-go,nchan,centrifuge,halley-nodes,centrifuge-redis", "servers, separated by commas, or all")
		kinds       = flag.String("stores", "all", "stores, separated by commas, of the scenarios that compare them")
		connections = flag.String("connections", "", "numbers of connections, publishers or channels, in place of each scenario's own")
		transports  = flag.String("transports", "", "transports of the scenario idle, or attacks of siege")
		runs        = flag.Int("runs", 5, "how often to run each; medians are shown")
		cpu         = flag.Duration("cpu", 2*time.Second, "CPU time that a server is to use while it is measured")
		limit       = flag.Duration("limit", 30*time.Second, "longest time of one measurement")
		volume      = flag.Int("volume", 1<<30, "bytes to publish to connections that never read")
		messages    = flag.Int("messages", 0, "messages that are stored, in place of each scenario's own")
		span        = flag.Duration("time", 3*time.Second, "how long publishing to stores is measured")
		dir         = flag.String("dir", os.TempDir(), "folder for what stores write")
		halley      = flag.String("halley", "", "a binary of Halley to take in place of building it")
		out         = flag.String("out", "results", "folder for the results; empty for none")
		list        = flag.Bool("list", false, "list scenarios and servers, and end")
	)
	flag.Parse()
	if *list {
		for _, s := range scenario.All() {
			fmt.Printf("%-14s %s\n", s.Name, s.About)
			if s.Stores != nil {
				fmt.Printf("%-14s compares %s\n", "", strings.Join(s.StoreNames(), ", "))
			}
		}
		for _, p := range peers.All("") {
			fmt.Printf("%-14s %s\n", p.Name(), strings.Join(p.Transports(), " "))
		}
		return nil
	}
	config := scenario.Config{CPU: *cpu, Limit: *limit, Volume: *volume, Messages: *messages, Time: *span, Dir: *dir}
	for _, text := range split(*connections) {
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		config.Connections = append(config.Connections, n)
	}
	config.Transports = split(*transports)
	chosen, err := choose(*names, scenario.All(), func(s scenario.Scenario) string { return s.Name })
	if err != nil {
		return err
	}
	var known []string
	for _, s := range chosen {
		known = append(known, s.StoreNames()...)
	}
	compared, err := choose(*kinds, known, func(name string) string { return name })
	if err != nil {
		return err
	}
	measured, err := choose(*servers, peers.All(*halley), peers.Peer.Name)
	if err != nil {
		return err
	}

	file := &result.File{
		Date:     time.Now().UTC().Truncate(time.Second),
		Machine:  result.ThisMachine(),
		Command:  command(),
		Load:     result.LoadAverage(),
		Versions: map[string]string{},
		Skipped:  map[string]string{},
	}
	built, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(built)
	measured = slices.DeleteFunc(measured, func(p peers.Peer) bool {
		_, nodes := p.(peers.Nodes)
		return !slices.ContainsFunc(chosen, func(s scenario.Scenario) bool { return s.Stores == nil && s.Nodes == nodes })
	})
	measured = install(file, measured, built)
	for _, s := range chosen {
		if s.Stores == nil {
			measure(file, s, measured, config, *runs)
		} else if err := compare(file, s, compared, config, *dir, *runs); err != nil {
			return err
		}
	}
	file.Summarise()
	file.Print(os.Stdout)
	if *out == "" {
		return nil
	}
	path := filepath.Join(*out, file.Date.Format("2006-01-02-150405")+"-"+strings.ReplaceAll(*names, ",", "-")+".json")
	fmt.Printf("\n%s\n", path)
	return file.Write(path)
}

// command is the command that was given, without the names of files.
func command() string {
	text := "go run -C bench ."
	flag.Visit(func(f *flag.Flag) {
		if f.Name != "halley" && f.Name != "out" && f.Name != "dir" {
			text += " -" + f.Name + " " + f.Value.String()
		}
	})
	return text
}

// install builds the servers, and leaves out those that it cannot.
func install(file *result.File, all []peers.Peer, dir string) []peers.Peer {
	var installed []peers.Peer
	for _, p := range all {
		if err := p.Install(dir); err != nil {
			file.Skipped[p.Name()] = err.Error()
			log.Printf("%s is left out: %v", p.Name(), err)
			continue
		}
		file.Versions[p.Name()] = p.Version()
		installed = append(installed, p)
	}
	return installed
}

// measure runs a scenario. The servers take turns, so that what else the
// machine does meets them all alike.
func measure(file *result.File, s scenario.Scenario, all []peers.Peer, config scenario.Config, runs int) {
	for _, c := range s.Cases(config) {
		for run := range runs {
			for _, p := range all {
				if !s.Fits(p, c) {
					continue
				}
				begin := time.Now()
				measures, err := s.Run(p, c, config)
				log.Printf("%s %s %d %s, run %d of %d: %.1f s",
					s.Name, c.Transport, c.Connections, p.Name(), run+1, runs, time.Since(begin).Seconds())
				note(file, s, c, p.Name(), measures, err)
			}
		}
	}
}

// compare runs a scenario of stores, which take turns likewise.
func compare(file *result.File, s scenario.Scenario, names []string, config scenario.Config, parent string, runs int) error {
	for cases := s.Cases(config); len(cases) > 0; {
		together := s.Together(cases)
		dir, err := os.MkdirTemp(parent, "bench")
		if err != nil {
			return err
		}
		compareIn(dir, file, s, together, names, config, runs)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		cases = cases[len(together):]
	}
	return nil
}

// compareIn runs cases that share a folder, and in it what was prepared.
func compareIn(dir string, file *result.File, s scenario.Scenario, cases []scenario.Case, names []string, config scenario.Config, runs int) {
	prepared := map[string]scenario.Values{}
	failed := map[string]bool{}
	for _, c := range cases {
		kinds := slices.DeleteFunc(s.Stores.Kinds(c), func(k stores.Kind) bool { return !slices.Contains(names, k.Name) })
		for _, k := range kinds {
			file.Versions[k.Name] = k.Version()
			folder := k.Folder()
			if s.Stores.Prepare == nil || prepared[folder] != nil || failed[folder] {
				continue
			}
			begin := time.Now()
			config.Dir = filepath.Join(dir, folder)
			values, err := s.PrepareStore(k, c, config)
			log.Printf("%s %d %s is prepared: %.1f s", s.Name, c.Connections, k.Name, time.Since(begin).Seconds())
			if prepared[folder] = values; err != nil {
				failed[folder] = true
				note(file, s, c, k.Name, nil, err)
			}
		}
		for run := range runs {
			for _, k := range kinds {
				folder := k.Folder()
				if failed[folder] {
					continue
				}
				begin := time.Now()
				config.Dir, config.Prepared = filepath.Join(dir, folder), prepared[folder]
				measures, err := s.RunStore(k, c, config)
				log.Printf("%s %s %d %s, run %d of %d: %.1f s",
					s.Name, c.Transport, c.Connections, k.Name, run+1, runs, time.Since(begin).Seconds())
				note(file, s, c, k.Name, measures, err)
				if s.Stores.Prepare == nil {
					os.RemoveAll(config.Dir)
				}
			}
		}
	}
}

// note adds what one run has brought.
func note(file *result.File, s scenario.Scenario, c scenario.Case, name string, measures []scenario.Measure, err error) {
	for _, m := range measures {
		row := file.Row(s.Name, name, c.Transport, c.Connections, m.Burst)
		row.Runs = append(row.Runs, m.Values)
		if m.Curve != nil {
			row.Curves = append(row.Curves, m.Curve)
		}
		log.Printf("  %v", m.Values)
	}
	if err != nil {
		log.Printf("  failed: %v", err)
		file.Failures = append(file.Failures, fmt.Sprintf("%s, %s, %d %s: %v", s.Name, name, c.Connections, s.SizesTitle(), err))
	}
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// choose returns those that a list names, in the order of all.
func choose[T any](list string, all []T, name func(T) string) ([]T, error) {
	if list == "all" {
		return all, nil
	}
	wanted := map[string]bool{}
	for _, n := range split(list) {
		wanted[n] = true
	}
	var chosen []T
	for _, one := range all {
		if wanted[name(one)] {
			chosen = append(chosen, one)
			delete(wanted, name(one))
		}
	}
	for n := range wanted {
		return nil, fmt.Errorf("there is no %q", n)
	}
	return chosen, nil
}
