package browser

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/halley-comet/halley/e2e/process"
)

// firefox is Firefox behind WebDriver BiDi, which it speaks without a driver.
type firefox struct {
	version string
	profile string
	process *process.Process
	*bidi
}

// preferences keep Firefox from talking to anyone but the tests, and JSON
// documents ordinary pages.
const preferences = `
user_pref("app.normandy.enabled", false);
user_pref("app.update.disabledForTesting", true);
user_pref("browser.newtabpage.enabled", false);
user_pref("browser.safebrowsing.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("devtools.jsonview.enabled", false);
user_pref("extensions.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("toolkit.telemetry.server", "");
`

func startFirefox(ctx context.Context) (_ Browser, err error) {
	f := new(firefox)
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	program, err := find("firefox-esr", "firefox")
	if err != nil {
		return nil, err
	}
	if f.profile, err = os.MkdirTemp("", "e2e-firefox-"); err != nil {
		return nil, err
	}
	profile := filepath.Join(f.profile, "profile")
	if err := os.Mkdir(profile, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(preferences), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0")
	cmd.Env = environment(f.profile)
	if f.process, err = process.Start(cmd); err != nil {
		return nil, err
	}
	address, err := f.process.Await(ctx, regexp.MustCompile(`WebDriver BiDi listening on (ws://\S+)`))
	if err != nil {
		return nil, err
	}
	if f.bidi, err = dialBiDi(ctx, address[1]+"/session"); err != nil {
		return nil, err
	}
	var session struct {
		Capabilities struct {
			BrowserVersion string `json:"browserVersion"`
		} `json:"capabilities"`
	}
	err = f.command(ctx, "session.new", map[string]any{"capabilities": map[string]any{
		"alwaysMatch": map[string]any{"acceptInsecureCerts": true},
	}}, &session)
	f.version = session.Capabilities.BrowserVersion
	return f, err
}

func (f *firefox) Name() string    { return "firefox" }
func (f *firefox) Version() string { return f.version }

func (f *firefox) NewTab(ctx context.Context) (Tab, error) {
	var opened struct {
		Context string `json:"context"`
	}
	if err := f.command(ctx, "browsingContext.create", map[string]any{"type": "tab"}, &opened); err != nil {
		return nil, err
	}
	return &firefoxTab{f.bidi, opened.Context}, nil
}

func (f *firefox) Close() error {
	if f.process != nil {
		f.process.Stop()
	}
	if f.bidi != nil {
		f.bidi.close()
	}
	return os.RemoveAll(f.profile)
}

type firefoxTab struct {
	*bidi
	context string
}

func (t *firefoxTab) Navigate(ctx context.Context, url string) error {
	return t.command(ctx, "browsingContext.navigate", map[string]any{
		"context": t.context, "url": url, "wait": "complete",
	}, nil)
}

func (t *firefoxTab) Eval(ctx context.Context, body string, result any) error {
	ctx, cancel := context.WithTimeout(ctx, evalLimit)
	defer cancel()
	var outcome struct {
		ExceptionDetails *struct{ Text string }
		Result           struct{ Value json.RawMessage }
	}
	// A string holds what BiDi's own serialisation would change.
	err := t.command(ctx, "script.evaluate", map[string]any{
		"expression":   fmt.Sprintf("(async () => JSON.stringify(await (async () => {%s\n})()) ?? null)()", body),
		"target":       map[string]any{"context": t.context},
		"awaitPromise": true,
	}, &outcome)
	if err != nil {
		return err
	}
	if outcome.ExceptionDetails != nil {
		return &ScriptError{outcome.ExceptionDetails.Text}
	}
	if result == nil {
		return nil
	}
	text := "null"
	if len(outcome.Result.Value) > 0 {
		if err := json.Unmarshal(outcome.Result.Value, &text); err != nil {
			return err
		}
	}
	return json.Unmarshal([]byte(text), result)
}

func (t *firefoxTab) Resize(ctx context.Context, width, height int) error {
	return t.command(ctx, "browsingContext.setViewport", map[string]any{
		"context": t.context, "viewport": map[string]any{"width": width, "height": height},
	}, nil)
}

func (t *firefoxTab) Screenshot(ctx context.Context) ([]byte, error) {
	return painted(ctx, t, func() ([]byte, error) {
		var picture struct{ Data string }
		err := t.command(ctx, "browsingContext.captureScreenshot", map[string]any{"context": t.context}, &picture)
		if err != nil {
			return nil, err
		}
		return base64.StdEncoding.DecodeString(picture.Data)
	})
}

func (t *firefoxTab) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return t.command(ctx, "browsingContext.close", map[string]any{"context": t.context}, nil)
}
