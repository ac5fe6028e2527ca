package pump

import (
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// A ring is an io_uring (io_uring(7)) that sends to many sockets in one system
// call. Nothing in it outlives the call: a send to a full socket fails at once
// (MSG_DONTWAIT) instead of waiting in the kernel.
//
// Package syscall knows nothing of it. The numbers and layouts are those of
// linux/io_uring.h, which are the same on all of Go's platforms but MIPS, where
// the numbers are of no call and there is no ring.
type ring struct {
	fd      int
	rings   []byte // mapping of both queues
	entries []byte // mapping of sqes

	sqes   []sqe
	sqTail *uint32
	sqMask uint32
	cqes   []cqe
	cqHead *uint32
	cqTail *uint32
	cqMask uint32

	// enter is io_uring_enter(2) with the number of entries to take and of
	// results to wait for; it returns how many were taken.
	enter func(take, wait int) (int, syscall.Errno)
}

// An sqe is what is to be done (struct io_uring_sqe).
type sqe struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	offset   uint64
	address  uint64
	length   uint32
	msgFlags uint32
	userData uint64
	_        [3]uint64
}

// A cqe is what has been done (struct io_uring_cqe).
type cqe struct {
	userData uint64
	result   int32
	flags    uint32
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32
	sq                                                                 struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

const (
	sysRingSetup = 425
	sysRingEnter = 426

	setupSubmitAll   = 1 << 7  // go on after an entry that fails
	setupCoopTaskrun = 1 << 8  // no interrupts for what is done anyway
	setupNoSQArray   = 1 << 16 // entries are taken in their order
	featSingleMmap   = 1 << 0
	enterGetEvents   = 1 << 0
	offsetSQEs       = 0x10000000
	opSend           = 26
)

// newRing returns a ring for so many sends at once. It fails where the kernel
// has none (it needs Linux 6.6), or where it is switched off, as containers do.
func newRing(size int) (*ring, error) {
	p := ringParams{flags: setupSubmitAll | setupCoopTaskrun | setupNoSQArray}
	fd, _, errno := syscall.Syscall(sysRingSetup, uintptr(size), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r := &ring{fd: int(fd)} // it is closed on exec
	r.enter = r.sysEnter
	if p.features&featSingleMmap == 0 {
		r.close()
		return nil, os.NewSyscallError("io_uring_setup", syscall.ENOSYS)
	}
	const protection, flags = syscall.PROT_READ | syscall.PROT_WRITE, syscall.MAP_SHARED | syscall.MAP_POPULATE
	length := int(p.cq.cqes) + int(p.cqEntries)*int(unsafe.Sizeof(cqe{}))
	var err error
	if r.rings, err = syscall.Mmap(r.fd, 0, length, protection, flags); err == nil {
		r.entries, err = syscall.Mmap(r.fd, offsetSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), protection, flags)
	}
	if err != nil {
		r.close()
		return nil, os.NewSyscallError("mmap", err)
	}
	at := func(offset uint32) unsafe.Pointer { return unsafe.Pointer(&r.rings[offset]) }
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.entries[0])), p.sqEntries)
	r.sqTail, r.sqMask = (*uint32)(at(p.sq.tail)), *(*uint32)(at(p.sq.mask))
	r.cqes = unsafe.Slice((*cqe)(at(p.cq.cqes)), p.cqEntries)
	r.cqHead, r.cqTail, r.cqMask = (*uint32)(at(p.cq.head)), (*uint32)(at(p.cq.tail)), *(*uint32)(at(p.cq.mask))
	return r, nil
}

func (r *ring) close() {
	if r.entries != nil {
		_ = syscall.Munmap(r.entries) // there is nothing left to be done
	}
	if r.rings != nil {
		_ = syscall.Munmap(r.rings) // the same
	}
	_ = syscall.Close(r.fd) // the same
}

func (r *ring) sysEnter(take, wait int) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall6(sysRingEnter, uintptr(r.fd), uintptr(take), uintptr(wait), enterGetEvents, 0, 0)
	return int(n), errno
}

// sendAll sends to sockets, at most as many as the ring has entries, and sets
// results to what sendTo would return for each. It returns how many the kernel
// took, and false if it takes no more: the ring is then of no use. One that was
// taken and has no result counts as broken, as it may have been sent.
func (r *ring) sendAll(queue []outgoing, results []int32) (taken int, ok bool) {
	defer runtime.KeepAlive(queue) // the kernel has addresses of its bytes
	tail := atomic.LoadUint32(r.sqTail)
	for i := range queue {
		results[i] = -1
		o := &queue[i]
		r.sqes[tail&r.sqMask] = sqe{
			opcode: opSend, fd: o.conn.fd, msgFlags: sendFlags, userData: uint64(i),
			address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(o.bytes)))), length: uint32(len(o.bytes)),
		}
		tail++
	}
	atomic.StoreUint32(r.sqTail, tail)
	for done, tries := 0, 0; done < len(queue); {
		n, errno := r.enter(len(queue)-taken, len(queue)-done)
		switch {
		case errno == syscall.EINTR:
		case errno == syscall.EAGAIN, errno == 0 && n == 0 && taken < len(queue): // there is no memory
			tries++
		case errno == 0:
			taken += n
		default:
			tries = ringTries
		}
		head, end := atomic.LoadUint32(r.cqHead), atomic.LoadUint32(r.cqTail)
		for ; head != end; head++ {
			c := &r.cqes[head&r.cqMask]
			o := &queue[c.userData]
			switch -c.result {
			case int32(syscall.EAGAIN):
				results[c.userData] = 0
			case int32(syscall.EINTR): // not full: the poller would tell of no room
				results[c.userData] = int32(sendTo(o.conn.fd, o.bytes))
			default:
				results[c.userData] = max(c.result, -1)
			}
			done++
		}
		atomic.StoreUint32(r.cqHead, head)
		if tries >= ringTries && done < len(queue) {
			return taken, false
		}
	}
	return taken, true
}

// ringTries is how often to ask a kernel that has no memory.
const ringTries = 100
