package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/browser"
	"github.com/halley-comet/halley/e2e/chaos"
)

// suite is the client's own test in one file (client/test/e2e), by entry. In
// pages it tests what the server serves; HALLEY_CLIENT=source bundles the
// client's source instead, as is done for Node.
var suite = func() func(entry string) ([]byte, error) {
	var mu sync.Mutex
	built := make(map[string][]byte)
	return func(entry string) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		if b := built[entry]; b != nil {
			return b, nil
		}
		folder, err := filepath.Abs("../client")
		if err != nil {
			return nil, err
		}
		module := filepath.Join(folder, "test", "e2e", "served.ts")
		arguments := []string{"--format=iife", "--platform=browser"}
		if entry == "node" {
			arguments = []string{"--format=esm", "--platform=node"}
		}
		if entry == "node" || os.Getenv("HALLEY_CLIENT") == "source" {
			module = filepath.Join(folder, "src", "index.ts")
		}
		output, err := esbuild(folder, append(arguments, filepath.Join(folder, "test", "e2e", entry+".ts"),
			"--alias:halley-client="+module, "--bundle", "--target=es2022", "--ignore-annotations", "--log-level=warning")...)
		if err != nil {
			return nil, err
		}
		built[entry] = output
		return output, nil
	}
}()

// esbuild runs the one that npm has installed in the client's folder, and
// returns what it builds.
func esbuild(folder string, arguments ...string) ([]byte, error) {
	path := filepath.Join(folder, "node_modules", ".bin", "esbuild")
	if _, err := os.Stat(path); err != nil {
		return nil, errors.New("esbuild is missing: run npm ci in client/")
	}
	build := exec.Command(path, arguments...)
	var problems bytes.Buffer
	build.Stderr = &problems
	output, err := build.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", build, err, &problems)
	}
	return output, nil
}

// A place is where the client runs: a tab, or Node.
type place interface {
	Eval(ctx context.Context, body string, result any) error
}

// site is a server behind a proxy, with one or more places that use it.
type site struct {
	t       *testing.T
	name    string // of the place
	server  *server
	proxy   *chaos.Proxy
	control string // URL of what places can ask of the network
	prepare string // what a page runs before the suite
	open    func(t *testing.T) place
}

// hosts is how many names the proxy has, so that each transport has one.
const hosts = 8

// everywhere runs test in Node and in every engine, all at once, each with a
// server and a proxy of its own.
func everywhere(t *testing.T, seed uint64, flags []string, test func(t *testing.T, s *site)) {
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("drives Node and real browsers: set HALLEY_E2E=1")
	}
	for _, name := range append([]string{"node"}, browser.Engines...) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newSite(t, name, seed, flags...))
		})
	}
}

// everyBrowser is everywhere without Node, for what only pages have.
func everyBrowser(t *testing.T, flags []string, test func(t *testing.T, s *site, b browser.Browser)) {
	inBrowsers(t, true, flags, test)
}

// oneByOne is everyBrowser where time is measured and other browsers would be
// in the way.
func oneByOne(t *testing.T, flags []string, test func(t *testing.T, s *site, b browser.Browser)) {
	inBrowsers(t, false, flags, test)
}

func inBrowsers(t *testing.T, parallel bool, flags []string, test func(t *testing.T, s *site, b browser.Browser)) {
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("drives real browsers: set HALLEY_E2E=1")
	}
	for _, name := range browser.Engines {
		t.Run(name, func(t *testing.T) {
			if parallel {
				t.Parallel()
			}
			s := newSite(t, name, 1, flags...)
			b, err := engines[name].Browser()
			if err != nil {
				t.Fatal(err)
			}
			test(t, s, b)
		})
	}
}

func newSite(t *testing.T, name string, seed uint64, flags ...string) *site {
	t.Helper()
	s := &site{t: t, name: name}
	if name != "node" {
		b, err := engines[name].Browser()
		if err != nil {
			t.Fatal(err)
		}
		s.open = func(t *testing.T) place { return s.page(t, newPage(t, b)) }
	} else {
		s.open = startNode
	}
	s.server = serve(t, flags...)
	proxy, err := chaos.Start(s.server.address, hosts, seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	s.proxy = proxy
	control := httptest.NewServer(s.controller())
	t.Cleanup(control.Close)
	s.control = control.URL
	return s
}

// mount is the protocol's at the proxy, by the name of that number.
func (s *site) mount(number int) string { return "http://" + s.proxy.Host(number) + "/comet" }

// page goes to the proxy's origin and gives the page the suite.
func (s *site) page(t *testing.T, p *page) place {
	t.Helper()
	p.navigate(s.mount(0) + "/info")
	s.install(p)
	return p.tab
}

// install gives the suite to a page.
func (s *site) install(p *page) {
	s.t.Helper()
	source, err := suite("suite")
	if err != nil {
		s.t.Fatal(err)
	}
	p.eval(s.prepare, nil)
	p.eval(`
		const script = document.createElement("script");
		script.src = "/comet/client.js";
		document.body.append(script);
		await new Promise((yes, no) => {
			script.onload = yes;
			script.onerror = () => no(new Error("client.js does not load"));
		});`, nil)
	p.eval(fmt.Sprintf(`
		const script = document.createElement("script");
		script.textContent = %s;
		document.body.append(script);`, quote(string(source))), nil)
}

// eval runs the body of an async function in a place.
func (s *site) eval(p place, body string, result any) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := p.Eval(ctx, body, result); err != nil {
		s.t.Fatal(err)
	}
}

