package halley_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Who imports the library gets a light import graph, and an engine can be
// written with the contract alone.
func TestImports(t *testing.T) {
	const module = "github.com/halley-comet/halley"
	// What Pebble and Prometheus bring along, which brings Pebble too. Only the
	// disk engine and the metrics may import them.
	pebble := []string{
		"github.com/cockroachdb/", "github.com/DataDog/zstd", "github.com/RaduBerinde/", "github.com/beorn7/perks/",
		"github.com/cespare/xxhash/", "github.com/getsentry/sentry-go", "github.com/getsentry/sentry-go/", "github.com/gogo/protobuf/",
		"github.com/golang/protobuf/", "github.com/golang/snappy", "github.com/klauspost/compress/", "github.com/kr/",
		"github.com/minio/minlz", "github.com/minio/minlz/", "github.com/pkg/errors",
		"github.com/rogpeppe/go-internal/fmtsort", "golang.org/x/exp/", "golang.org/x/sys/", "golang.org/x/text/",
	}
	prometheus := []string{
		"github.com/beorn7/perks/", "github.com/cespare/xxhash/", "github.com/munnerz/goautoneg", "github.com/prometheus/",
		"go.yaml.in/yaml/", "golang.org/x/sys/", "google.golang.org/protobuf/",
	}
	hub := []string{
		"/engine", "/internal/front", "/internal/handback", "/internal/pump", "/internal/socket", "/internal/transport", "/internal/wire",
		"github.com/gobwas/", "github.com/cespare/xxhash/", "golang.org/x/time/rate", "go.opentelemetry.io/otel/", // the API, not the SDK
	}
	for pkg, allowed := range map[string][]string{
		".":                    hub,
		"./auth":               {"", "/client", "/engine", "/internal/front", "/internal/handback", "/internal/pump", "/internal/socket", "/internal/transport", "/internal/wire", "github.com/gobwas/", "github.com/golang-jwt/", "github.com/MicahParks/", "github.com/hashicorp/golang-lru/", "golang.org/x/sync/singleflight", "golang.org/x/time/rate", "github.com/cespare/xxhash/", "go.opentelemetry.io/otel/"},
		"./bayeux":             slices.Concat([]string{""}, hub),
		"./engine":             nil,
		"./engine/memory":      {"/engine", "/engine/internal/bell"},
		"./engine/disk":        slices.Concat([]string{"/engine", "/engine/internal/bell"}, pebble, prometheus),
		"./engine/nats":        slices.Concat([]string{"/engine", "/engine/disk", "/engine/internal/bell", "github.com/nats-io/", "golang.org/x/crypto/"}, pebble, prometheus),
		"./metrics":            slices.Concat([]string{""}, hub, prometheus),
		"./internal/front":     {"/engine", "/internal/handback", "/internal/pump", "/internal/socket", "/internal/wire"},
		"./internal/handback":  nil,
		"./internal/socket":    nil,
		"./internal/wire":      {"/engine"},
		"./internal/pump":      {"/engine", "/internal/wire"},
		"./internal/transport": {"/engine", "/internal/handback", "/internal/pump", "/internal/socket", "/internal/wire", "github.com/gobwas/"},
	} {
		out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg).Output()
		if err != nil {
			t.Fatalf("%s: %v", pkg, err)
		}
		for _, dep := range strings.Fields(string(out)) {
			dep = strings.TrimPrefix(dep, module)
			if dep != strings.TrimPrefix(pkg, ".") && !slices.ContainsFunc(allowed, func(a string) bool {
				return dep == a || strings.HasSuffix(a, "/") && strings.HasPrefix(dep, a)
			}) {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
}
