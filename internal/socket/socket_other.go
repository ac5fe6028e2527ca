//go:build !linux

package socket

import (
	"context"
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

// A TLS does not exist.
type TLS struct{}

// TLSListener returns the listener.
func TLSListener(l net.Listener) net.Listener { return l }

// CanParkTLS reports false.
func CanParkTLS(context.Context) bool { return false }

// TLSOf returns nil.
func TLSOf(net.Conn) *TLS { return nil }

// Descriptor reports false.
func (*TLS) Descriptor() (fd int, ok bool) { return 0, false }

// Park reports false.
func (*TLS) Park(net.Conn) (fd int, ok bool) { return 0, false }

// Send, Flush, Waits, Receive and Goodbye are never called.
func (*TLS) Send([]byte) int    { return -1 }
func (*TLS) Flush() int         { return -1 }
func (*TLS) Waits() bool        { return false }
func (*TLS) Receive([]byte) int { return -1 }
func (*TLS) Goodbye()           {}
