package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/bench/result"
	"github.com/halley-comet/halley/bench/scenario"
)

// TestCommitted shows that the page and its charts are what the committed
// results make.
func TestCommitted(t *testing.T) {
	const again = "go run -C bench ./charts makes it anew"
	files, err := generate("../results", "../../docs")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		if got, err := os.ReadFile(path); err != nil {
			t.Errorf("%v; %s", err, again)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s does not show the newest results; %s", path, again)
		}
	}
	there, err := charts("../../docs")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if files[path] == nil {
			t.Errorf("%s is of no results; %s", path, again)
		}
	}
}

// TestWrite makes a page of results of all scenarios, some of them in an older
// file, and removes the charts when they are gone.
func TestWrite(t *testing.T) {
	results, docs := t.TempDir(), t.TempDir()
	const machine = "<!-- generated: machine --><!-- end -->\n"
	page, other := "before\n"+machine, machine
	old, recent := &result.File{Date: time.Unix(0, 0)}, &result.File{Date: time.Unix(1e9, 0), Skipped: map[string]string{"nchan": "no <nginx> & co."}}
	for _, s := range scenario.All() {
		where := &page
		if s.Name == "storm" || s.Nodes {
			where = &other
		}
		*where += "<!-- generated: " + s.Name + " -->\nwhat was there\n<!-- end -->\n"
		add := func(f *result.File, server string, connections int, value float64) {
			for _, burst := range []int{1, 10} {
				values := scenario.Values{}
				for _, column := range s.Columns {
					values[column.Key] = value
				}
				row := f.Row(s.Name, server, "sse", connections, burst)
				row.Runs = append(row.Runs, values)
				if s.Name == "restart" || s.Name == "nodes-kill" {
					row.Curves = append(row.Curves, []float64{0, value, 2 * value})
				}
			}
		}
		add(old, "limit", 1000, 777)
		if s.Name == "storm" {
			continue
		}
		add(recent, "limit", 1000, 1)
		add(recent, "halley", 1000, 1.5)
		add(recent, "halley", 15000, 0)
		add(recent, "<&>", 200, 1234567)
	}
	for name, f := range map[string]*result.File{"2.json": old, "1.json": recent} {
		f.Summarise()
		if err := f.Write(filepath.Join(results, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"performance.md": page, "scaling.md": other} {
		if err := os.WriteFile(filepath.Join(docs, name), []byte(text+"after\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := write(results, docs); err != nil {
		t.Fatal(err)
	}
	var text string
	for _, name := range pages {
		got, err := os.ReadFile(filepath.Join(docs, name))
		if err != nil {
			t.Fatal(err)
		}
		text += string(got)
		// The older file is that of storm, which is on the second page.
		if strings.Contains(string(got), "[2.json]") != (name == "scaling.md") {
			t.Errorf("%s tells of the wrong files:\n%s", name, got)
		}
	}
	if !strings.HasPrefix(text, "before\n") || !strings.HasSuffix(text, "after\n") || strings.Contains(text, "what was there") {
		t.Errorf("what is around the blocks has changed:\n%s", text)
	}
	if got := strings.Count(text, "777"); strings.Count(block(named(t, "storm"), &source{File: old}, nil), "777") != got {
		t.Errorf("777, of an older file, is there %d times, want it for storm only", got)
	}
	made, err := charts(docs)
	if err != nil {
		t.Fatal(err)
	}
	if len(made) < 12 {
		t.Errorf("%d charts were made", len(made))
	}
	for _, path := range made {
		if !strings.Contains(text, "(performance/"+filepath.Base(path)+")") {
			t.Errorf("the page does not show %s", path)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(bytes.NewReader(data)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		if bytes.Contains(data, []byte("NaN")) || bytes.Contains(data, []byte("Inf")) {
			t.Errorf("%s has a place that is no number", path)
		}
	}

	if err := write(t.TempDir(), docs); err != nil {
		t.Fatal(err)
	}
	if made, _ := charts(docs); len(made) > 0 {
		t.Errorf("without results there are %q", made)
	}
}

func named(t *testing.T, name string) scenario.Scenario {
	t.Helper()
	for _, s := range scenario.All() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no %s", name)
	return scenario.Scenario{}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0123: "0.012", 0.95: "0.950", 8.3: "8.30", 16.14: "16.1", 66: "66", 999.6: "1,000", 27300: "27,300", 1234567: "1,234,567", -120: "-120", -1234: "-1,234",
	} {
		if got := figure(v); got != want {
			t.Errorf("figure(%v) is %s, want %s", v, got, want)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, most := range []float64{0.013, 1, 24.5, 100, 519, 27300, 1e6} {
		list := ticks(most)
		if n := len(list); n < 3 || n > 7 || list[n-1] < most*0.999 {
			t.Errorf("ticks(%v) is %v", most, list)
		}
	}
}
