// Command scaling plans Halley's nodes for a million clients and for a hundred
// million, from what was measured, and simulates what then happens.
//
//	go run -C bench ./scaling           prints the tables of docs/scaling.md
//	go run -C bench ./scaling -write    puts them there
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("scaling: ")
	results := flag.String("results", "results", "folder of the results")
	page := flag.String("page", "../docs/scaling.md", "the page that has the tables")
	write := flag.Bool("write", false, "write the tables into the page")
	flag.Float64Var(&site.Cores, "cores", site.Cores, "cores of a node")
	flag.Float64Var(&site.Clients, "clients", site.Clients, "clients of a node at most")
	flag.Float64Var(&site.Admit, "admit-rate", site.Admit, "clients that a node lets in in a second")
	flag.Parse()
	if err := run(*results, *page, *write); err != nil {
		log.Fatal(err)
	}
}

func run(results, page string, write bool) error {
	costs, err := read(results)
	if err != nil {
		return err
	}
	all, err := tables(costs, site)
	if err != nil {
		return err
	}
	if !write {
		for _, t := range all {
			fmt.Printf("\n%s\n\n%s", t.name, t.markdown())
		}
		return nil
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	filled, err := fill(string(text), all)
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(filled), 0o644)
}
