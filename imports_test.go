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
	// What Pebble brings along. Only the disk engine may import it.
	pebble := []string{
		"github.com/cockroachdb/", "github.com/DataDog/zstd", "github.com/RaduBerinde/", "github.com/beorn7/perks/",
		"github.com/cespare/xxhash/", "github.com/getsentry/sentry-go", "github.com/getsentry/sentry-go/", "github.com/gogo/protobuf/",
		"github.com/golang/protobuf/", "github.com/golang/snappy", "github.com/klauspost/compress/", "github.com/kr/",
		"github.com/matttproud/golang_protobuf_extensions/", "github.com/minio/minlz", "github.com/minio/minlz/", "github.com/pkg/errors",
		"github.com/prometheus/", "github.com/rogpeppe/go-internal/fmtsort", "golang.org/x/exp/", "golang.org/x/sys/", "golang.org/x/text/",
		"google.golang.org/protobuf/",
	}
	for pkg, allowed := range map[string][]string{
		".":                    {"/engine", "/internal/front", "/internal/handback", "/internal/pump", "/internal/socket", "/internal/transport", "/internal/wire", "github.com/gobwas/", "golang.org/x/time/rate"},
		"./auth":               {"", "/client", "/engine", "/internal/front", "/internal/handback", "/internal/pump", "/internal/socket", "/internal/transport", "/internal/wire", "github.com/gobwas/", "github.com/golang-jwt/", "github.com/MicahParks/", "github.com/hashicorp/golang-lru/", "golang.org/x/sync/singleflight", "golang.org/x/time/rate"},
		"./engine":             nil,
		"./engine/memory":      {"/engine", "/engine/internal/bell"},
		"./engine/disk":        append([]string{"/engine", "/engine/internal/bell"}, pebble...),
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
