// Command charts draws the committed results into docs/performance, and fills
// the tables of docs/performance.md and docs/scaling.md.
//
//	go run -C bench ./charts
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/halley-comet/halley/bench/scenario"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("charts: ")
	results := flag.String("results", "results", "folder of the results")
	docs := flag.String("docs", "../docs", "folder of the pages")
	flag.Parse()
	if err := write(*results, *docs); err != nil {
		log.Fatal(err)
	}
}

func write(results, docs string) error {
	files, err := generate(results, docs)
	if err != nil {
		return err
	}
	old, err := charts(docs)
	if err != nil {
		return err
	}
	for _, path := range old {
		if files[path] == nil {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for path, data := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// charts returns the paths of the charts that are there.
func charts(docs string) ([]string, error) {
	return filepath.Glob(filepath.Join(docs, "performance", "*.svg"))
}

// pages have a block for each scenario, on one of them.
var pages = []string{"performance.md", "scaling.md"}

// generate returns the pages and the charts by their paths.
func generate(results, docs string) (map[string][]byte, error) {
	newest, err := read(results)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	left := scenario.All()
	for _, name := range pages {
		path := filepath.Join(docs, name)
		page, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var there []scenario.Scenario
		left = slices.DeleteFunc(left, func(s scenario.Scenario) bool {
			here := strings.Contains(string(page), blockBegin+s.Name+" -->")
			if here {
				there = append(there, s)
			}
			return here
		})
		blocks, sources := map[string]string{}, map[string]*source{}
		for _, s := range there {
			source := newest[s.Name]
			var images []image
			if source != nil {
				sources[s.Name] = source
				for _, c := range draw(s.Name, newest) {
					files[filepath.Join(docs, "performance", c.name+".svg")] = []byte(c.svg)
					images = append(images, c.image)
				}
			}
			blocks[s.Name] = block(s, source, images)
		}
		blocks["machine"] = machines(sources)
		if files[path], err = fill(string(page), blocks); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("no page has a block %q", left[0].Name)
	}
	return files, nil
}
