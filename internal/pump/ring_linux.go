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
// linux/io_uring.h, which are the same on all of Go's platforms.
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
	r := &ring{fd: int(fd)}
	syscall.CloseOnExec(r.fd)
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

// sendAll sends to sockets, at most as many as the ring has entries, and sets
// results to what sendTo would return for each. It returns false if the kernel
// takes no more: the ring is then of no use, and what it did not come to counts
// as broken.
func (r *ring) sendAll(queue []outgoing, results []int32) bool {
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
	for submitted, done := 0, 0; done < len(queue); {
		n, _, errno := syscall.Syscall6(sysRingEnter, uintptr(r.fd), uintptr(len(queue)-submitted), uintptr(len(queue)-done), enterGetEvents, 0, 0)
		if errno != 0 && errno != syscall.EINTR && errno != syscall.EAGAIN {
			return false
		}
		if errno == 0 {
			submitted += int(n)
		}
		head, end := atomic.LoadUint32(r.cqHead), atomic.LoadUint32(r.cqTail)
		for ; head != end; head++ {
			c := &r.cqes[head&r.cqMask]
			results[c.userData] = sent(c.result)
			done++
		}
		atomic.StoreUint32(r.cqHead, head)
	}
	runtime.KeepAlive(queue) // the kernel has had addresses of its bytes
	return true
}

// sent returns what sendTo would for a result.
func sent(result int32) int32 {
	switch -result {
	case int32(syscall.EAGAIN), int32(syscall.EINTR):
		return 0
	}
	return max(result, -1)
}
