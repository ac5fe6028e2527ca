package main

import "errors"

type conformanceCmd struct {
	URL string `arg:"" help:"Where the server's protocol is mounted, e.g. http://127.0.0.1:8080/comet."`
}

// Run tests the server and prints each case.
func (c *conformanceCmd) Run() error { return errors.New("not there yet") }
