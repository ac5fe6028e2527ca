package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/browser"
)

// What 100,000 messages of some 200 bytes may leave behind in a page
// (client/README.md says so). The heap is Chromium's own figure after a garbage
// collection. Of the others, and of Chromium too, there is the memory of all the
// browser's processes; none of them can be told to collect garbage there.
const (
	heapBound    = 4 << 20
	processBound = 150 << 20
)

// A fifth of the messages are sent unless HALLEY_CHAOS=full.
func TestClientMemory(t *testing.T) {
	const warm, batch, ahead = 5000, 500, 4000
	total := 20_000
	if os.Getenv("HALLEY_CHAOS") == "full" {
		total = 100_000
	}
	everyBrowser(t, []string{"--heartbeat", "5s"}, func(t *testing.T, s *site, b browser.Browser) {
		for i, transport := range []string{"xhr", "iframe", "fetch"} {
			t.Run(transport, func(t *testing.T) {
				s := &site{t: t, name: s.name, server: s.server, proxy: s.proxy}
				tr := &traffic{site: s, channels: []string{"memory/" + transport}}
				p := newPage(t, b)
				r := s.record(s.page(t, p), recording{Name: transport, Mount: s.mount(i), Transports: []string{transport},
					Channels: tr.channels, Cursor: s.server.cursor()})
				push := func(until int) {
					for tr.count() < until {
						if err := tr.batch(t.Context(), batch); err != nil {
							t.Fatal(err)
						}
						s.await([]*recorder{r}, 2*time.Minute, "messages", func(state recordState) bool {
							return state.Next >= tr.count()-ahead
						})
					}
					s.await([]*recorder{r}, 2*time.Minute, "every message", func(state recordState) bool { return state.Next >= until })
				}
				push(warm)
				heap, process := s.heap(p), processes(t, s.name)
				began := time.Now()
				push(warm + total)
				took := time.Since(began)
				heapAfter, processAfter := s.heap(p), processes(t, s.name)
				highest := processAfter
				// Engines collect garbage when they see fit, which is while little
				// comes rather than while nothing does.
				stop := tr.start(100)
				for end := time.Now().Add(time.Minute); processAfter-process > processBound && time.Now().Before(end); {
					processAfter = processes(t, s.name)
				}
				sent := stop()
				s.await([]*recorder{r}, patience, "every message", func(state recordState) bool { return state.Next >= sent })
				s.check([]*recorder{r}, sent)
				t.Logf("%s, %s: %d messages in %v; heap %+.1f MB, processes %+.0f MB, and %+.0f MB %v later; opened %v", s.name, transport, total,
					took.Round(100*time.Millisecond), megabytes(heapAfter-heap), megabytes(highest-process), megabytes(processAfter-process),
					(time.Since(began) - took).Round(time.Second), r.state().Opened)
				if heapAfter-heap > heapBound {
					t.Errorf("the heap grew by %.1f MB, want %.1f at most", megabytes(heapAfter-heap), megabytes(heapBound))
				}
				if processAfter-process > processBound {
					t.Errorf("the processes grew by %.0f MB, want %.0f at most", megabytes(processAfter-process), megabytes(processBound))
				}
				s.eval(p.tab, "suite.stop();", nil)
			})
		}
	})
}

func megabytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// heap is how many bytes a page's scripts and documents take after a garbage
// collection, or 0 where the engine doesn't tell.
func (s *site) heap(p *page) int64 {
	s.t.Helper()
	if p.engine != "chromium" {
		return 0
	}
	chromium := p.tab.(devTools)
	var usage struct{ UsedSize, EmbedderHeapUsedSize, BackingStorageSize float64 }
	p.step(func(ctx context.Context) error {
		for range 2 {
			if err := chromium.DevTools(ctx, "HeapProfiler.collectGarbage", struct{}{}, nil); err != nil {
				return err
			}
		}
		return chromium.DevTools(ctx, "Runtime.getHeapUsage", struct{}{}, &usage)
	})
	return int64(usage.UsedSize + usage.EmbedderHeapUsedSize + usage.BackingStorageSize)
}

// processes is the memory of an engine's processes, shared pages by parts
// (Pss, proc_pid_smaps(5)). It waits a moment for what is being freed.
func processes(t *testing.T, engine string) int64 {
	t.Helper()
	time.Sleep(2 * time.Second)
	children := make(map[int][]int)
	names := make(map[int]string)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state parent …", and a name may contain anything.
		open, shut := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
		fields := strings.Fields(string(text[shut+1:]))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:open])))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
		names[pid] = string(text[open+1 : shut])
	}
	first := map[string]string{"chromium": "chromedriver", "firefox": "firefox", "webkit": "WebKitWebDriver"}[engine]
	var sum int64
	var add func(pid int)
	add = func(pid int) {
		rollup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(rollup)) {
			var kilobytes int64
			if _, err := fmt.Sscanf(line, "Pss: %d kB", &kilobytes); err == nil {
				sum += kilobytes << 10
			}
		}
		for _, child := range children[pid] {
			add(child)
		}
	}
	for _, pid := range children[os.Getpid()] {
		if strings.HasPrefix(names[pid], first) {
			add(pid)
		}
	}
	if sum == 0 {
		t.Logf("no process of %s is found", engine)
	}
	return sum
}
