package load

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func pointer(data []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(data)) }

// A poller is an epoll descriptor and the room for its events.
type poller struct {
	fd     int
	events [256]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &poller{fd: fd}, err
}

func (p *poller) add(fd int32, index int, events uint32) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: events, Fd: int32(index)})
}

func (p *poller) change(fd int32, index int, events uint32) error {
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, int(fd), &unix.EpollEvent{Events: events, Fd: int32(index)})
}

// wait returns what happened. It first looks without waiting, by a raw system
// call, and gives up its thread only where there is nothing.
func (p *poller) wait(timeout time.Duration) []unix.EpollEvent {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), 0, 0, 8)
	if errno == 0 && n > 0 {
		return p.events[:n]
	}
	if timeout <= 0 {
		return nil
	}
	limit := unix.NsecToTimespec(int64(timeout))
	n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), uintptr(unsafe.Pointer(&limit)), 0, 8)
	if errno != 0 {
		return nil
	}
	return p.events[:n]
}
