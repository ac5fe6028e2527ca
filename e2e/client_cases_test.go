package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// few keeps five messages of some channels.
func few(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "halley.yaml")
	const config = "channels:\n  - pattern: few/**\n    retain-count: 5\n"
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// heartbeat is short, so that what is silent is found out soon.
const heartbeat = time.Second

// The client's tests (client/test/e2e/cases.ts) pass everywhere.
// HALLEY_CASES names a part of the names of those to run.
func TestClientCases(t *testing.T) {
	const channels = 30
	flags := []string{"--heartbeat", heartbeat.String(), "--config", few(t), "--max-channels", strconv.Itoa(channels)}
	everywhere(t, 1, flags, func(t *testing.T, s *site) {
		p := s.open(t)
		var mounts []string
		for i := range hosts {
			mounts = append(mounts, s.mount(i))
		}
		s.eval(p, "suite.start("+quote(map[string]any{
			"mount": mounts[0], "mounts": mounts, "control": s.control, "channels": channels,
			"only": os.Getenv("HALLEY_CASES"),
		})+");", nil)
		told := 0
		s.poll(p, "({ results: suite.results, done: suite.done })", 10*time.Minute, func(answer json.RawMessage) bool {
			var state struct {
				Results []struct {
					Name, Skipped, Error string
					Milliseconds         int
				}
				Done bool
			}
			if err := json.Unmarshal(answer, &state); err != nil {
				t.Fatal(err)
			}
			for _, r := range state.Results[told:] {
				t.Run(r.Name, func(t *testing.T) {
					switch {
					case r.Error != "":
						t.Errorf("after %d ms: %s", r.Milliseconds, r.Error)
					case r.Skipped != "":
						t.Skip(r.Skipped)
					}
				})
			}
			told = len(state.Results)
			return state.Done
		})
		if told == 0 {
			t.Error("no test has run")
		}
	})
}
