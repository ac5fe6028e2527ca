package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/alecthomas/units"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/bayeux"
	"github.com/halley-comet/halley/cmd/halley/demo"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/metrics"
)

// serveCmd holds the settings of a server. What is given on the command line
// goes before the environment, and that before the file.
type serveCmd struct {
	Config kong.ConfigFlag `help:"Read settings from a YAML file: the flags' names, and channels, a list of policies." placeholder:"FILE"`

	Listen  string `default:"127.0.0.1:8080" env:"HALLEY_LISTEN" help:"Address to listen on (${default}); port 0 picks one." placeholder:"ADDR"`
	TLSCert string `name:"tls-cert" env:"HALLEY_TLS_CERT" help:"Certificate chain, PEM; serves HTTPS." placeholder:"FILE"`
	TLSKey  string `name:"tls-key" env:"HALLEY_TLS_KEY" help:"The certificate's key, PEM." placeholder:"FILE"`
	Demo    bool   `default:"true" negatable:"" env:"HALLEY_DEMO" help:"Serve the demo pages at / (on)."`
	Bayeux  bool   `default:"true" negatable:"" env:"HALLEY_BAYEUX" help:"Serve CometD and Faye clients at /bayeux (on)."`

	Engine string `default:"disk" enum:"disk,memory,nats" env:"HALLEY_ENGINE" help:"Where messages are kept: disk, memory, or nats for several servers (${default})." placeholder:"NAME"`
	dataDir
	Fsync       string           `default:"group" enum:"always,group,never" env:"HALLEY_FSYNC" help:"What acknowledged messages survive on disk: with always and group a power cut (group waits up to 0.2 ms for publishers to share a sync), with never a killed process (${default})." placeholder:"MODE"`
	RetainCount int              `default:"10000" env:"HALLEY_RETAIN_COUNT" help:"Messages kept in a channel (${default}); 0 for no bound." placeholder:"N"`
	RetainAge   time.Duration    `default:"0s" env:"HALLEY_RETAIN_AGE" help:"How long a message is kept; 0s for no bound (default)." placeholder:"DUR"`
	RetainBytes units.Base2Bytes `default:"64MiB" env:"HALLEY_RETAIN_BYTES" help:"Bytes kept in a channel (${default}); 0 for no bound." placeholder:"SIZE"`
	DiskLimit   units.Base2Bytes `default:"8GiB" env:"HALLEY_DISK_LIMIT" help:"Bytes of the log on disk in all, before compression (${default}); 0 for no bound." placeholder:"SIZE"`
	MemoryLimit units.Base2Bytes `default:"256MiB" env:"HALLEY_MEMORY_LIMIT" help:"With the memory engine, what the log may take in all; with the others, what its newest messages and the blocks read from it may take together (${default})." placeholder:"SIZE"`

	Heartbeat      time.Duration    `default:"25s" env:"HALLEY_HEARTBEAT" help:"Longest silence of a stream (${default})." placeholder:"DUR"`
	PollTimeout    time.Duration    `default:"25s" env:"HALLEY_POLL_TIMEOUT" help:"How long a poll is held that does not say, up to 60s (${default})." placeholder:"DUR"`
	WriteTimeout   time.Duration    `default:"30s" env:"HALLEY_WRITE_TIMEOUT" help:"How long a client may leave its connection unread (${default})." placeholder:"DUR"`
	MultipartLimit time.Duration    `default:"5m" env:"HALLEY_MULTIPART_LIMIT" help:"How long a raw multipart stream lasts (${default})." placeholder:"DUR"`
	DrainWindow    time.Duration    `default:"5s" env:"HALLEY_DRAIN_WINDOW" help:"Time over which clients are sent away on SIGTERM, each at its own; three quarters of --drain-timeout at most (${default})." placeholder:"DUR"`
	DrainTimeout   time.Duration    `default:"10s" env:"HALLEY_DRAIN_TIMEOUT" help:"How long clients have to leave on SIGTERM (${default})." placeholder:"DUR"`
	AdmitRate      int              `default:"5000" env:"HALLEY_ADMIT_RATE" help:"Subscriptions a second that may begin; others are told to come back (${default}); 0 for no bound." placeholder:"N"`
	TrustedProxies []string         `env:"HALLEY_TRUSTED_PROXIES" help:"Addresses and ranges (10.0.0.0/8) of the proxies that are believed whom they name as the client, in X-Forwarded-For or Forwarded." placeholder:"ADDR"`
	MaxMessage     units.Base2Bytes `default:"1MiB" env:"HALLEY_MAX_MESSAGE" help:"Data of a message at most (${default})." placeholder:"SIZE"`
	MaxBody        units.Base2Bytes `default:"16MiB" env:"HALLEY_MAX_BODY" help:"Body of a publish request at most (${default})." placeholder:"SIZE"`
	MaxChannels    int              `default:"1000" env:"HALLEY_MAX_CHANNELS" help:"Names and patterns of a subscription at most (${default})." placeholder:"N"`
	MaxConnections int              `default:"0" env:"HALLEY_MAX_CONNECTIONS" help:"Subscriptions held at once; 0 for no bound (default)." placeholder:"N"`
	IOUring        bool             `name:"io-uring" default:"true" negatable:"" env:"HALLEY_IO_URING" help:"Write to many clients in one system call, where the kernel can (on)."`

	BayeuxTimeout     time.Duration `default:"30s" env:"HALLEY_BAYEUX_TIMEOUT" help:"How long a connect of a CometD or Faye client is held, up to 60s (${default})." placeholder:"DUR"`
	BayeuxMaxInterval time.Duration `default:"10s" env:"HALLEY_BAYEUX_MAX_INTERVAL" help:"How long such a client's session lasts without a connect (${default})." placeholder:"DUR"`
	BayeuxMaxSessions int           `default:"100000" env:"HALLEY_BAYEUX_MAX_SESSIONS" help:"Sessions of such clients at once (${default})." placeholder:"N"`

	cluster

	Origins []string `env:"HALLEY_ORIGINS" help:"Web origins whose pages may use the server, beside its own and loopback; * for all." placeholder:"ORIGIN"`
	Hosts   []string `env:"HALLEY_HOSTS" help:"Host names that browsers reach the server by; others are refused." placeholder:"HOST"`

	access
	DryRun      bool   `help:"Find out whether the server would start with these settings, say why not, and end."`
	AdminListen string `env:"HALLEY_ADMIN_LISTEN" help:"Address for operators: metrics, health and profiles; port 0 picks one; off by default." placeholder:"ADDR"`
	logging

	policies []policy // from the file
}

