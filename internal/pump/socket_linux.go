package pump

import (
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const haveSockets = true

// A poller is one epoll (epoll(7)) for the sockets of a worker, which sleeps in
// it. Events are edge-triggered: they tell of changes, so that a socket costs
// nothing while nothing changes.
type poller struct {
	fd int
	// sleeping is set while the worker is about to sleep, or sleeps.
	sleeping atomic.Bool
	buf      [256]event
	got      int // events in buf

	mu    sync.Mutex // of who wakes, and of close: event may be another's file then
	event int        // guarded by mu: eventfd(2), whose events wake the worker; -1 once closed
}

// An event carries the socket and its generation.
type event syscall.EpollEvent

func (e *event) socket() (fd int32, generation uint32) { return e.Fd, uint32(e.Pad) }
func (e *event) readable() bool                        { return e.Events&syscall.EPOLLIN != 0 }
func (e *event) writable() bool                        { return e.Events&syscall.EPOLLOUT != 0 }
func (e *event) closed() bool                          { return e.Events&syscall.EPOLLRDHUP != 0 }
func (e *event) broken() bool                          { return e.Events&(syscall.EPOLLHUP|syscall.EPOLLERR) != 0 }

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		_ = syscall.Close(fd)
		return nil, os.NewSyscallError("eventfd2", errno)
	}
	p := &poller{fd: fd, event: int(n)}
	if err := p.add(int32(n), 0, true); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = syscall.Close(p.event) // there is nothing left to be done
	_ = syscall.Close(p.fd)    // the same
	p.event = -1
}

// wake ends the worker's sleep, or the one that it is about to begin. It may be
// called from any goroutine.
func (p *poller) wake() {
	if p.sleeping.Load() && p.sleeping.Swap(false) {
		p.mu.Lock()
		defer p.mu.Unlock()
		// It is never read: that it is written to is the event.
		one := uint64(1)
		_, _, _ = syscall.RawSyscall(syscall.SYS_WRITE, uintptr(p.event), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// sleep waits for events, unless something is there already that there would
// have been a wake for.
func (p *poller) sleep(d time.Duration, there func() bool) {
	p.sleeping.Store(true)
	if !there() {
		p.wait(d)
	}
	p.sleeping.Store(false)
}

// wait gets events. It does not wait for them if d is 0, and is a raw system
// call then.
func (p *poller) wait(d time.Duration) {
	call, milliseconds := syscall.RawSyscall6, 0
	if d > 0 {
		call, milliseconds = syscall.Syscall6, int((d+time.Millisecond-1)/time.Millisecond)
	}
	n, _, _ := call(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.buf[0])), uintptr(len(p.buf)), uintptr(milliseconds), 0, 0)
	p.got = max(int(n), 0) // it is -1 after a signal
}

// events returns what there is, and whether there may be more.
func (p *poller) events() (list []event, more bool) {
	if p.got == 0 {
		p.wait(0)
	}
	list, p.got = p.buf[:p.got], 0
	return list, len(list) == len(p.buf)
}

// always is of interest on every socket: that the client is gone, once
// (EPOLLET, which package syscall has as a negative number).
const always = syscall.EPOLLRDHUP | 1<<31

func interest(input, room bool) uint32 {
	e := uint32(always)
	if input {
		e |= syscall.EPOLLIN
	}
	if room {
		e |= syscall.EPOLLOUT
	}
	return e
}

func (p *poller) add(fd int32, generation uint32, input bool) error {
	return os.NewSyscallError("epoll_ctl", p.control(syscall.EPOLL_CTL_ADD, fd, generation, interest(input, false)))
}

// watchRoom has the poller tell when a full socket takes more. It stays: where
// there always is room, nothing changes.
func (p *poller) watchRoom(fd int32, generation uint32, input bool) {
	_ = p.control(syscall.EPOLL_CTL_MOD, fd, generation, interest(input, true)) // the client's time runs out if it fails
}

func (p *poller) remove(fd int32) {
	_ = p.control(syscall.EPOLL_CTL_DEL, fd, 0, 0) // it is closed if it fails
}

func (p *poller) control(op int, fd int32, generation uint32, events uint32) error {
	return syscall.EpollCtl(p.fd, op, int(fd), &syscall.EpollEvent{Events: events, Fd: fd, Pad: int32(generation)})
}

var errAgain error = syscall.EAGAIN

// sendFlags: a full socket is told, not waited for, and a broken one makes no
// signal.
const sendFlags = syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL

// sendTo writes to a socket, and returns the number of bytes that it took, or
// -1 if it is broken. It is a raw system call, which the scheduler is not told
// of: it does not wait, and takes some microseconds.
func sendTo(fd int32, b []byte) int {
	if len(b) == 0 {
		return 0
	}
	for {
		n, _, errno := syscall.RawSyscall6(sysSendto, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), sendFlags, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case syscall.EAGAIN:
			return 0
		case syscall.EINTR:
		default:
			return -1
		}
	}
}

