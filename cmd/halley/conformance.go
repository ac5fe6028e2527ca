package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/halley-comet/halley/conformance"
)

type conformanceCmd struct {
	URL          string `arg:"" help:"Where the server's protocol is mounted, e.g. http://127.0.0.1:8080/comet."`
	Quick        bool   `help:"Cut streams at some of their bytes instead of at each."`
	Only         string `help:"Run only the cases whose names match." placeholder:"REGEXP"`
	Parallel     int    `default:"4" help:"Cases that run at once (${default})." placeholder:"N"`
	Token        string `env:"HALLEY_TOKEN" help:"Bearer token."`
	Insecure     bool   `help:"Do not check the server's certificate."`
	RetainPrefix string `help:"A channel under which the server keeps --retain-count messages of each channel, to test gaps." placeholder:"NAME"`
	RetainCount  int    `help:"See --retain-prefix." placeholder:"N"`
}

// Run tests the server and prints each case as it ends.
func (c *conformanceCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	o := conformance.Options{
		Quick:        c.Quick,
		Parallel:     c.Parallel,
		RetainPrefix: c.RetainPrefix,
		RetainCount:  c.RetainCount,
		Done:         func(r conformance.Result) { fmt.Println(r) },
	}
	if c.Only != "" {
		only, err := regexp.Compile(c.Only)
		if err != nil {
			return fmt.Errorf("--only: %w", err)
		}
		o.Only = only
	}
	if c.Token != "" {
		o.Header = http.Header{"Authorization": {"Bearer " + c.Token}}
	}
	if c.Insecure {
		o.TLS = &tls.Config{InsecureSkipVerify: true} // #nosec G402 -- it is asked for
	}
	report := conformance.Run(ctx, c.URL, o)
	fmt.Println(report.Summary())
	if report.Failed() > 0 {
		stop()
		os.Exit(1)
	}
	return nil
}
