package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/halley-comet/halley/comet"
)

type subscribeCmd struct {
	remote
	Channel   []string `required:"" sep:"none" help:"Channel or pattern; may be given several times." placeholder:"NAME"`
	Transport string   `default:"sse" enum:"sse,xhr-streaming,websocket,long-polling,jsonp,iframe,multipart" help:"How to receive (${default})." placeholder:"NAME"`
	Cursor    string   `help:"Where to start: a cursor, earliest or now (default)."`
}

// Run prints envelopes on standard output and controls on standard error, until
// it is interrupted.
func (c *subscribeCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	o := comet.Options{
		Channels:  c.Channel,
		Transport: comet.Transport(c.Transport),
		Cursor:    c.Cursor,
		Retrying: func(err error, delay time.Duration) {
			fmt.Fprintf(os.Stderr, "halley: %v; trying again in %v\n", err, delay.Round(time.Millisecond))
		},
	}
	for e, err := range c.client().Subscribe(ctx, o) {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Control != "" {
			fmt.Fprintf(os.Stderr, "%s\n", e.Envelope())
			continue
		}
		if _, err := out.Write(append(e.Envelope(), '\n')); err != nil {
			return err
		}
		// At once: there is no telling when the next one comes.
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return nil
}
