package bayeux

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// patience bounds every single step of a test.
const patience = 25 * time.Second

// packages installs what package.json names, unless that was done since the
// lock file was changed.
var packages = sync.OnceValue(func() error { return install(".") })

func install(folder string) error {
	lock, err := os.Stat(folder + "/package-lock.json")
	if err != nil {
		return err
	}
	if done, err := os.Stat(folder + "/node_modules/.package-lock.json"); err == nil && !done.ModTime().Before(lock.ModTime()) {
		return nil
	}
	npm := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
	npm.Dir = folder
	if output, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in %s: %w\n%s", npm, folder, err, output)
	}
	return nil
}

// A place is where clients run: Node, or a tab.
type place struct {
	t    *testing.T
	name string
	js   interface {
		Eval(ctx context.Context, body string, result any) error
	}
}

func (p *place) in(t *testing.T) *place { return &place{t, p.name, p.js} }

// eval runs the body of an async function there, which finds clients.mjs in
// the variable suite.
func (p *place) eval(body string, result any) {
	p.t.Helper()
	p.evalFor(patience, body, result)
}

func (p *place) evalFor(limit time.Duration, body string, result any) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), limit)
	defer cancel()
	if err := p.js.Eval(ctx, body, result); err != nil {
		p.t.Fatal(err)
	}
}

// quote makes a JavaScript literal.
func quote(value any) string {
	literal, err := json.Marshal(value)
	if err != nil {
		panic(err) // tests quote text and maps of text
	}
	return string(literal)
}

// node is a Node that evaluates what it is sent (node.mjs).
type node struct {
	in io.Writer

	mu      sync.Mutex // guards writing and what follows
	last    int
	waiting map[int]chan<- answer
	gone    bool
}

type answer struct {
	ID    int
	Value json.RawMessage
	Error *string
}

// inNode starts a Node of the test's own.
func inNode(t *testing.T) *place {
	t.Helper()
	needed(t)
	cmd := exec.CommandContext(t.Context(), "node", "node.mjs")
	var said bytes.Buffer
	cmd.Stderr = &said
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
	n := &node{in: in, waiting: make(map[int]chan<- answer)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.read(out)
	}()
	t.Cleanup(func() {
		_ = in.Close() // it ends then
		<-done
		_ = cmd.Wait() // it may have been killed
		if t.Failed() && said.Len() > 0 {
			t.Logf("node printed:\n%.4000s", &said)
		}
	})
	return &place{t, "node", n}
}

func (n *node) read(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		n.mu.Lock()
		if err != nil {
			n.gone = true
			for _, to := range n.waiting {
				close(to)
			}
			n.mu.Unlock()
			return
		}
		var a answer
		if json.Unmarshal(line, &a) == nil && n.waiting[a.ID] != nil {
			n.waiting[a.ID] <- a
			delete(n.waiting, a.ID)
		}
		n.mu.Unlock()
	}
}

func (n *node) Eval(ctx context.Context, body string, result any) error {
	got := make(chan answer, 1)
	n.mu.Lock()
	if n.gone {
		n.mu.Unlock()
		return errors.New("node has ended")
	}
	n.last++
	n.waiting[n.last] = got
	_, err := fmt.Fprintf(n.in, "{\"id\":%d,\"body\":%s}\n", n.last, quote(body))
	n.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case a, ok := <-got:
		switch {
		case !ok:
			return errors.New("node has ended")
		case a.Error != nil:
			return errors.New(*a.Error)
		case result == nil:
			return nil
		}
		return json.Unmarshal(a.Value, result)
	case <-ctx.Done():
		return fmt.Errorf("%w: %.200s", ctx.Err(), body)
	}
}

// needed skips a test unless it was asked for, and installs what it needs.
func needed(t *testing.T) {
	t.Helper()
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("drives Node and real browsers: set HALLEY_E2E=1")
	}
	if err := packages(); err != nil {
		t.Fatal(err)
	}
}
