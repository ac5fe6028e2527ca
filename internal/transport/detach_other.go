//go:build !linux

package transport

import "net"

// Elsewhere there are no parked connections.

func detach(net.Conn) (int, bool)     { return 0, false }
func descriptor(net.Conn) (int, bool) { return 0, false }
