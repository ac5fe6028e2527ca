package pump

import (
	"encoding/binary"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/engine/memory"
)

// descriptors returns how many files the process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

// TestWake has goroutines put commands, each when its last was done, while the
// worker goes to sleep in between. Nothing is due for an hour, so one that did
// not wake it would be waited for as long.
func TestWake(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // with one, it hardly ever sleeps
	wakes := uint64(0)
	for _, goroutines := range []int{8, 2, 1} { // many keep it awake
		log, err := memory.New(memory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p := New(log, Options{Workers: 1, Heartbeat: time.Hour})
		fd, peer := socketPair(t)
		kind := &Kind{Silent: true, Framing: plain{}}
		p.Park(ConnOptions{Kind: kind, Channels: []string{"a"}}, Socket{FD: fd})
		w := p.workers[0]
		deadline := time.AfterFunc(30*time.Second, func() { panic("a worker was not woken") })
		var all sync.WaitGroup
		for range goroutines {
			all.Go(func() {
				for range 3000 / goroutines {
					done := make(chan struct{})
					w.inbox.put(command{do: func(*worker, *Conn) { close(done) }})
					<-done
				}
			})
		}
		all.Wait()
		var count [8]byte // of the eventfd's, if there was one
		if _, err := syscall.Read(w.poller.Load().event, count[:]); err == nil {
			wakes += binary.NativeEndian.Uint64(count[:])
		}
		p.Close() // which has to wake it too
		deadline.Stop()
		closeFD(int32(peer))
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
	if wakes == 0 {
		t.Error("the worker never slept")
	}
}

// TestLateWake shows that who comes too late to wake a worker does not write to
// the file that has the eventfd's descriptor then.
func TestLateWake(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	event := p.event
	p.sleeping.Store(true)
	p.close()
	// Another eventfd takes the number.
	n, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	other := int(n)
	if other != event {
		if err := syscall.Dup3(other, event, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer closeFD(int32(event))
	}
	defer closeFD(int32(other))
	p.wake()
	var b [8]byte
	if n, err := syscall.Read(other, b[:]); err != syscall.EAGAIN {
		t.Errorf("another's file was written to: %d bytes, %v", n, err)
	}
}

// TestSleep has someone wake a worker between its look at what is there and its
// sleep, where it must not be overheard.
func TestSleep(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	deadline := time.AfterFunc(30*time.Second, func() { panic("the wake was not heard") })
	defer deadline.Stop()
	for range 3 {
		p.sleep(time.Hour, func() bool { p.wake(); return false })
		p.sleep(time.Hour, func() bool { return true })
		if p.sleeping.Load() {
			t.Error("it sleeps on")
		}
	}
}