// controller does for a place what only the test can.
func (s *site) controller() http.Handler {
	var mu sync.Mutex
	var ends []func()
	answers := map[string]func(r *http.Request) (any, error){
		"/begin": func(r *http.Request) (any, error) {
			end := s.proxy.Begin(chaos.Kind(r.FormValue("kind")))
			mu.Lock()
			defer mu.Unlock()
			ends = append(ends, end)
			return map[string]int{"id": len(ends) - 1}, nil
		},
		"/end": func(r *http.Request) (any, error) {
			var id int
			if _, err := fmt.Sscan(r.FormValue("id"), &id); err != nil {
				return nil, err
			}
			mu.Lock()
			end := ends[id]
			mu.Unlock()
			end()
			return nil, nil
		},
		"/cut":      func(r *http.Request) (any, error) { s.proxy.Break(r.FormValue("part")); return nil, nil },
		"/silence":  func(r *http.Request) (any, error) { s.proxy.Silence(r.FormValue("part")); return nil, nil },
		"/pending":  func(r *http.Request) (any, error) { return list(s.proxy.Pending(r.FormValue("part"))), nil },
		"/requests": func(r *http.Request) (any, error) { return list(s.proxy.Requests(r.FormValue("part"))), nil },
		"/info": func(r *http.Request) (any, error) {
			return s.forward(r.Context(), http.MethodGet, "/info", "", nil)
		},
		"/publish": func(r *http.Request) (any, error) {
			return s.forward(r.Context(), http.MethodPost, "/publish?"+r.URL.RawQuery, r.Header.Get("Content-Type"), r.Body)
		},
		// Numbers, as many as a batch may have.
		"/batch": func(r *http.Request) (any, error) {
			var from, count int
			if _, err := fmt.Sscan(r.FormValue("from"), &from); err != nil {
				return nil, err
			}
			if _, err := fmt.Sscan(r.FormValue("count"), &count); err != nil {
				return nil, err
			}
			var lines strings.Builder
			for i := range count {
				fmt.Fprintf(&lines, "{\"data\":%d}\n", from+i)
			}
			return s.forward(r.Context(), http.MethodPost, "/publish?"+url.Values{"channel": {r.FormValue("channel")}}.Encode(),
				"application/x-ndjson", strings.NewReader(lines.String()))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Headers", "Content-Type")
		w.Header().Set("Access-Control-Allow-Private-Network", "true")
		if r.Method == http.MethodOptions {
			return
		}
		do := answers[r.URL.Path]
		if do == nil {
			http.NotFound(w, r)
			return
		}
		value, err := do(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(value)
	})
}

// list is never null in JSON.
func list(texts []string) []string { return append([]string{}, texts...) }

// forward asks the server itself.
func (s *site) forward(ctx context.Context, method, path, contentType string, body io.Reader) (json.RawMessage, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.server.mount()+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", contentType)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	return answer, err
}

// node is a Node that evaluates what it is sent (client/test/e2e/node.ts).
type node struct {
	in io.Writer

	mu      sync.Mutex // guards writing and what follows
	last    int
	waiting map[int]chan<- nodeAnswer
}

type nodeAnswer struct {
	ID    int
	Value json.RawMessage
	Error *string
}

func startNode(t *testing.T) place {
	t.Helper()
	source, err := suite("node")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "suite.mjs")
	if err := os.WriteFile(program, source, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "node", "--expose-gc", program)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &node{in: in, waiting: make(map[int]chan<- nodeAnswer)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.read(out)
	}()
	t.Cleanup(func() {
		in.Close()
		<-done
		cmd.Wait()
	})
	return n
}

// read hands the answers to those who wait for them.
func (n *node) read(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var a nodeAnswer
		if json.Unmarshal(line, &a) != nil {
			continue
		}
		n.mu.Lock()
		if w := n.waiting[a.ID]; w != nil {
			w <- a
			delete(n.waiting, a.ID)
		}
		n.mu.Unlock()
	}
}

func (n *node) Eval(ctx context.Context, body string, result any) error {
	answer := make(chan nodeAnswer, 1)
	n.mu.Lock()
	n.last++
	line, err := json.Marshal(map[string]any{"id": n.last, "body": body})
	if err == nil {
		n.waiting[n.last] = answer
		_, err = n.in.Write(append(line, '\n'))
	}
	n.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case a := <-answer:
		if a.Error != nil {
			return &browser.ScriptError{Text: *a.Error}
		}
		if result == nil {
			return nil
		}
		if a.Value == nil {
			a.Value = []byte("null")
		}
		return json.Unmarshal(a.Value, result)
	case <-ctx.Done():
		return fmt.Errorf("node: %w", ctx.Err())
	}
}

// poll asks a place every 200 ms until done is content or the limit is over.
func (s *site) poll(p place, expression string, limit time.Duration, done func(answer json.RawMessage) bool) {
	s.t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		var answer json.RawMessage
		s.eval(p, "return "+expression+";", &answer)
		if done(answer) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: after %v it is %.3000s", expression, limit, answer)
		}
	}
}
