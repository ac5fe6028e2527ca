package browser

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/halley-comet/halley/e2e/process"
)

func startChromium(ctx context.Context) (_ Browser, err error) {
	c := &classic{name: "chromium", resize: resizeChromium}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	driver, err := find("chromedriver")
	if err != nil {
		return nil, err
	}
	program, err := find("chromium", "chromium-browser", "google-chrome")
	if err != nil {
		return nil, err
	}
	if c.profile, err = os.MkdirTemp("", "e2e-chromium-"); err != nil {
		return nil, err
	}
	cmd := exec.Command(driver, "--port=0")
	cmd.Env = environment(c.profile)
	p, err := process.Start(cmd)
	if err != nil {
		return nil, err
	}
	c.processes = append(c.processes, p)
	port, err := p.Await(ctx, regexp.MustCompile(`started successfully on port (\d+)`))
	if err != nil {
		return nil, err
	}
	return c, c.connect(ctx, "http://127.0.0.1:"+port[1], map[string]any{
		"acceptInsecureCerts": true,
		"goog:chromeOptions": map[string]any{
			"binary": program,
			"args": []string{
				"--headless=new",
				"--no-sandbox", // needed as root
				"--disable-gpu",
				"--disable-dev-shm-usage",
				"--disable-quic",
				"--disable-background-networking",
				"--disable-component-update",
				"--disable-sync",
				"--no-first-run",
				// The browser ends when the pipe to the driver does.
				"--remote-debugging-pipe",
				"--user-data-dir=" + filepath.Join(c.profile, "profile"),
			},
		},
	})
}

// resizeChromium asks the renderer, since a window has a least width that no
// telephone has.
func resizeChromium(ctx context.Context, t *classicTab, width, height int) error {
	return t.DevTools(ctx, "Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
	}, nil)
}

// DevTools carries out a command of the Chrome DevTools Protocol on a tab. Only
// Chromium's have that.
func (t *classicTab) DevTools(ctx context.Context, command string, params, result any) error {
	return t.do(ctx, http.MethodPost, "/goog/cdp/execute", map[string]any{"cmd": command, "params": params}, result)
}

// environment is the test's own with the home directory moved, so that
// nothing of a run stays behind.
func environment(home string, more ...string) []string {
	return append(append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME=", "XDG_CACHE_HOME="), more...)
}
