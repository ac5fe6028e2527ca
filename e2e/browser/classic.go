package browser

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/halley-comet/halley/e2e/process"
)

// classic is a browser behind a driver that speaks W3C WebDriver, Level 1.
type classic struct {
	name, version string
	session       string // the session's URL at the driver
	home          string // a tab that stays, since the last one's end is the session's
	processes     []*process.Process
	profile       string // directory of this run's own
	resize        func(ctx context.Context, t *classicTab, width, height int) error

	mu      sync.Mutex // guards the driver: one command at a time
	current string     // the tab that commands go to
}

// connect makes a session at the driver, which may still be starting.
func (c *classic) connect(ctx context.Context, driver string, capabilities map[string]any) error {
	var session struct {
		SessionID    string `json:"sessionId"`
		Capabilities struct {
			BrowserVersion string `json:"browserVersion"`
		} `json:"capabilities"`
	}
	body := map[string]any{"capabilities": map[string]any{"alwaysMatch": capabilities}}
	if err := wire(ctx, http.MethodPost, driver+"/session", body, &session); err != nil {
		return err
	}
	c.session = driver + "/session/" + session.SessionID
	c.version = session.Capabilities.BrowserVersion
	limits := map[string]any{"script": (evalLimit + 5*time.Second).Milliseconds(), "pageLoad": 30_000}
	if err := c.command(ctx, http.MethodPost, "/timeouts", limits, nil); err != nil {
		return err
	}
	if err := c.command(ctx, http.MethodGet, "/window", nil, &c.home); err != nil {
		return err
	}
	c.current = c.home
	return nil
}

func (c *classic) Name() string    { return c.name }
func (c *classic) Version() string { return c.version }

func (c *classic) NewTab(ctx context.Context) (Tab, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The driver opens it from the current one, which must be there. It is a
	// window of its own since WebKitGTK would leave a tab in the background,
	// where nothing is painted.
	if err := c.switchTo(ctx, c.home); err != nil {
		return nil, err
	}
	var opened struct {
		Handle string `json:"handle"`
	}
	if err := c.command(ctx, http.MethodPost, "/window/new", map[string]any{"type": "window"}, &opened); err != nil {
		return nil, err
	}
	return &classicTab{c, opened.Handle}, c.switchTo(ctx, opened.Handle)
}

func (c *classic) Close() error {
	for _, p := range c.processes {
		p.Stop()
	}
	return os.RemoveAll(c.profile)
}

// switchTo directs the commands that follow to a tab. c.mu is held.
func (c *classic) switchTo(ctx context.Context, handle string) error {
	if c.current == handle {
		return nil
	}
	if err := c.command(ctx, http.MethodPost, "/window", map[string]any{"handle": handle}, nil); err != nil {
		return err
	}
	c.current = handle
	return nil
}

func (c *classic) command(ctx context.Context, method, path string, body, result any) error {
	return wire(ctx, method, c.session+path, body, result)
}

// wire carries out one command (WebDriver, "Protocol").
func wire(ctx context.Context, method, url string, body, result any) error {
	var payload bytes.Buffer
	if method == http.MethodPost {
		if err := json.NewEncoder(&payload).Encode(body); err != nil {
			return err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, url, &payload)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	var answer struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s %s: status %d: %w", method, url, response.StatusCode, err)
	}
	if response.StatusCode != http.StatusOK {
		var fault struct{ Error, Message string }
		json.Unmarshal(answer.Value, &fault)
		return fmt.Errorf("%s %s: %s: %s", method, url, fault.Error, fault.Message)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, result)
}

type classicTab struct {
	*classic
	handle string
}

// do carries out one command on this tab.
func (t *classicTab) do(ctx context.Context, method, path string, body, result any) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.switchTo(ctx, t.handle); err != nil {
		return err
	}
	return t.command(ctx, method, path, body, result)
}

func (t *classicTab) Navigate(ctx context.Context, url string) error {
	return t.do(ctx, http.MethodPost, "/url", map[string]any{"url": url}, nil)
}

func (t *classicTab) Eval(ctx context.Context, body string, result any) error {
	// The driver can't give up a script, so the script does, and in time to say so.
	limit := evalLimit
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)-time.Second)
	}
	script := fmt.Sprintf(`
const done = arguments[arguments.length - 1];
const late = new Promise((_, no) => setTimeout(() => no(new Error("the script is not done after %v")), %d));
Promise.race([(async () => {%s
})(), late]).then(
	(value) => done({ value: JSON.stringify(value) }),
	(error) => done({ error: String(error) + "\n" + (error && error.stack || "") }));`,
		limit.Round(time.Millisecond), limit.Milliseconds(), body)
	var outcome struct{ Value, Error *string }
	err := t.do(ctx, http.MethodPost, "/execute/async", map[string]any{"script": script, "args": []any{}}, &outcome)
	switch {
	case err != nil:
		return err
	case outcome.Error != nil:
		return &ScriptError{*outcome.Error}
	case result == nil:
		return nil
	case outcome.Value == nil: // the promise was resolved with undefined
		return json.Unmarshal([]byte("null"), result)
	}
	return json.Unmarshal([]byte(*outcome.Value), result)
}

func (t *classicTab) Resize(ctx context.Context, width, height int) error {
	return t.resize(ctx, t, width, height)
}

func (t *classicTab) Screenshot(ctx context.Context) ([]byte, error) {
	return painted(ctx, t, func() ([]byte, error) {
		var picture string
		if err := t.do(ctx, http.MethodGet, "/screenshot", nil, &picture); err != nil {
			return nil, err
		}
		return base64.StdEncoding.DecodeString(picture)
	})
}

func (t *classicTab) Close(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.switchTo(ctx, t.handle); err != nil {
		return err
	}
	if err := t.command(ctx, http.MethodDelete, "/window", nil, nil); err != nil {
		return err
	}
	return t.switchTo(ctx, t.home)
}
