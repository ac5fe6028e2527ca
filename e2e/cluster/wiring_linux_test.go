package cluster

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// listen listens for datagrams and connections in the port's namespace.
func (p *port) listen(t *testing.T) (packets net.PacketConn, connections net.Listener) {
	t.Helper()
	err := onThread(func() (err error) {
		if err := unix.Setns(int(p.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		if packets, err = net.ListenPacket("udp", p.address+":4000"); err != nil {
			return err
		}
		connections, err = net.Listen("tcp", p.address+":4000")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		packets.Close()
		connections.Close()
	})
	return packets, connections
}

// TestWire wants the wire to carry what it is given, fast enough to be no fault
// itself, and to make the faults that it is told to make.
func TestWire(t *testing.T) {
	gate(t)
	w := newWire(t, 2)
	packets, connections := w.ports[1].listen(t)
	go func() {
		for {
			c, err := connections.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	dial := func() (net.Conn, error) {
		return net.DialTimeout("tcp", connections.Addr().String(), time.Second)
	}
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// roundTrip is what an echo of one byte takes at least.
	roundTrip := func() time.Duration {
		least := time.Hour
		for range 10 {
			start := time.Now()
			if _, err := c.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			least = min(least, time.Since(start))
		}
		return least
	}
	plain := roundTrip()

	const size = 64 << 20
	before, start := w.frames.Load(), time.Now()
	go func() { _, _ = c.Write(make([]byte, size)) }()
	if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start).Seconds()
	frames := float64(w.frames.Load()-before) / took
	if frames < 5000 {
		t.Errorf("the wire carries %.0f frames a second", frames)
	}
	t.Logf("a round trip takes %v; %.0f frames and %.0f MiB a second each way", plain, frames, (size>>20)/took)

	w.set(fault{delay: 50 * time.Millisecond}, []int{1}, []int{0, 2})
	if slow := roundTrip(); slow < 100*time.Millisecond || slow > 200*time.Millisecond {
		t.Errorf("with 50ms each way a round trip takes %v", slow)
	}

	w.set(fault{loss: 0.02}, []int{0}, []int{1})
	const sent = 5000
	got := make(chan int)
	go func() {
		n := 0
		for {
			_ = packets.SetReadDeadline(time.Now().Add(time.Second))
			if _, _, err := packets.ReadFrom(make([]byte, 10)); err != nil {
				got <- n
				return
			}
			n++
		}
	}()
	from, err := net.Dial("udp", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	for i := range sent {
		fmt.Fprint(from, i)
		if i%50 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	lost := sent - <-got
	t.Logf("lost %d of %d", lost, sent)
	if lost < sent/100 || lost > sent/20 {
		t.Errorf("with a loss of 2 %%, %d of %d are lost", lost, sent)
	}

	w.set(fault{cut: true}, []int{1}, []int{0})
	if c, err := dial(); err == nil {
		c.Close()
		t.Error("a port can be reached that is cut off")
	}
	w.heal()
	roundTrip()
}
