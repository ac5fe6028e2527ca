package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/halley-comet/halley/e2e/process"
)

// nginxConfig is one that does no more than pass requests on. It passes no
// upgrade, as nginx does unless told to.
const nginxConfig = `
daemon off;
user root;
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s;
		location / {
			proxy_pass http://%[3]s;
			proxy_set_header Host $http_host;
			%[4]s
		}
	}
}
`

// websockets is what nginx needs to pass an upgrade.
const websockets = `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";`

// buffering has nginx buffer, and overrule what the server asks of it.
const buffering = `proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; `

// startNginx starts one before a server and returns its address.
func startNginx(t *testing.T, server, more string) string {
	t.Helper()
	program, err := exec.LookPath("nginx")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Fatal("nginx is missing: run script/browsers")
		}
	}
	folder := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	file := filepath.Join(folder, "nginx.conf")
	config := fmt.Sprintf(nginxConfig, folder, address, server, more)
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := process.Start(exec.Command(program, "-p", folder, "-e", filepath.Join(folder, "error.log"), "-c", file))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		response, err := http.Get("http://" + address + "/comet/info")
		if err == nil {
			response.Body.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx: %v; it printed:\n%s", err, p.Output())
		}
	}
}

// Behind an nginx that holds streams back, whatever the server asks of it, a
// client ends on a transport that works within ten seconds, both where nothing
// is published, and where there is so much that nginx lets it out in bursts.
// The heartbeat is the usual one: the ladder must not depend on a short one.
func TestClientNginx(t *testing.T) {
	withoutWebSocket := []string{"fetch", "xhr", "sse", "iframe", "long-polling", "jsonp"}
	everywhere(t, 1, nil, func(t *testing.T, s *site) {
		for _, c := range []struct {
			name       string
			config     string
			busy       bool
			transports []string
			want       string
		}{
			{"the whole ladder", "", false, nil, "long-polling"},
			{"the whole ladder, busy", "", true, nil, "long-polling"},
			{"no websocket", "", false, withoutWebSocket, "long-polling"},
			{"no websocket, busy", "", true, withoutWebSocket, "long-polling"},
			{"nothing but streams and jsonp", "", false, []string{"fetch", "xhr", "sse", "iframe", "jsonp"}, "jsonp"},
			{"passing websockets", websockets, false, nil, "websocket"},
		} {
			t.Run(c.name, func(t *testing.T) {
				s := &site{t: t, name: s.name, server: s.server, proxy: s.proxy, control: s.control, open: s.open}
				p := s.open(t)
				if !slices.Contains(s.transports(p), c.want) {
					t.Skip("has no " + c.want)
				}
				s.behindNginx(p, c.config, c.transports, c.want, c.busy)
			})
		}
	})
}

func (s *site) behindNginx(p place, config string, transports []string, want string, busy bool) {
	s.t.Helper()
	const (
		limit  = 10 * time.Second
		lately = 2 * time.Second // for what is published from then on
		watch  = 3 * time.Second
	)
	mount := "http://" + startNginx(s.t, s.server.address, buffering+config) + "/comet"
	tr := &traffic{site: s, channels: []string{"nginx/" + strconv.FormatInt(time.Now().UnixNano(), 36)}}
	began := time.Now()
	r := s.record(p, recording{Name: "client", Mount: mount, Transports: transports, Channels: tr.channels,
		Cursor: s.server.cursor(), Times: true})
	stop := func() int { return tr.count() }
	if busy {
		stop = tr.start(20)
	}
	s.watch([]*recorder{r}, limit, func(state recordState) bool { return state.Transport == want })
	found := time.Since(began)
	settled := time.Now()
	if !busy {
		stop = tr.start(2)
	}
	time.Sleep(watch)
	total := stop() // the last ones must not be held back either
	s.await([]*recorder{r}, lately, "every message", func(state recordState) bool { return state.Next >= total })
	s.check([]*recorder{r}, total)
	state, times := r.state(), r.times()
	s.t.Logf("%s: %s after %v; the latest message after that: %v; caught up within %v", s.name, state.Transport,
		found.Round(10*time.Millisecond), tr.latest(times, settled, time.Now()).Round(10*time.Millisecond),
		tr.caughtUp(times, settled).Round(10*time.Millisecond))
	if state.Transport != want || found > limit {
		s.t.Errorf("transport %q after %v, want %q within %v: %s", state.Transport, found, want, limit, describe(state))
	}
	s.eval(p, "suite.stop();", nil)
}
