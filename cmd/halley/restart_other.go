//go:build !unix

package main

import (
	"errors"
	"net"
	"os"
)

// A program cannot be executed in place of this one here.

func notifyRestart(chan<- os.Signal) {}

func inherit() (net.Listener, error) { return nil, nil }

type successor struct{}

func succeed(net.Listener) (*successor, error) { return nil, errors.ErrUnsupported }

func (s *successor) run() error { return errors.ErrUnsupported }
