package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/halley-comet/halley/internal/doctor"
)

// What the doctor says of a real nginx: one that is set up for Halley, one that
// is not, and so passes no upgrade, and one that buffers whatever the server
// asks for.
func TestDoctorNginx(t *testing.T) {
	if os.Getenv("HALLEY_E2E") == "" {
		t.Skip("needs nginx: set HALLEY_E2E=1")
	}
	for _, c := range []struct {
		name    string
		config  string
		held    bool // the streams
		upgrade bool
		exit    int
		advice  string
	}{
		{"as it should be", "proxy_buffering off; " + websockets, false, true, 0, ""},
		{"as it comes", "", false, false, 0, "WebSockets do not get through: nginx: `proxy_http_version 1.1;"},
		{"buffering", buffering, true, false, 1, "Streams are held back on the way: nginx: `proxy_buffering off;`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, "--heartbeat", "30s")
			address := startNginx(t, server.address, c.config)
			r, err := doctor.Run(t.Context(), "http://"+address+"/comet", doctor.Options{Wait: 3 * time.Second, Patience: -1})
			if err != nil {
				t.Fatal(err)
			}
			var printed strings.Builder
			r.Print(&printed)
			t.Log(printed.String())
			for _, x := range r.Transports {
				want := doctor.Works
				switch x.Transport {
				case "websocket":
					if !c.upgrade {
						want = doctor.Refused
					}
				case "long-polling", "jsonp":
				default:
					if c.held {
						want = doctor.Held
					}
				}
				if x.Verdict != want {
					t.Errorf("%s: got %s (%s), want %s", x.Transport, x.Verdict, x.Detail, want)
				}
			}
			if r.Exit() != c.exit {
				t.Errorf("got exit status %d, want %d", r.Exit(), c.exit)
			}
			if !strings.HasPrefix(r.Server.Via, "nginx/") {
				t.Errorf("got %q on the way, want nginx", r.Server.Via)
			}
			if advice := strings.Join(r.Advice, "\n"); c.advice == "" && advice != "" || !strings.Contains(advice, c.advice) {
				t.Errorf("got advice %q, want %q in it", advice, c.advice)
			}
		})
	}
}