// hasGone looks at what comes next from a socket, which may be its end.
func hasGone(fd int32) bool {
	var b [1]byte
	for {
		n, _, errno := syscall.RawSyscall6(sysRecvfrom, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_DONTWAIT|syscall.MSG_PEEK, 0, 0)
		switch errno {
		case 0:
			return n == 0
		case syscall.EINTR:
		default:
			return errno != syscall.EAGAIN
		}
	}
}

// receive reads from a socket into b.
func receive(fd int32, b []byte) ([]byte, error) {
	for {
		n, _, errno := syscall.RawSyscall6(sysRecvfrom, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return b[:n], nil
		case syscall.EINTR:
		case syscall.EAGAIN:
			return nil, errAgain
		default:
			return nil, errno
		}
	}
}

// unsent is how much may wait in a socket that was not sent yet: without a
// bound the system takes some megabytes before it says that there is no room.
const unsent = 128 << 10

func limitUnsent(fd int32) {
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotsentLowat, unsent) // it is not there for Unix sockets
}

const tcpNotsentLowat = 25 // TCP_NOTSENT_LOWAT, tcp(7)

func shutdownWrite(fd int32) { _ = syscall.Shutdown(int(fd), syscall.SHUT_WR) } // it is closed in any case

func closeFD(fd int32) { _ = syscall.Close(int(fd)) } // there is nothing left to be done

// A sender writes to sockets.
type sender struct {
	ring    *ring // nil where there is none
	results [sendBatch]int32
}

// ringBatch is the number of sends from which on a ring costs less than a
// system call for each.
const ringBatch = 16

// start finds out what the system offers.
func (s *sender) start(noRing bool) {
	if !noRing {
		s.ring, _ = newRing(sendBatch) // without one, each send is a call
	}
}

func (s *sender) send(fd int32, b []byte) int { return sendTo(fd, b) }

// sendAll writes to at most sendBatch sockets, and returns what send would for
// each.
func (s *sender) sendAll(queue []outgoing) []int32 {
	results := s.results[:len(queue)]
	done := 0
	if s.ring != nil && len(queue) >= ringBatch {
		var ok bool
		if done, ok = s.ring.sendAll(queue, results); !ok {
			s.close() // each send is a call from now on
		}
	}
	for i := done; i < len(queue); i++ {
		results[i] = int32(sendTo(queue[i].conn.fd, queue[i].bytes))
	}
	return results
}

func (s *sender) close() {
	if s.ring != nil {
		s.ring.close()
		s.ring = nil
	}
}

// remoteAddr returns the address of a socket's other side (getpeername(2)).
func remoteAddr(fd int32) netip.AddrPort {
	sa, err := syscall.Getpeername(int(fd))
	if err != nil {
		return netip.AddrPort{}
	}
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
