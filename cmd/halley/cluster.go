package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/alecthomas/units"
	natsgo "github.com/nats-io/nats.go"

	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/nats"
)

// cluster holds what joins servers to one log.
type cluster struct {
	NATSURL         []string         `name:"nats-url" default:"nats://127.0.0.1:4222" env:"HALLEY_NATS_URL" help:"With the nats engine, its servers (${default})." placeholder:"URL"`
	NATSStream      string           `name:"nats-stream" default:"halley" env:"HALLEY_NATS_STREAM" help:"The JetStream stream that is the log (${default}); it is made where there is none." placeholder:"NAME"`
	NATSReplicas    int              `name:"nats-replicas" default:"3" env:"HALLEY_NATS_REPLICAS" help:"NATS servers that have the stream (${default}); 1 for a lone one." placeholder:"N"`
	NATSStorage     string           `name:"nats-storage" default:"file" enum:"file,memory" env:"HALLEY_NATS_STORAGE" help:"Where the NATS servers keep the stream: file or memory (${default})." placeholder:"NAME"`
	NATSStreamBytes units.Base2Bytes `name:"nats-stream-bytes" default:"8GiB" env:"HALLEY_NATS_STREAM_BYTES" help:"Bytes that the stream keeps (${default}); 0 for no bound. It is what a server that was away can catch up on." placeholder:"SIZE"`
	NATSStreamAge   time.Duration    `name:"nats-stream-age" default:"0s" env:"HALLEY_NATS_STREAM_AGE" help:"How long the stream keeps a message; 0s for no bound (default)." placeholder:"DUR"`
	NATSTimeout     time.Duration    `name:"nats-timeout" default:"10s" env:"HALLEY_NATS_TIMEOUT" help:"How long a publish waits for the stream's quorum (${default})." placeholder:"DUR"`
	NATSCreds       string           `name:"nats-creds" env:"HALLEY_NATS_CREDS" help:"Credentials file for the NATS servers." placeholder:"FILE"`
	NATSCA          string           `name:"nats-ca" env:"HALLEY_NATS_CA" help:"Certificate authorities of the NATS servers, PEM; the system's by default." placeholder:"FILE"`
	NATSCert        string           `name:"nats-cert" env:"HALLEY_NATS_CERT" help:"Certificate that this server shows to the NATS servers, PEM." placeholder:"FILE"`
	NATSKey         string           `name:"nats-key" env:"HALLEY_NATS_KEY" help:"The certificate's key, PEM." placeholder:"FILE"`
}

// openNATS opens this server's view of the cluster's log.
func (c *serveCmd) openNATS(ctx context.Context) (*nats.Log, error) {
	if err := c.checkCluster(); err != nil {
		return nil, err
	}
	keepPrivate()
	o := nats.Options{
		URL:         strings.Join(c.NATSURL, ","),
		Stream:      c.NATSStream,
		Replicas:    c.NATSReplicas,
		StreamBytes: int64(c.NATSStreamBytes),
		StreamAge:   c.NATSStreamAge,
		Memory:      c.NATSStorage == "memory",
		Timeout:     c.NATSTimeout,
		Replica:     c.diskOptions(),
	}
	if c.NATSStreamBytes == 0 {
		o.StreamBytes = -1
	}
	if c.NATSCreds != "" {
		o.Connect = append(o.Connect, natsgo.UserCredentials(c.NATSCreds))
	}
	if c.NATSCA != "" {
		o.Connect = append(o.Connect, natsgo.RootCAs(c.NATSCA))
	}
	if c.NATSCert != "" {
		o.Connect = append(o.Connect, natsgo.ClientCert(c.NATSCert, c.NATSKey))
	}
	slog.Info("halley: joining the cluster's log", "nats", redacted(c.NATSURL), "stream", c.NATSStream)
	log, err := nats.Open(ctx, c.DataDir, o)
	switch {
	case errors.Is(err, disk.ErrInUse), errors.Is(err, disk.ErrNotReplica):
		return nil, explainOpen(c.DataDir, err)
	case err != nil:
		return nil, fmt.Errorf("--engine nats: %w", err)
	}
	// Beside the data there are the headers, of 4 KiB at most, and more.
	if most := log.MaxPayload(); most != 0 && most < int64(c.MaxMessage)+8<<10 {
		slog.Warn("halley: the NATS servers take no messages as large as --max-message: raise max_payload there, or lower it here", "max_payload", most, "max_message", int64(c.MaxMessage))
	}
	return log, nil
}

// redacted are URLs without the passwords that may be in them.
func redacted(urls []string) string {
	var shown []string
	for _, s := range urls {
		if u, err := url.Parse(s); err == nil {
			s = u.Redacted()
			if u.User != nil {
				if _, ok := u.User.Password(); !ok { // a token
					u.User = url.User("xxxxx")
					s = u.String()
				}
			}
		}
		shown = append(shown, s)
	}
	return strings.Join(shown, ",")
}

// checkCluster reports what serve would refuse of these settings.
func (c *serveCmd) checkCluster() error {
	switch {
	case c.Engine != "nats":
	case c.DataDir == "":
		return errors.New("--data-dir is empty")
	case (c.NATSCert == "") != (c.NATSKey == ""):
		return errors.New("--nats-cert and --nats-key: one is nothing without the other")
	case len(c.NATSURL) == 0:
		return errors.New("--nats-url is empty")
	}
	return nil
}
