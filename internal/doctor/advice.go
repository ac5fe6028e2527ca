package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/halley-comet/halley/comet"
)

// A carrier is a proxy, and what to tell it.
type carrier struct {
	name     string // as it calls itself, in lower case
	buffer   string // so that it does not hold streams back
	upgrade  string // so that it passes WebSockets
	silence  string // so that it does not cut what is silent
	compress string // so that it does not compress
}

// carriers are known ones. The last is for all others.
var carriers = []carrier{
	{"nginx",
		"nginx: `proxy_buffering off;` in the location of the mount, and no `proxy_ignore_headers X-Accel-Buffering`",
		"nginx: `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";` in the location of the mount",
		"nginx: `proxy_read_timeout` above the heartbeat and above 60s, the longest poll",
		"nginx: `gzip off;` in the location of the mount"},
	{"apache",
		"Apache: `ProxyPass … flushpackets=on` for the mount, and no output filters",
		"Apache: `ProxyPass … upgrade=websocket` for the mount",
		"Apache: `ProxyTimeout` above the heartbeat and above 60s, the longest poll",
		"Apache: `SetEnvIf Request_URI ^/comet no-gzip=1`"},
	{"varnish",
		"Varnish: `return (pipe);` for the mount in vcl_recv",
		"Varnish: `return (pipe);` in vcl_recv where Upgrade is websocket, and `set bereq.http.upgrade = req.http.upgrade;` in vcl_pipe",
		"Varnish: `pipe_timeout`, or `between_bytes_timeout`, above the heartbeat",
		"Varnish: `set beresp.do_gzip = false;` for the mount"},
	{"envoy",
		"Envoy: take the buffer filter off the mount's route",
		"Envoy: `upgrade_configs: [{upgrade_type: websocket}]`",
		"Envoy: the route's `timeout: 0s`, and `idle_timeout` above the heartbeat",
		"Envoy: take the compressor filter off the mount's route"},
	{"microsoft-iis",
		"IIS: `responseBufferLimit=\"0\"` of the proxy (ARR)",
		"IIS: the WebSocket feature has to be installed",
		"IIS: the proxy's time-out above the heartbeat and above 60s, the longest poll",
		"IIS: `<urlCompression doDynamicCompression=\"false\"/>` for the mount"},
	{"cloudflare",
		"Cloudflare: a rule that turns buffering and rewriting off for the mount",
		"Cloudflare: turn WebSockets on under Network",
		"Cloudflare cuts what is silent for 100s: keep the heartbeat below",
		"Cloudflare: streams with no-transform are not compressed; see that Cache-Control gets through"},
	{"caddy",
		"Caddy: `flush_interval -1` in reverse_proxy",
		"Caddy passes WebSockets: see what stands before and behind it",
		"Caddy: `read_timeout` above the heartbeat and above 60s, the longest poll",
		"Caddy: leave the mount out of `encode`"},
	{"",
		"have what stands between pass responses on as they come: nginx `proxy_buffering off;`, HAProxy no `option http-buffer-response`, Apache `flushpackets=on`",
		"have what stands between pass Upgrade and Connection on, by HTTP/1.1: nginx `proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";`",
		"set the time-outs of what stands between above the heartbeat and above 60s, the longest poll: HAProxy `timeout server`, `timeout client` and `timeout tunnel`",
		"have what stands between not compress the mount's responses"},
}

func carrierOf(via string) carrier {
	via = strings.ToLower(via)
	i := slices.IndexFunc(carriers, func(c carrier) bool { return strings.Contains(via, c.name) })
	return carriers[i]
}

// advise says what to do about what was found.
func (p *patient) advise() {
	server := &p.report.Server
	say := func(format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !slices.Contains(p.report.Advice, text) {
			p.report.Advice = append(p.report.Advice, text)
		}
	}
	if server.Error != "" {
		say("Nothing can be told before info is answered: see that the server runs, and that the URL is the mount, such as http://host/comet.")
		return
	}
	for _, r := range p.report.Transports {
		c := carrierOf(r.Via + " " + server.Via)
		switch {
		case r.Verdict == Held && r.Buffer != nil && r.Buffer.Freed:
			say("Streams begin only once the body has some bytes: turn that off (%s), or have clients ask for padding=%d.", c.buffer, r.Buffer.Bytes)
		case r.Verdict == Held, r.Verdict == Late && r.Cut == "":
			say("Streams are held back on the way: %s. Until then clients have to poll.", c.buffer)
		case r.Verdict == Fails && !polls(r.Transport) && r.Transport != string(comet.WebSocket):
			say("%s gets no answer: a proxy that waits for the end of a response looks like this: %s.", r.Transport, c.buffer)
		}
		if r.Cut != "" {
			say("Connections are cut %s. %s; or lower the server's heartbeat, now %v.", r.Cut, c.silence, time.Duration(server.Heartbeat))
		}
		if r.Transport == string(comet.WebSocket) && r.Verdict == Refused && (r.code == "" || r.code == "upgrade-required") {
			say("WebSockets do not get through: %s.", c.upgrade)
		}
		if r.Compressed != "" && r.Compressed != "identity" {
			say("Streams are compressed on the way (%s), which may hold them back: %s.", r.Compressed, c.compress)
		}
		if r.code == "forbidden-origin" {
			say("The server refuses pages of %s: add it to its origins.", p.o.Origin)
		}
		if r.code == "forbidden-host" {
			say("The server does not know the name that it was reached by: add it to its hosts.")
		}
		if slices.Contains(r.Lost, "Cache-Control") {
			say("Cache-Control does not get through: answers may be cached, and streams changed. Have what stands between leave it alone.")
		}
	}
	if p.o.Origin != "" && !strings.HasPrefix(server.Origin, "may read") {
		say("Pages of %s may not read the server's answers: add it to its origins.", p.o.Origin)
	}
	if server.ClockSkew != 0 {
		say("The clock of the server is %v off from this one: set both by NTP, or tokens run out at the wrong time.", time.Duration(server.ClockSkew))
	}
}
