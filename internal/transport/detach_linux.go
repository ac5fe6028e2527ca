package transport

import (
	"net"
	"syscall"
)

// detach returns a descriptor of a connection's socket, and closes the
// connection, so that nothing of it is left in memory or in the runtime's
// poller. It reports false for what is not a bare socket.
func detach(conn net.Conn) (fd int, ok bool) {
	raw := rawConn(conn)
	if raw == nil {
		return 0, false
	}
	err := raw.Control(func(of uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, of, syscall.F_DUPFD_CLOEXEC, 0)
		fd, ok = int(n), errno == 0
	})
	if err != nil || !ok {
		return 0, false
	}
	_ = conn.Close() // the socket is still open
	return fd, true
}

// descriptor returns the descriptor of a connection that stays open.
func descriptor(conn net.Conn) (fd int, ok bool) {
	raw := rawConn(conn)
	if raw == nil {
		return 0, false
	}
	err := raw.Control(func(of uintptr) { fd = int(of) })
	return fd, err == nil
}

func rawConn(conn net.Conn) syscall.RawConn {
	var sc syscall.Conn
	switch c := conn.(type) {
	case *net.TCPConn:
		sc = c
	case *net.UnixConn:
		sc = c
	default:
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
