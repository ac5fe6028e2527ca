package peers

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATS is a cluster of NATS servers with JetStream, each in a process of its
// own and with a folder of its own. It is not measured itself, but what is
// measured stands on it.
type NATS struct {
	servers []process
}

// natsVariable says that the process was started to be a NATS server.
const natsVariable = "HALLEY_BENCH_NATS"

// Child is a NATS server where the process was started for that, until it is
// killed. It reports false where it was not.
func Child() bool {
	if os.Getenv(natsVariable) == "" {
		return false
	}
	os.Unsetenv(natsVariable)
	// What follows is what the command nats-server does.
	quiet := func() {}
	options, err := server.ConfigureOptions(flag.NewFlagSet("nats-server", flag.ExitOnError), os.Args[1:], quiet, quiet, quiet)
	if err == nil {
		var s *server.Server
		if s, err = server.NewServer(options); err == nil {
			s.ConfigureLogger()
			if err = server.Run(s); err == nil {
				s.WaitForShutdown()
				return true
			}
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
	return true
}

// StartNATS starts a cluster of n servers, which keep their files in folders
// of dir, and waits until streams can be made. Stop must be called also after
// an error. The process that calls it begins with [Child].
func StartNATS(dir string, n int) (*NATS, error) {
	for try := 0; ; try++ {
		c, err := startNATS(dir, n)
		if err == nil || try == 2 {
			return c, err
		}
		c.Stop() // others may have taken a port meanwhile
	}
}

func startNATS(dir string, n int) (*NATS, error) {
	c := &NATS{servers: make([]process, n)}
	program, err := os.Executable()
	if err != nil {
		return c, err
	}
	var clients, routes []netip.AddrPort
	for range n {
		client, err := free()
		if err != nil {
			return c, err
		}
		route, err := free()
		if err != nil {
			return c, err
		}
		clients, routes = append(clients, client), append(routes, route)
	}
	urls := make([]string, n)
	for i, route := range routes {
		urls[i] = "nats://" + route.String()
	}
	started := make(chan error, n)
	for i := range c.servers {
		args := []string{
			"--name", "n" + strconv.Itoa(i), "--addr", "127.0.0.1", "--port", strconv.Itoa(int(clients[i].Port())),
			"--jetstream", "--store_dir", filepath.Join(dir, "nats"+strconv.Itoa(i)), "--log", os.DevNull,
		}
		if n > 1 {
			args = append(args, "--cluster_name", "bench", "--cluster", urls[i], "--routes", strings.Join(urls, ","))
		}
		command := exec.Command(program, args...)
		command.Env = append(os.Environ(), natsVariable+"=1")
		c.servers[i].addr = clients[i]
		if err := c.servers[i].begin(command); err != nil {
			return c, err
		}
		go func() { started <- c.servers[i].listening() }()
	}
	for range c.servers {
		if e := <-started; e != nil {
			err = e
		}
	}
	if err != nil {
		return c, err
	}
	return c, c.ready()
}

// ready waits until the cluster has a leader that makes streams.
func (c *NATS) ready() error {
	conn, err := nats.Connect(c.URL())
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	for range 300 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		_, err = stream.CreateStream(ctx, jetstream.StreamConfig{
			Name: "ready", Subjects: []string{"ready"}, Replicas: len(c.servers), Storage: jetstream.FileStorage,
		})
		cancel()
		if err == nil {
			return stream.DeleteStream(context.Background(), "ready")
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("NATS is not ready: %w", err)
}

// URL lists the servers for clients, separated by commas.
func (c *NATS) URL() string {
	urls := make([]string, len(c.servers))
	for i := range c.servers {
		urls[i] = "nats://" + c.servers[i].addr.String()
	}
	return strings.Join(urls, ",")
}

// First is the URL of the first server alone.
func (c *NATS) First() string { return "nats://" + c.servers[0].addr.String() }

// Lead has the first server lead a stream. From there a message takes one way
// less to who is connected to it, which is a quarter of the time of a lone
// publisher: what is compared must not leave that to chance.
func (c *NATS) Lead(name string) error {
	conn, err := nats.Connect(c.First())
	if err != nil {
		return err
	}
	defer conn.Close()
	first := conn.ConnectedServerName()
	for range 100 {
		var answer struct {
			Cluster struct{ Leader string }
		}
		reply, err := conn.Request("$JS.API.STREAM.INFO."+name, nil, time.Second)
		if err == nil {
			err = json.Unmarshal(reply.Data, &answer)
		}
		if err == nil && answer.Cluster.Leader == first {
			return nil
		}
		if err == nil && answer.Cluster.Leader != "" {
			_, _ = conn.Request("$JS.API.STREAM.LEADER.STEPDOWN."+name, fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, first), time.Second)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("NATS: the stream %s has not come to be led by the first server", name)
}

// Usage reads what the servers have used together.
func (c *NATS) Usage() (Usage, error) {
	var sum Usage
	for i := range c.servers {
		one, err := c.servers[i].Usage()
		if err != nil {
			return sum, err
		}
		sum.CPU += one.CPU
		sum.Memory += one.Memory
	}
	return sum, nil
}

// Stop ends the servers.
func (c *NATS) Stop() {
	for i := range c.servers {
		c.servers[i].Kill()
	}
}
