//go:build !linux

package socket

import (
	"errors"
	"net"
)

// Elsewhere there are no bare sockets.
var errNone = errors.New("socket: not on this system")

// Detach reports false.
func Detach(net.Conn) (fd int, ok bool) { return 0, false }

// Descriptor reports false.
func Descriptor(net.Conn) (fd int, ok bool) { return 0, false }

// Attach returns an error.
func Attach(int) (net.Conn, error) { return nil, errNone }

// Close does nothing.
func Close(int) {}

// An Acceptor accepts bare sockets.
type Acceptor struct{}

// Listen returns an error.
func Listen(*net.TCPListener) (*Acceptor, error) { return nil, errNone }

// Run returns an error.
func (*Acceptor) Run(func(int, bool)) error { return errNone }

// Close does nothing.
func (*Acceptor) Close() error { return nil }
