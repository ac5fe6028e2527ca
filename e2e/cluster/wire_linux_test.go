package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A wire joins the ports of network namespaces, as a switch does. It is in user
// space since it delays and drops frames as it is told, which not every kernel
// can. All of it is gone when its file descriptors are closed, so that a test
// binary leaves nothing behind, however it ends.
type wire struct {
	subnet string // of all ports, as "198.18.7."
	ports  []*port

	mu     sync.RWMutex // guards faults
	faults map[link]fault

	delayed map[link]chan frame
	reading sync.WaitGroup
	frames  atomic.Int64 // taken from ports
}

// A port is a namespace's only way out: a TAP device whose other end is here.
type port struct {
	number    int
	address   string // IPv4
	tap       *os.File
	namespace *os.File
}

// A link is one direction between two ports.
type link struct{ from, to int }

// A fault is what happens to the frames of a link.
type fault struct {
	cut   bool
	delay time.Duration
	loss  float64 // of 1
}

// A frame is one that is on its way.
type frame struct {
	bytes []byte
	due   time.Time
}

// newWire returns a wire with the test's own port, whose number is 0, and n
// others.
func newWire(t *testing.T, n int) *wire {
	t.Helper()
	w := &wire{subnet: freeSubnet(t), faults: make(map[link]fault), delayed: make(map[link]chan frame)}
	done := make(chan struct{})
	t.Cleanup(func() {
		close(done)
		for _, p := range w.ports {
			p.tap.Close()
			p.namespace.Close()
		}
		w.reading.Wait()
	})
	for i := range n + 1 {
		p, err := newPort(w.subnet, i)
		if errors.Is(err, os.ErrPermission) {
			t.Skipf("needs root, to make network namespaces: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		w.ports = append(w.ports, p)
	}
	for from := range w.ports {
		for to := range w.ports {
			queue := make(chan frame, 10_000)
			w.delayed[link{from, to}] = queue
			w.reading.Go(func() { w.deliver(w.ports[to], queue, done) })
		}
	}
	for _, p := range w.ports {
		w.reading.Go(func() { w.read(p) })
	}
	return w
}

// freeSubnet returns one of those that are set apart for tests of networks
// (RFC 2544), and that this machine does not use.
func freeSubnet(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 512 {
		n := (os.Getpid() + i) % 512
		used := false
		for _, a := range addresses {
			used = used || a.(*net.IPNet).Contains(net.IPv4(198, byte(18+n/256), byte(n), 1))
		}
		if !used {
			return fmt.Sprintf("198.%d.%d.", 18+n/256, n%256)
		}
	}
	t.Fatal("no subnet is free")
	return ""
}

func hardware(number int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(1 + number)} }

// newPort makes a port in a new namespace, or number 0 in the test's own.
func newPort(subnet string, number int) (*port, error) {
	p := &port{number: number, address: fmt.Sprint(subnet, 1+number)}
	return p, onThread(p.open)
}

// onThread calls f on a thread that ends then, so that f may move it to another
// namespace.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

func (p *port) open() error {
	name := fmt.Sprint("halley", os.Getpid())
	if p.number != 0 {
		name = "eth0"
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
	}
	var err error
	if p.namespace, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	// What this thread opens and runs is in its namespace.
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	p.tap = os.NewFile(uintptr(fd), name)
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "set", name, "address", hardware(p.number).String(), "up"},
		{"address", "add", p.address + "/24", "dev", name},
	} {
		if output, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w\n%s", args, err, output)
		}
	}
	return nil
}

// command returns a command that runs in the port's namespace.
func (p *port) command(program string, args ...string) *exec.Cmd {
	namespace := fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), p.namespace.Fd())
	return exec.Command("nsenter", append([]string{namespace, program}, args...)...)
}

// read takes the frames that a port sends.
func (w *wire) read(p *port) {
	buf := make([]byte, 64<<10)
	for {
		n, err := p.tap.Read(buf)
		if err != nil {
			return
		}
		if n < 14 {
			continue
		}
		w.frames.Add(1)
		for _, to := range w.ports {
			// The first bit of an address tells that it is for many.
			if to != p && (buf[0]&1 != 0 || bytes.Equal(buf[:6], hardware(to.number))) {
				w.pass(link{p.number, to.number}, buf[:n])
			}
		}
	}
}

// pass gives a frame to a link.
func (w *wire) pass(l link, b []byte) {
	w.mu.RLock()
	f := w.faults[l]
	w.mu.RUnlock()
	switch {
	case f.cut || f.loss > 0 && rand.Float64() < f.loss:
	case f.delay == 0:
		_, _ = w.ports[l.to].tap.Write(b) // what does not get through is lost, as on any wire
	default:
		select {
		case w.delayed[l] <- frame{bytes.Clone(b), time.Now().Add(f.delay)}:
		default:
		}
	}
}

// deliver writes what was delayed, in its order.
func (w *wire) deliver(p *port, queue <-chan frame, done <-chan struct{}) {
	for {
		select {
		case f := <-queue:
			time.Sleep(time.Until(f.due))
			_, _ = p.tap.Write(f.bytes)
		case <-done:
			return
		}
	}
}

// set has a fault on the links between some ports and others, in both
// directions.
func (w *wire) set(f fault, some, others []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range some {
		for _, b := range others {
			w.faults[link{a, b}], w.faults[link{b, a}] = f, f
		}
	}
}

// heal ends all faults.
func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.faults)
}
