package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/halley-comet/halley/internal/doctor"
)

type doctorCmd struct {
	URL      string        `arg:"" help:"Where the server's protocol is mounted, as clients reach it, e.g. https://push.example.com/comet."`
	Origin   string        `help:"Origin of a page that is to use the server." placeholder:"ORIGIN"`
	Token    string        `env:"HALLEY_TOKEN" help:"Bearer token."`
	Insecure bool          `help:"Do not check the server's certificate."`
	Wait     time.Duration `default:"2s" help:"How long something may take that should come at once (${default})." placeholder:"DUR"`
	Patience time.Duration `help:"How long silent connections are watched for heartbeats and cuts; without, two of the server's heartbeats." placeholder:"DUR"`
	Quick    bool          `help:"Do not watch silent connections."`
	JSON     bool          `name:"json" help:"Print JSON."`
}

// Run exits with 1 if only polling works, and with 2 if nothing does.
func (c *doctorCmd) Run() error {
	ctx, stop := interruptible()
	defer stop()
	o := doctor.Options{Origin: c.Origin, Token: c.Token, Wait: c.Wait, Patience: c.Patience}
	if c.Insecure {
		o.TLS = &tls.Config{InsecureSkipVerify: true} // #nosec G402 -- it is asked for
	}
	if c.Quick {
		o.Patience = -1
	} else {
		fmt.Fprintln(os.Stderr, "halley: this takes a minute or so; with --quick, some seconds")
	}
	r, err := doctor.Run(ctx, c.URL, o)
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	if c.JSON {
		if err := printJSON(r); err != nil {
			return err
		}
	} else {
		r.Print(os.Stdout)
	}
	if exit := r.Exit(); exit > 0 {
		stop()
		os.Exit(exit)
	}
	return nil
}
