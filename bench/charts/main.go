// Command charts draws the committed results into docs/performance, and fills
// the tables of docs/performance.md.
//
//	go run -C bench ./charts
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"github.com/halley-comet/halley/bench/scenario"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("charts: ")
	results := flag.String("results", "results", "folder of the results")
	docs := flag.String("docs", "../docs", "folder of performance.md")
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

// generate returns the page and the charts by their paths.
func generate(results, docs string) (map[string][]byte, error) {
	newest, err := read(results)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(docs, "performance.md")
	page, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	blocks := map[string]string{"machine": machines(newest)}
	for _, s := range scenario.All() {
		source := newest[s.Name]
		var images []image
		if source != nil {
			for _, c := range draw(s.Name, newest) {
				files[filepath.Join(docs, "performance", c.name+".svg")] = []byte(c.svg)
				images = append(images, c.image)
			}
		}
		blocks[s.Name] = block(s, source, images)
	}
	files[path], err = fill(string(page), blocks)
	return files, err
}
