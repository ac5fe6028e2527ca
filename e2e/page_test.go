package e2e

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/browser"
)

// patience bounds every single step of a test.
const patience = 20 * time.Second

// page is a tab of one test, which fails when a step does.
type page struct {
	t      *testing.T
	engine string
	tab    browser.Tab
	opened *int   // streams so far
	close  func() // the tab, before the test's end
}

func newPage(t *testing.T, b browser.Browser) *page {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tab, err := b.NewTab(ctx)
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := tab.Close(ctx); err != nil {
			t.Errorf("close the tab: %v", err)
		}
	})
	t.Cleanup(end)
	return &page{t, b.Name(), tab, new(int), end}
}

// in is the same page for a subtest.
func (p *page) in(t *testing.T) *page { return &page{t, p.engine, p.tab, p.opened, p.close} }

// navigate goes to url, whose load must end.
func (p *page) navigate(url string) {
	p.t.Helper()
	p.step(func(ctx context.Context) error { return p.tab.Navigate(ctx, url) })
}

// eval runs the body of an async function in the page.
func (p *page) eval(body string, result any) {
	p.t.Helper()
	p.step(func(ctx context.Context) error { return p.tab.Eval(ctx, body, result) })
}

// screenshot returns what the page looks like, and as PNG.
func (p *page) screenshot() (image.Image, []byte) {
	p.t.Helper()
	var encoded []byte
	p.step(func(ctx context.Context) (err error) {
		encoded, err = p.tab.Screenshot(ctx)
		return err
	})
	picture, err := png.Decode(bytes.NewReader(encoded))
	if err != nil {
		p.t.Fatal(err)
	}
	return picture, encoded
}

// screen waits until the page looks right.
func (p *page) screen(right func(picture image.Image) bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		picture, encoded := p.screenshot()
		if right(picture) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the page never looks right; its last screenshot is in %s", p.keep("wrong", encoded))
		}
	}
}

// keep writes a screenshot to the directory that HALLEY_SHOTS names, or to one
// that is gone after the test.
func (p *page) keep(name string, encoded []byte) string {
	p.t.Helper()
	directory := os.Getenv("HALLEY_SHOTS")
	if directory == "" {
		directory = p.t.TempDir()
	} else if err := os.MkdirAll(directory, 0o755); err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(directory, p.engine+"-"+name+".png")
	if err := os.WriteFile(path, encoded, 0o644); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func (p *page) step(do func(ctx context.Context) error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := do(ctx); err != nil {
		p.t.Fatal(err)
	}
}

// scripts is what pages make of a subscription; stream.js comes first.
//
//go:embed page/*.js
var scripts embed.FS

func scriptNames() []string {
	names, err := fs.Glob(scripts, "page/*.js")
	if err != nil {
		panic(err) // the pattern is wrong
	}
	const first = "page/stream.js"
	return append([]string{first}, slices.DeleteFunc(names, func(name string) bool { return name == first })...)
}

// visit goes to a document of the server's own origin that is small and does
// nothing, and gives it the scripts.
func (p *page) visit(mount string) {
	p.t.Helper()
	p.navigate(mount + "/info")
	for _, name := range scriptNames() {
		source, err := scripts.ReadFile(name)
		if err != nil {
			p.t.Fatal(err)
		}
		p.eval(fmt.Sprintf(`
			const script = document.createElement("script");
			script.textContent = %s;
			document.body.append(script);`, quote(string(source))), nil)
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

// stream is a Stream in a page (page/stream.js).
type stream struct {
	*page
	name string // a JavaScript expression
}

// envelope is a message or a control as the page has it.
type envelope struct {
	ID          string          `json:"id"`
	Control     string          `json:"control"`
	Channel     string          `json:"channel"`
	Type        string          `json:"type"`
	Data        json.RawMessage `json:"data"`
	Data64      *string         `json:"data64"`
	ContentType string          `json:"contentType"`
	Heartbeat   float64         `json:"heartbeat"`
	Delay       float64         `json:"delay"`
	Ref         any             `json:"ref"`
}

// open subscribes to the channel news after cursor, in the named way, and
// waits until the server has confirmed it, where the way has that.
func (p *page) open(w way, mount, cursor string) stream {
	p.t.Helper()
	*p.opened++
	s := stream{p, fmt.Sprintf("streams.s%d", *p.opened)}
	p.eval(fmt.Sprintf(`open("s%d", %s, { base: %s, cursor: %s, types: ["said"] });`,
		*p.opened, quote(w.name), quote(mount), quote(cursor)), nil)
	if w.stream {
		s.until(`s.has("open")`)
	}
	return s
}

// on is the same stream for a subtest.
func (s stream) on(t *testing.T) stream { return stream{s.in(t), s.name} }

// until waits for a condition on the stream, s.
func (s stream) until(condition string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	err := s.tab.Eval(ctx, fmt.Sprintf(`await %s.until((s) => %s);`, s.name, condition), nil)
	if err != nil {
		var state json.RawMessage
		s.get(`({ messages: s.messages.length, last: s.messages.at(-1), controls: s.controls, events: s.events })`, &state)
		s.t.Fatalf("waiting for %s: %v; the page has %s", condition, err, state)
	}
}

// message waits for the message of that number, from 0.
func (s stream) message(number int) envelope {
	s.t.Helper()
	s.until(fmt.Sprintf("s.messages.length > %d", number))
	var e envelope
	s.get(fmt.Sprintf("s.messages[%d]", number), &e)
	return e
}

// get evaluates an expression on the stream, s.
func (s stream) get(expression string, result any) {
	s.t.Helper()
	s.eval(fmt.Sprintf("const s = %s; return %s;", s.name, expression), result)
}

// cursor is where the page would go on.
func (s stream) cursor() string {
	s.t.Helper()
	var cursor string
	s.get("s.cursor", &cursor)
	return cursor
}

// events is what the browser said of the connection.
func (s stream) events() []string {
	s.t.Helper()
	var events []string
	s.get("s.events", &events)
	return events
}

func (s stream) close() {
	s.t.Helper()
	s.eval(s.name+".close();", nil)
}
