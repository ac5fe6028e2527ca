// Command bench puts Halley and its peers under the same loads, in the same run
// on the same machine, and prints what each cost next to the least that any
// server needs.
//
//	go run -C bench . -scenario fanout -servers limit,halley,nchan
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/halley-comet/halley/bench/peers"
	"github.com/halley-comet/halley/bench/result"
	"github.com/halley-comet/halley/bench/scenario"
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal("bench: ", err)
	}
}

func run() error {
	var (
		names       = flag.String("scenario", "all", "scenarios, separated by commas")
		servers     = flag.String("servers", "limit,halley,plain-go,nchan,centrifuge", "servers, separated by commas, or all")
		connections = flag.String("connections", "", "numbers of connections, in place of each scenario's own")
		transports  = flag.String("transports", "", "transports of the scenario idle")
		runs        = flag.Int("runs", 5, "how often to run each; medians are shown")
		cpu         = flag.Duration("cpu", 2*time.Second, "CPU time that a server is to use while it is measured")
		limit       = flag.Duration("limit", 30*time.Second, "longest time of one measurement")
		volume      = flag.Int("volume", 1<<30, "bytes to publish to connections that never read")
		halley      = flag.String("halley", "", "a binary of Halley to take in place of building it")
		out         = flag.String("out", "results", "folder for the results; empty for none")
		list        = flag.Bool("list", false, "list scenarios and servers, and end")
	)
	flag.Parse()
	if *list {
		for _, s := range scenario.All() {
			fmt.Printf("%-14s %s\n", s.Name, s.About)
		}
		for _, p := range peers.All("") {
			fmt.Printf("%-14s %s\n", p.Name(), strings.Join(p.Transports(), " "))
		}
		return nil
	}
	config := scenario.Config{CPU: *cpu, Limit: *limit, Volume: *volume}
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
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	measured = install(file, measured, dir)
	for _, s := range chosen {
		measure(file, s, measured, config, *runs)
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
		if f.Name != "halley" && f.Name != "out" {
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
				if !s.Suits(p, c) {
					continue
				}
				begin := time.Now()
				measures, err := s.Run(p, c, config)
				log.Printf("%s %s %d %s, run %d of %d: %.1f s",
					s.Name, c.Transport, c.Connections, p.Name(), run+1, runs, time.Since(begin).Seconds())
				for _, m := range measures {
					row := file.Row(s.Name, p.Name(), c.Transport, c.Connections, m.Burst)
					row.Runs = append(row.Runs, m.Values)
					log.Printf("  %v", m.Values)
				}
				if err != nil {
					log.Printf("  failed: %v", err)
					file.Failures = append(file.Failures,
						fmt.Sprintf("%s, %s, %d connections: %v", s.Name, p.Name(), c.Connections, err))
				}
			}
		}
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
