// Package browser drives three browser engines for tests, each as its own
// program, headless: Chromium and WebKitGTK by WebDriver, Firefox by WebDriver
// BiDi. script/browsers installs them.
//
// A page whose load never ends must not be navigated to: WebDriver waits for
// the load and holds every other command of the browser until then.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// A Browser is one running program. Its methods and those of its tabs may be
// called from any goroutine; commands of Chromium and WebKit are carried out
// one after the other, so that a pending Eval holds up the other tabs.
type Browser interface {
	// Name is the engine: chromium, firefox or webkit.
	Name() string
	// Version is the browser's own number, e.g. 153.7.0.
	Version() string
	// NewTab opens about:blank in a new tab, in front of the others.
	NewTab(ctx context.Context) (Tab, error)
	// Close ends the program and removes its profile.
	Close() error
}

// A Tab is one page and its successors.
type Tab interface {
	// Navigate goes to url and returns when the page has loaded.
	Navigate(ctx context.Context, url string) error
	// Eval runs body as the body of an async function in the page, waits for
	// its promise and decodes the JSON of what it was resolved with into
	// result, unless that is nil. It ends with ctx, after 30 seconds at most.
	Eval(ctx context.Context, body string, result any) error
	// Resize makes the page's viewport so many CSS pixels large.
	Resize(ctx context.Context, width, height int) error
	// Screenshot returns the viewport as PNG.
	Screenshot(ctx context.Context) ([]byte, error)
	// Close closes the tab and whatever its page holds open.
	Close(ctx context.Context) error
}

// Engines names the engines that Start knows.
var Engines = []string{"chromium", "firefox", "webkit"}

// ErrMissing means that a program is not installed.
var ErrMissing = errors.New("not installed: run script/browsers")

// Start starts the named engine. ctx bounds the start alone.
func Start(ctx context.Context, engine string) (Browser, error) {
	var (
		b   Browser
		err error
	)
	switch engine {
	case "chromium":
		b, err = startChromium(ctx)
	case "firefox":
		b, err = startFirefox(ctx)
	case "webkit":
		b, err = startWebKit(ctx)
	default:
		return nil, fmt.Errorf("browser: engine %q is unknown", engine)
	}
	if err != nil {
		return nil, fmt.Errorf("browser: start %s: %w", engine, err)
	}
	return b, nil
}

// find returns the path of the first of the named programs that is there.
func find(names ...string) (string, error) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", names[0], ErrMissing)
}

// evalLimit bounds an Eval whose context has no deadline, or a later one.
const evalLimit = 30 * time.Second

// A ScriptError is what an Eval's script threw or rejected with.
type ScriptError struct{ Text string }

func (e *ScriptError) Error() string { return "script: " + e.Text }
