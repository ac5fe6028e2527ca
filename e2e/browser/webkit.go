package browser

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/halley-comet/halley/e2e/process"
)

func startWebKit(ctx context.Context) (_ Browser, err error) {
	c := &classic{name: "webkit", resize: resizeWebKit}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	server, err := find("Xvfb")
	if err != nil {
		return nil, err
	}
	driver, err := find("WebKitWebDriver")
	if err != nil {
		return nil, err
	}
	// MiniBrowser lies beside the library, whose folder has the platform's name.
	programs, _ := filepath.Glob("/usr/lib*/*/webkit2gtk-4.*/MiniBrowser")
	if len(programs) == 0 {
		return nil, fmt.Errorf("MiniBrowser: %w", ErrMissing)
	}
	if c.profile, err = os.MkdirTemp("", "e2e-webkit-"); err != nil {
		return nil, err
	}
	if err := narrow(c.profile); err != nil {
		return nil, err
	}
	display, err := c.startDisplay(ctx, server)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(driver, "-p", port)
	cmd.Env = environment(c.profile, "DISPLAY=:"+display, "GDK_BACKEND=x11", "LIBGL_ALWAYS_SOFTWARE=1",
		"NO_AT_BRIDGE=1", "DBUS_SESSION_BUS_ADDRESS=")
	p, err := process.Start(cmd)
	if err != nil {
		return nil, err
	}
	// The display ends last: without it the browser would only complain.
	c.processes = append([]*process.Process{p}, c.processes...)
	if err := listening(ctx, "127.0.0.1:"+port, p); err != nil {
		return nil, err
	}
	return c, c.connect(ctx, "http://127.0.0.1:"+port, map[string]any{
		"acceptInsecureCerts": true,
		"webkitgtk:browserOptions": map[string]any{
			"binary": programs[len(programs)-1],
			"args":   []string{"--automation"},
		},
	})
}

// startDisplay starts an X server on a display that it chooses.
func (c *classic) startDisplay(ctx context.Context, server string) (string, error) {
	cmd := exec.Command(server, "-displayfd", "1", "-screen", "0", "1600x1200x24", "-nolisten", "tcp")
	p, err := process.Start(cmd)
	if err != nil {
		return "", err
	}
	c.processes = append(c.processes, p)
	display, err := p.Await(ctx, regexp.MustCompile(`(?m)^(\d+)\n`))
	if err != nil {
		return "", err
	}
	return display[1], nil
}

// narrow lets the tool bar shrink to the width of a telephone, by a style for
// the GTK programs whose home this is.
func narrow(home string) error {
	const style = "* { min-width: 0; padding: 0; margin: 0; border-width: 0; }\n"
	folder := filepath.Join(home, ".config", "gtk-3.0")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "gtk.css"), []byte(style), 0o600)
}

// resizeWebKit sets the window, which is larger than the viewport by the
// tool bar and the like.
func resizeWebKit(ctx context.Context, t *classicTab, width, height int) error {
	rect := map[string]any{"x": 0, "y": 0, "width": width, "height": height}
	var got struct{ Width, Height int }
	for range 3 {
		if err := t.do(ctx, http.MethodPost, "/window/rect", rect, nil); err != nil {
			return err
		}
		const size = `
			for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
			return { width: innerWidth, height: innerHeight };`
		if err := t.Eval(ctx, size, &got); err != nil {
			return err
		}
		if got.Width == width && got.Height == height {
			return nil
		}
		rect["width"] = rect["width"].(int) + width - got.Width
		rect["height"] = rect["height"].(int) + height - got.Height
	}
	return fmt.Errorf("browser: the viewport is %dx%d, want %dx%d", got.Width, got.Height, width, height)
}

// freePort returns a port that nobody listened on a moment ago: the driver
// doesn't tell which one it takes by itself.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

// listening waits until p accepts connections.
func listening(ctx context.Context, address string, p *process.Process) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if conn, err := net.Dial("tcp", address); err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody listens on %s: %w", address, ctx.Err())
		case <-p.Done():
			return fmt.Errorf("the driver ended: %w\n%s", p.Err(), p.Output())
		case <-tick.C:
		}
	}
}
