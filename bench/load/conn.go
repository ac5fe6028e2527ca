package load

import (
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

type state uint8

const (
	closed     state = iota
	connecting       // saying its dialog
	streaming
	polling
	publishing
	deaf // never reads
)

// A conn is one connection. Idle streams need no memory but this.
type conn struct {
	fd     int32
	number int32 // of the subscribers, or of the publishers
	state  state
	scan   scanner
	track  track
	talk   *talk
}

// A talk is what a connection has besides a stream's counting: a dialog that
// goes on, requests and answers, or a message of which some is still to come.
type talk struct {
	dialog  Dialog
	step    int
	waiting bool // for the connection to be made, or for room to send
	request []byte
	owed    int // answers that a publisher waits for
	out     []byte
	in      []byte
}

// sources is how many loopback addresses connections come from. One has about
// 28,000 ports.
const sources = 4

// dial begins a connection. Buffer is the size of its receive buffer, or 0.
func dial(to netip.AddrPort, index, buffer int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if buffer > 0 {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer)
	}
	source := unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(2 + index%sources)}}
	if err := unix.Bind(fd, &source); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("bind: %w", err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return 0, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// abort closes a socket with a reset.
func abort(fd int32) {
	unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(int(fd))
}

// recv reads without blocking. It is a raw system call, since it never waits.
func recv(fd int32, buf []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
		uintptr(pointer(buf)), uintptr(len(buf)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func send(fd int32, data []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
		uintptr(pointer(data)), uintptr(len(data)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}
