package metrics_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/metrics"
)

// newRegistry returns the metrics of a hub that has been in use.
func newRegistry(t *testing.T, log metrics.LogStats) (*prometheus.Registry, *halley.Hub) {
	t.Helper()
	e, err := memory.New(memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hub, err := halley.New(e, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = hub.Close(), e.Close() }) // they return nil
	for _, channel := range []string{"a", "a//b"} {
		w := httptest.NewRecorder()
		hub.ServeHTTP(w, httptest.NewRequest("POST", "http://localhost/comet/publish?channel="+channel, strings.NewReader("hello")))
		if (w.Code == http.StatusOK) != (channel == "a") {
			t.Fatalf("publish to %s: %d %s", channel, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	hub.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/comet/subscribe?channel=a&cursor=earliest&timeout=0", nil))
	sub, err := hub.Subscribe(context.Background(), halley.SubscribeOptions{Channels: []string{"a"}, Earliest: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Close() })
	if _, err := sub.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.New(hub), metrics.NewLog(func() metrics.LogStats { return log }), metrics.NewBayeux(func() int { return 0 }))
	return registry, hub
}

// stopped has all that a log may tell of itself.
var stopped = metrics.LogStats{
	Messages: 3, Bytes: 40, Stopped: errors.New("full"), Disk: &metrics.DiskStats{Bytes: 500, CompactionDebt: 6},
	Stream: &metrics.StreamStats{Away: errors.New("no quorum"), Behind: 7, Followed: 1, Received: 3},
}

// TestLint holds the names to the conventions of Prometheus.
func TestLint(t *testing.T) {
	registry, _ := newRegistry(t, stopped)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestValues(t *testing.T) {
	registry, hub := newRegistry(t, stopped)
	want := `
# HELP halley_connections Subscriptions that are held.
# TYPE halley_connections gauge
halley_connections{transport="go"} 1
halley_connections{transport="iframe"} 0
halley_connections{transport="jsonp"} 0
halley_connections{transport="long-polling"} 0
halley_connections{transport="multipart"} 0
halley_connections{transport="sse"} 0
halley_connections{transport="websocket"} 0
halley_connections{transport="xhr-streaming"} 0
# HELP halley_connections_ended_total Subscriptions that ended, and why: a word or the code of the problem that the client was told.
# TYPE halley_connections_ended_total counter
halley_connections_ended_total{reason="answered",transport="long-polling"} 1
# HELP halley_published_bytes_total Bytes of data of the messages that were stored.
# TYPE halley_published_bytes_total counter
halley_published_bytes_total 5
# HELP halley_ready 1 while subscribers and publishers are taken, 0 while draining or once the engine has stopped.
# TYPE halley_ready gauge
halley_ready 1
# HELP halley_log_stopped 1 once the log takes no messages until it is opened again.
# TYPE halley_log_stopped gauge
halley_log_stopped 1
# HELP halley_log_compaction_debt_bytes Estimate of the bytes on disk that are to be compacted: it rises where the disk does not keep up.
# TYPE halley_log_compaction_debt_bytes gauge
halley_log_compaction_debt_bytes 6
# HELP halley_stream_away 1 while this node does not follow the cluster's stream, so that it takes no messages.
# TYPE halley_stream_away gauge
halley_stream_away 1
# HELP halley_stream_behind Positions that this node is behind the end of the cluster's stream.
# TYPE halley_stream_behind gauge
halley_stream_behind 7
`
	names := []string{"halley_connections", "halley_connections_ended_total", "halley_published_bytes_total", "halley_ready", "halley_log_stopped", "halley_log_compaction_debt_bytes", "halley_stream_away", "halley_stream_behind"}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		switch m := f.GetMetric()[0]; f.GetName() {
		case "halley_publish_duration_seconds", "halley_engine_append_duration_seconds":
			h := m.GetHistogram()
			last := uint64(0)
			for _, b := range h.GetBucket() {
				if b.GetCumulativeCount() < last {
					t.Errorf("%s: buckets go down: %v", f.GetName(), h)
				}
				last = b.GetCumulativeCount()
			}
			if h.GetSampleCount() != 1 || last != 1 || h.GetSampleSum() <= 0 || h.GetSampleSum() > 10 {
				t.Errorf("%s: %v", f.GetName(), h)
			}
		}
	}
	_ = hub.Drain(t.Context())
	want = "# HELP halley_ready 1 while subscribers and publishers are taken, 0 while draining or once the engine has stopped.\n# TYPE halley_ready gauge\nhalley_ready 0\n"
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "halley_ready"); err != nil {
		t.Error(err)
	}
}

// registered returns the names of all metrics, and what kind each is.
func registered(t *testing.T) map[string]string {
	registry, _ := newRegistry(t, stopped)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, f := range families {
		names[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	// What has no value yet is described all the same.
	described := make(chan *prometheus.Desc, 100)
	registry.Describe(described)
	close(described)
	for d := range described {
		name := regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(d.String())[1]
		if names[name] == "" {
			t.Errorf("%s is described and not collected", name)
		}
	}
	return names
}

// TestListed wants docs/operations.md to list every metric, and no others.
func TestListed(t *testing.T) {
	doc, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(halley_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(doc), -1) {
		listed[row[1]] = row[2]
	}
	if want := registered(t); !maps.Equal(listed, want) {
		t.Errorf("docs/operations.md lists %v\nregistered are %v", listed, want)
	}
}

// TestDashboard wants every metric that the dashboards ask for to exist.
func TestDashboard(t *testing.T) {
	names := registered(t)
	files, err := fs.Glob(os.DirFS("../deploy/grafana"), "*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	used := map[string]bool{}
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join("../deploy/grafana", file))
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			Title, UID string
			Panels     []struct {
				ID      int
				Title   string
				Type    string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(b, &dashboard); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if dashboard.Title == "" || dashboard.UID == "" {
			t.Errorf("%s has no title or uid", file)
		}
		ids := map[int]bool{}
		for _, p := range dashboard.Panels {
			if ids[p.ID] || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("%s: panel %d %q has another's id, no title or no query", file, p.ID, p.Title)
			}
			ids[p.ID] = true
			for _, target := range p.Targets {
				for _, name := range regexp.MustCompile(`\bhalley_\w+`).FindAllString(target.Expr, -1) {
					if base, ok := strings.CutSuffix(name, "_bucket"); ok && names[base] == "histogram" {
						name = base
					}
					if names[name] == "" {
						t.Errorf("%s: %q asks for %s, which there is not", file, p.Title, name)
					}
					used[name] = true
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !used[name] {
			t.Errorf("no dashboard shows %s", name)
		}
	}
}
