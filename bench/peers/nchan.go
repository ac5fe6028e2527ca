package peers

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/halley-comet/halley/bench/load"
)

// Nchan is a module of nginx, from Debian's packages.
type Nchan struct {
	process
	dir string
}

// nchanConfig has one worker: a second one costs it more than it brings where
// the load is made on the same two cores.
const nchanConfig = `
load_module %[1]s;
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
error_log stderr error;
pid %[2]s/nginx.pid;
events { worker_connections 19000; }
http {
	access_log off;
	keepalive_timeout 1h;
	keepalive_requests 1000000000;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	client_body_buffer_size 64k;
	nchan_shared_memory_size %[3]d;
	server {
		listen %[4]s backlog=4096;
		location /pub {
			nchan_publisher;
			nchan_channel_id $arg_channel;
			nchan_message_buffer_length %[5]d;
			nchan_message_timeout 1h;
		}
		location /sub {
			nchan_subscriber eventsource;
			nchan_channel_id $arg_channel;
			nchan_subscriber_first_message newest;
			nchan_subscriber_timeout 1h;
		}
		location /poll {
			nchan_subscriber longpoll;
			nchan_channel_id $arg_channel;
			nchan_subscriber_first_message newest;
			nchan_subscriber_timeout 1h;
		}
	}
}
`

// Name implements [Peer].
func (*Nchan) Name() string { return "nchan" }

// Version implements [Peer].
func (*Nchan) Version() string {
	version, _ := output("", "dpkg-query", "-W", "-f", "${Package} ${Version} ", "nginx-core", "libnginx-mod-nchan")
	return version + "(Debian), one worker"
}

// Transports implements [Peer].
func (*Nchan) Transports() []string { return []string{"sse", "long-polling"} }

const nchanModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"

// Install implements [Peer].
func (n *Nchan) Install(dir string) error {
	n.dir = filepath.Join(dir, "nchan")
	if _, err := os.Stat(nchanModule); err != nil {
		return errors.New("nginx with Nchan is not installed; bench/setup installs it")
	}
	return os.Mkdir(n.dir, 0o755)
}

// Start implements [Peer].
func (n *Nchan) Start(o Options) error {
	addr, err := free()
	if err != nil {
		return err
	}
	kept, memory := 100, 512<<20
	if o.Bound > 0 {
		memory = 2 * o.Bound
	}
	config := filepath.Join(n.dir, "nginx.conf")
	text := fmt.Sprintf(nchanConfig, nchanModule, n.dir, memory, addr, kept)
	if os.Getuid() == 0 {
		text = "user root;" + text
	}
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	return n.start(addr, exec.Command("/usr/sbin/nginx", "-p", n.dir, "-c", config))
}

// Subscribe implements [Peer].
func (n *Nchan) Subscribe(transport, channel, position string) load.Dialog {
	if transport == "long-polling" {
		path := "/poll?channel=" + channel
		return load.Dialog{
			Steps: []load.Step{load.Say(get(n.addr, path), "")},
			Again: func(_, answer []byte) []byte {
				var fields []string
				for line := range strings.Lines(string(answer)) {
					name, value, found := strings.Cut(strings.TrimSpace(line), ": ")
					if !found {
						break
					}
					switch http.CanonicalHeaderKey(name) {
					case "Last-Modified":
						fields = append(fields, "If-Modified-Since: "+value)
					case "Etag":
						fields = append(fields, "If-None-Match: "+value)
					}
				}
				return []byte(get(n.addr, path, fields...))
			},
		}
	}
	fields := []string{"Accept: text/event-stream"}
	if position != "" {
		fields = append(fields, "Last-Event-ID: "+position)
	}
	return load.Dialog{Steps: []load.Step{load.Say(get(n.addr, "/sub?channel="+channel, fields...), ": hi")}}
}

// Publish implements [Peer].
func (n *Nchan) Publish(channel string, messages ...[]byte) ([]byte, int) {
	return each(n.addr, "/pub?channel="+channel, messages)
}

// Position implements [Peer].
func (*Nchan) Position(_, recent []byte) string { return between(recent, "id: ", "\n") }
