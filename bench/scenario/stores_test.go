package scenario

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if Child() {
		return
	}
	// The race detector has each process wait for a second when it ends.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// TestStores runs each scenario of stores in small, and shows that nothing is
// lost and that its table has all its figures.
func TestStores(t *testing.T) {
	sizes := map[string]int{"publish-disk": 3, "opening": 100, "resume-storm": 20, "many-channels": 100, "nodes-publish": 3, "interest": 2000}
	for _, s := range All() {
		if s.Stores == nil {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			config := Config{Limit: 300 * time.Millisecond, Time: 50 * time.Millisecond, Messages: 2000}
			if n := sizes[s.Name]; n != 0 {
				config.Connections = []int{n}
			}
			dir := t.TempDir()
			prepared := map[string]Values{}
			got := map[string]bool{}
			for _, c := range s.Cases(config) {
				for _, k := range s.Stores.Kinds(c) {
					folder := k.Folder()
					config.Dir = filepath.Join(dir, folder)
					if s.Stores.Prepare != nil && prepared[folder] == nil {
						var err error
						if prepared[folder], err = s.PrepareStore(k, c, config); err != nil {
							t.Fatalf("%v %s: %v", c, k.Name, err)
						}
					}
					config.Prepared = prepared[folder]
					measures, err := s.RunStore(k, c, config)
					if err != nil {
						t.Fatalf("%v %s: %v", c, k.Name, err)
					}
					for _, m := range measures {
						if n, ok := m.Values["lost"]; !ok || n != 0 {
							t.Errorf("%v %s has lost %v (%v)", c, k.Name, n, ok)
						}
						for key := range m.Values {
							got[key] = true
						}
					}
					if s.Stores.Prepare == nil {
						os.RemoveAll(config.Dir)
					}
				}
			}
			for _, column := range s.Columns {
				if !got[column.Key] {
					t.Errorf("there is no %q", column.Key)
				}
				delete(got, column.Key)
			}
			for key := range got {
				t.Errorf("%q has no column", key)
			}
		})
	}
}

// TestTask shows that what goes wrong in a process of its own comes back.
func TestTask(t *testing.T) {
	s := Scenario{Name: "publish-disk", Stores: publishDisk.Stores}
	k := publishDisk.Stores.Kinds(Case{Transport: Synced})[0]
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RunStore(k, Case{Transport: Synced, Connections: 1}, Config{Dir: file}); err == nil {
		t.Error("a store was opened in a file")
	}
	s.Name = "no-such"
	if _, err := s.RunStore(k, Case{Transport: Synced}, Config{}); err == nil {
		t.Error("a scenario ran that is none")
	}
}