// Run serves until SIGTERM or SIGINT, and then drains.
func (c *serveCmd) Run() (err error) {
	var next *successor
	defer func() { // once everything is closed
		if next != nil && err == nil {
			err = next.run()
		}
	}()
	c.setLogging()
	if c.DryRun {
		return c.dryRun()
	}
	var operators *admin
	if c.AdminListen != "" {
		if operators, err = startAdmin(c.AdminListen); err != nil {
			return err
		}
		defer operators.close()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log, err := c.openEngine(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // it was told to stop before there was a log
	}
	if err != nil {
		return err
	}
	defer log.Close()
	options := c.options()
	var revoked *revokedFile // of the directory that the log is in
	if c.onDisk() {
		if revoked, err = openRevoked(c.DataDir); err != nil {
			return fmt.Errorf("--data-dir: %w", err)
		}
		defer revoked.close()
		options.Revoked, options.KeepRevocation = revoked.list(), revoked.keep
	}
	authorizer, closer, err := c.authorizer()
	if err != nil {
		return err
	}
	if closer != nil {
		defer closer.Close()
	}
	options.Authorizer = authorizer
	hub, err := halley.New(log, options)
	if err != nil {
		return err
	}
	defer hub.Close()
	if operators != nil {
		operators.show(hub, log)
	}

	listener, handedOver, err := listen(c.Listen)
	if err != nil {
		return err
	}
	if err := c.access.check(listener.Addr()); err != nil {
		return err
	}
	var front *bayeux.Handler
	if c.Bayeux {
		if front, err = bayeux.New(hub, c.bayeuxOptions()); err != nil {
			return err
		}
		defer front.Close()
		front.Read("/bayeux")
		if operators != nil {
			operators.registry.MustRegister(metrics.NewBayeux(front.Sessions))
		}
	}
	server := c.newServer(hub, front)
	hup, reload := make(chan os.Signal, 1), func() {}
	scheme := "http"
	if c.TLSCert != "" || c.TLSKey != "" {
		cert, err := loadCertificate(c.TLSCert, c.TLSKey)
		if err != nil {
			return fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get}
		scheme = "https"
		signal.Notify(hup, syscall.SIGHUP)
		reload = cert.reload
	}
	restart := make(chan os.Signal, 1)
	notifyRestart(restart)

	if os.Getenv("GOGC") == "" {
		go boundGarbage(ctx)
	}
	if log, ok := log.(*disk.Log); ok {
		go tellStopped(ctx, log)
	}
	if onDisk := diskLog(log); onDisk != nil {
		control, err := startControl(c.DataDir, onDisk, revoked)
		if err != nil {
			slog.Warn("halley: there is no control socket: halley log cannot reach this server", "error", err)
		} else {
			defer control.close()
		}
	}
	served := make(chan error, 1)
	socket := hub.Front(server, listener)
	go func() {
		if scheme == "https" {
			served <- server.ServeTLS(socket, "", "")
			return
		}
		served <- server.Serve(socket)
	}()
	if addr, ok := listener.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		if len(c.Hosts) == 0 {
			slog.Warn("halley: without --hosts, pages of strangers may reach this address under a name of their own")
		}
	}
	go tellRefused(ctx, slog.Default(), func() map[string]uint64 { return hub.Stats().Refused })
	url := scheme + "://" + listener.Addr().String()
	c.say(fmt.Sprintf("halley: ready at %s (%s)", url, c.place()), "halley: ready", "url", url, "place", c.place())
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady) // where systemd wants to know
	for next == nil && ctx.Err() == nil {
		select {
		case err := <-served:
			return err
		case <-hup:
			reload()
		case <-restart:
			if next, err = succeed(listener); err != nil {
				slog.Error("halley: this program goes on, as none can follow it", "error", err)
			}
		case <-ctx.Done():
		}
	}
	stop()                // a second signal ends the program at once
	var kept net.Listener // unless the socket goes with this process
	if handedOver || next != nil {
		kept = socket
	}
	if err := c.drain(hub, server, kept); err != nil {
		return err
	}
	c.say("halley: stopped", "halley: stopped")
	return nil
}

