package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/internal/natstest"
)

// newNATS returns a cluster of NATS servers behind some ports, which do not run
// yet. Their timeouts are those that NATS has by itself.
func newNATS(t *testing.T, ports []*port) []*program {
	t.Helper()
	path, err := natstest.Build()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var routes []string
	for _, p := range ports {
		routes = append(routes, fmt.Sprintf("nats://%s:6222", p.address))
	}
	var servers []*program
	for i, p := range ports {
		name := fmt.Sprint("nats-", i+1)
		config := filepath.Join(dir, name+".conf")
		text := fmt.Sprintf(`
server_name: %s
listen: "%[2]s:4222"
http: "%[2]s:8222"
jetstream { store_dir: %[3]q }
cluster { name: halley, listen: "%[2]s:6222", routes: [%[4]s] }
`, name, p.address, filepath.Join(dir, name), strings.Join(routes, ", "))
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, &program{t: t, name: name, port: p, args: []string{path, "--config", config}})
	}
	return servers
}

// ask gets JSON from an address, within a second.
func ask(url string, answer any) error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// leader returns the server that leads a stream, nil if no server knows, or
// with no stream named the one that leads JetStream.
func leader(servers []*program, stream string) *program {
	for _, s := range servers {
		var info struct {
			Meta struct {
				Leader string
			} `json:"meta_cluster"`
			Accounts []struct {
				Streams []struct {
					Name    string
					Cluster struct{ Leader string }
				} `json:"stream_detail"`
			} `json:"account_details"`
		}
		if ask(fmt.Sprintf("http://%s:8222/jsz?streams=1", s.port.address), &info) != nil {
			continue
		}
		name := ""
		if stream == "" {
			name = info.Meta.Leader
		}
		for _, a := range info.Accounts {
			for _, d := range a.Streams {
				if d.Name == stream {
					name = d.Cluster.Leader
				}
			}
		}
		for _, l := range servers {
			if l.name == name {
				return l
			}
		}
	}
	return nil
}
