// Package socket takes sockets out of net's connections and listeners, and puts
// them back.
package socket

import (
	"net"
	"os"
	"syscall"
	"time"
)

// Detach returns a descriptor of a connection's socket, and closes the
// connection, so that nothing of it is left in memory or in the runtime's
// poller. It reports false for what is not a bare socket.
func Detach(conn net.Conn) (fd int, ok bool) {
	raw := rawConn(conn)
	if raw == nil {
		return 0, false
	}
	if fd, ok = duplicate(raw); ok {
		_ = conn.Close() // the socket is still open
	}
	return fd, ok
}

// Descriptor returns the descriptor of a connection that stays open.
func Descriptor(conn net.Conn) (fd int, ok bool) {
	raw := rawConn(conn)
	if raw == nil {
		return 0, false
	}
	err := raw.Control(func(of uintptr) { fd = int(of) })
	return fd, err == nil
}

// Attach makes a connection of a descriptor, which is the connection's then.
func Attach(fd int) (net.Conn, error) {
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close() // the connection has a duplicate
	return net.FileConn(file)
}

// Close closes a descriptor.
func Close(fd int) { _ = syscall.Close(fd) } // there is nothing left to be done

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

func duplicate(raw syscall.RawConn) (fd int, ok bool) {
	err := raw.Control(func(of uintptr) {
		n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, of, syscall.F_DUPFD_CLOEXEC, 0)
		fd, ok = int(n), errno == 0
	})
	return fd, err == nil && ok
}

// An Acceptor accepts bare sockets.
type Acceptor struct {
	file     *os.File
	loopback bool // all of them are
	wildcard bool // each may be
}

// Listen makes an acceptor of a listener, which is to be closed after it.
func Listen(l *net.TCPListener) (*Acceptor, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, ok := duplicate(raw)
	if !ok {
		return nil, os.NewSyscallError("fcntl", syscall.EBADF)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // or the runtime does not poll it
		Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	// What is accepted inherits these (tcp(7)), which net sets on each: it costs
	// no calls. Where they cannot be set, what they are for takes longer.
	for _, o := range []struct{ level, option, value int }{
		{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
		{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 9},
	} {
		_ = syscall.SetsockoptInt(fd, o.level, o.option, o.value)
	}
	a := &Acceptor{file: os.NewFile(uintptr(fd), "listener")}
	if addr, ok := l.Addr().(*net.TCPAddr); ok {
		a.loopback, a.wildcard = addr.IP.IsLoopback(), addr.IP.IsUnspecified()
	}
	return a, nil
}

// retryAccept is how long to wait when no socket can be accepted, as there are
// too many.
const retryAccept = 50 * time.Millisecond

// Run calls accepted with every socket, non-blocking, and whether it came in on
// a loopback address, until the acceptor is closed.
func (a *Acceptor) Run(accepted func(fd int, loopback bool)) error {
	raw, err := a.file.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var failed error
		err := raw.Read(func(listener uintptr) bool {
			for {
				fd, _, err := syscall.Accept4(int(listener), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
				switch err {
				case nil:
					accepted(fd, a.loopback || a.wildcard && onLoopback(fd))
				case syscall.EAGAIN:
					return false
				case syscall.EINTR, syscall.ECONNABORTED:
				default:
					failed = err
					return true
				}
			}
		})
		if err != nil {
			return err
		}
		if failed != nil {
			time.Sleep(retryAccept)
		}
	}
}

// Close ends Run.
func (a *Acceptor) Close() error { return a.file.Close() }

// onLoopback tells whether a socket's own address is one of this machine alone.
func onLoopback(fd int) bool {
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		return true // which is checked more strictly
	}
	switch a := addr.(type) {
	case *syscall.SockaddrInet4:
		return net.IP(a.Addr[:]).IsLoopback()
	case *syscall.SockaddrInet6:
		return net.IP(a.Addr[:]).IsLoopback()
	}
	return false
}
