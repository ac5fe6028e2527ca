package main

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
)

// listen returns the socket to serve: one that was handed over, by the program
// that was in this one's place or by systemd (sd_listen_fds(3)), or else one at
// an address. A socket that was handed over outlives this process: clients that
// connect while nobody serves it wait, and are not refused.
func listen(addr string) (l net.Listener, handedOver bool, err error) {
	if l, err = inherit(); l != nil || err != nil {
		return l, true, err
	}
	sockets, err := activation.Listeners()
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("the sockets that systemd hands over: %w", err)
	case len(sockets) > 1:
		return nil, false, fmt.Errorf("systemd hands over %d sockets, where one is to be served", len(sockets))
	case len(sockets) == 1 && sockets[0] == nil:
		return nil, false, fmt.Errorf("the socket that systemd hands over does not listen")
	case len(sockets) == 1:
		return sockets[0], true, nil
	}
	l, err = net.Listen("tcp", addr)
	return l, false, err
}