// drain lets clients go, each told when to come back, and then the requests
// that are being answered. Connections to front, if it is not nil, are for who
// has its socket next.
func (c *serveCmd) drain(hub *halley.Hub, server *http.Server, front net.Listener) error {
	c.say("halley: draining", "halley: draining", "connections", hub.Connections())
	ctx, cancel := context.WithTimeout(context.Background(), c.DrainTimeout)
	defer cancel()
	if err := hub.Drain(ctx); err != nil {
		slog.Warn("halley: connections were cut that did not take their leave in time", "connections", hub.Connections())
		hub.Close()
	}
	if l, ok := front.(interface{ StopAccepting() }); ok {
		l.StopAccepting()
		time.Sleep(askTime)
	}
	// What is being answered gets a moment of its own.
	ctx, cancel = context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// shutdownTime is how long requests may take to be answered at the end, and
// askTime how long those take to come whose connection was accepted last.
const (
	shutdownTime = 3 * time.Second
	askTime      = 250 * time.Millisecond
)

// options are the settings that are the hub's.
func (c *serveCmd) options() *halley.Options {
	o := &halley.Options{
		Path:           "/comet",
		Heartbeat:      c.Heartbeat,
		PollTimeout:    c.PollTimeout,
		WriteTimeout:   c.WriteTimeout,
		MultipartLimit: c.MultipartLimit,
		Origins:        c.Origins,
		Hosts:          c.Hosts,
		MaxMessage:     int(c.MaxMessage),
		MaxBody:        int(c.MaxBody),
		MaxChannels:    c.MaxChannels,
		MaxConnections: c.MaxConnections,
		DrainWindow:    max(c.DrainWindow, time.Millisecond),
		AdmitRate:      cmp.Or(c.AdmitRate, -1),
		TrustedProxies: c.TrustedProxies,
		NoIOUring:      !c.IOUring,
		Version:        version(),
	}
	c.access.set(o)
	for _, p := range c.policies {
		if p.ActiveContent {
			o.ActiveContent = append(o.ActiveContent, p.Pattern)
		}
		o.SlowClients = append(o.SlowClients, p.slowClients())
	}
	return o
}

func (c *serveCmd) bayeuxOptions() *bayeux.Options {
	return &bayeux.Options{
		Timeout:          c.BayeuxTimeout,
		MaxInterval:      c.BayeuxMaxInterval,
		MaxSessions:      c.BayeuxMaxSessions,
		MaxBody:          int(min(c.MaxBody, 2*c.MaxMessage+64<<10)), // a character may be written as six
		MaxSubscriptions: c.MaxChannels,
	}
}

func (c *serveCmd) newServer(hub *halley.Hub, front *bayeux.Handler) *http.Server {
	mux := http.NewServeMux()
	mux.Handle("/comet", hub) // not redirected, but told that there is nothing
	mux.Handle("/comet/", hub)
	if front != nil {
		mux.Handle("/bayeux", front)
		mux.Handle("/bayeux/", front)
	}
	handleHealth(mux, hub)
	if c.Demo {
		mux.Handle("/", demo.Handler(hub, c.Hosts))
	}
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
		Protocols:         new(http.Protocols),
		// A peer that is gone without a word is noticed by a ping.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	return server
}
