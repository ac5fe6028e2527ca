package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/halley-comet/halley/e2e/process"
	"github.com/halley-comet/halley/internal/natstest"
)

// halley is the path of the command, built for this run unless HALLEY_BINARY
// names one.
var halley = sync.OnceValues(func() (string, error) {
	if built := os.Getenv("HALLEY_BINARY"); built != "" {
		return built, nil
	}
	program := filepath.Join(scratch, "halley")
	build := exec.Command("go", "build", "-o", program, "github.com/halley-comet/halley/cmd/halley")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, output)
	}
	return program, nil
})

// server is one `halley serve`, with a log of its own: in memory, or on a NATS
// server if HALLEY_E2E_ENGINE is nats.
type server struct {
	t       *testing.T
	scheme  string
	address string
	process *process.Process
}

// serve starts a server on a port that it picks itself.
func serve(t *testing.T, flags ...string) *server {
	t.Helper()
	program, err := halley()
	if err != nil {
		t.Fatal(err)
	}
	arguments := append([]string{"serve", "--listen", "127.0.0.1:0"}, engine(t)...)
	arguments = append(arguments, flags...)
	p, err := process.Start(exec.Command(program, arguments...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ready, err := p.Await(ctx, regexp.MustCompile(`ready at \w+://(127\.0\.0\.1:[1-9]\d*)`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if fault := regexp.MustCompile(`DATA RACE|panic`).FindString(p.Output()); fault != "" {
			t.Errorf("the server printed %q", fault)
		}
		if t.Failed() {
			t.Logf("the server printed:\n%s", p.Output())
		}
	})
	return &server{t: t, scheme: "http", address: ready[1], process: p}
}

// engine returns the flags that say where a server's log is.
func engine(t *testing.T) []string {
	t.Helper()
	switch name := os.Getenv("HALLEY_E2E_ENGINE"); name {
	case "":
		return []string{"--engine", "memory"}
	case "nats":
		s := natstest.Start(t, t.TempDir(), "")
		return []string{"--engine", name, "--nats-url", s.URL, "--nats-replicas", "1", "--data-dir", t.TempDir()}
	default:
		t.Fatalf("HALLEY_E2E_ENGINE is %q, not nats", name)
		return nil
	}
}

// url is that of a path at the server.
func (s *server) url(path string) string { return s.scheme + "://" + s.address + path }

// mount is the URL that the paths of the protocol are below.
func (s *server) mount() string { return s.url("/comet") }

// client takes the server's certificate, which nobody signed, for good.
var client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

// do carries out one request and decodes its JSON answer.
func (s *server) do(request *http.Request, answer any) {
	s.t.Helper()
	response, err := client.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %s: %s: %s", request.Method, request.URL, response.Status, body)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		s.t.Fatalf("%s %s: %v: %s", request.Method, request.URL, err, body)
	}
}

// cursor is the log's end.
func (s *server) cursor() string {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.mount()+"/info", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	var info struct{ Cursor string }
	s.do(request, &info)
	return info.Cursor
}

// body is what is published: a message's data with its types.
type body struct {
	kind        string // the message's own type; may be empty
	contentType string
	data        []byte
}

func text(data string) body {
	return body{contentType: "text/plain; charset=utf-8", data: []byte(data)}
}

// publish publishes to the channel news and returns the message's id.
func (s *server) publish(b body) string {
	s.t.Helper()
	query := url.Values{"channel": {"news"}}
	if b.kind != "" {
		query.Set("type", b.kind)
	}
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost,
		s.mount()+"/publish?"+query.Encode(), bytes.NewReader(b.data))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", b.contentType)
	var answer struct{ ID string }
	s.do(request, &answer)
	return answer.ID
}
