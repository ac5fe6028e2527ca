package pump

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
)

// socketPair returns two connected stream sockets.
func socketPair(t testing.TB) (fd, peer int) {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pair[0], pair[1]
}

func testRing(t testing.TB) *ring {
	t.Helper()
	r, err := newRing(sendBatch)
	if err != nil {
		t.Skip("no io_uring here:", err)
	}
	return r
}

// A target is a socket to send to, and what is known of it.
type target struct {
	conn     Conn
	peer     int // -1 if it is closed
	sent     int // bytes that were taken
	received int
	limit    int // bytes that the peer reads in a round; 0 does not
}

// stream is what is sent to targets: each byte tells where it belongs.
var stream = func() []byte {
	rnd := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}()

// at returns the bytes of a target's stream that come next.
func at(offset, n int) []byte {
	offset %= len(stream) / 2
	return stream[offset : offset+n]
}

func newTargets(t *testing.T, rnd *rand.Rand, n int) []*target {
	t.Helper()
	var list []*target
	for range n {
		fd, peer := socketPair(t)
		o := &target{conn: Conn{fd: int32(fd)}, peer: peer}
		if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4096<<rnd.IntN(5)); err != nil {
			t.Fatal(err)
		}
		switch rnd.IntN(10) {
		case 0: // the peer is gone
			closeFD(int32(o.peer))
			o.peer = -1
		case 1: // it is no socket that is open
			closeFD(o.conn.fd)
			closeFD(int32(o.peer))
			o.conn.fd, o.peer = -1, -1
		case 2: // the peer does not read
		default:
			o.limit = 1 << rnd.IntN(18)
		}
		list = append(list, o)
	}
	t.Cleanup(func() {
		for _, o := range list {
			for _, fd := range []int{int(o.conn.fd), o.peer} {
				if fd >= 0 {
					closeFD(int32(fd))
				}
			}
		}
	})
	return list
}

// receive reads some of what was sent, or all, and checks it.
func (o *target) receive(t *testing.T, limit int) {
	t.Helper()
	buf := make([]byte, 64<<10)
	for limit > 0 && o.peer >= 0 {
		b, err := receive(int32(o.peer), buf[:min(limit, len(buf))])
		if errors.Is(err, errAgain) {
			return
		}
		if err != nil || len(b) == 0 {
			t.Fatal("a peer cannot read: ", err)
		}
		if !slices.Equal(b, at(o.received, len(b))) {
			t.Fatalf("other bytes than were sent, between %d and %d", o.received, o.received+len(b))
		}
		o.received += len(b)
		limit -= len(b)
	}
}

// runSender sends rounds of batches and returns the results of all. What the
// peers read in between depends on the seed alone.
func runSender(t *testing.T, s *sender, seed uint64) (all []int32) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 2))
	targets := newTargets(t, rnd, ringBatch+rnd.IntN(sendBatch-ringBatch+1))
	for range 30 {
		rnd.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
		var queue []outgoing
		for _, o := range targets[:max(ringBatch, rnd.IntN(len(targets)+1))] {
			queue = append(queue, outgoing{conn: &o.conn, bytes: at(o.sent, rnd.IntN(2)*rnd.IntN(1<<rnd.IntN(19)))})
		}
		for i, n := range s.sendAll(queue) {
			o := targets[i]
			if (n < 0) != (o.peer < 0 && (o.conn.fd < 0 || len(queue[i].bytes) > 0)) && len(queue[i].bytes) > 0 {
				t.Fatalf("result %d for %d bytes to a socket whose peer is %d", n, len(queue[i].bytes), o.peer)
			}
			if int(n) > len(queue[i].bytes) {
				t.Fatalf("%d bytes were taken of %d", n, len(queue[i].bytes))
			}
			if len(queue[i].bytes) > 0 { // of none, a broken socket may be told or not
				all = append(all, n)
			}
			o.sent += max(int(n), 0)
		}
		for _, o := range targets {
			if o.limit > 0 {
				o.receive(t, rnd.IntN(o.limit))
			}
		}
	}
	for _, o := range targets {
		o.receive(t, 1<<30)
		if o.peer >= 0 && o.received != o.sent {
			t.Fatalf("%d bytes came of %d", o.received, o.sent)
		}
	}
	return all
}

// TestSendAll sends to a mix of sockets through a ring and by calls, and shows
// that both say the same and that every byte comes once and in order.
func TestSendAll(t *testing.T) {
	testRing(t).close()
	rnd := rand.New(rand.NewPCG(4, 1))
	for seed := range uint64(6) {
		loop := &sender{}
		want := runSender(t, loop, seed)
		kinds := [3]int{}
		for _, n := range want {
			kinds[min(n, 1)+1]++
		}
		if slices.Min(kinds[:]) < 5 {
			t.Fatalf("seed %d: %v broken, full and other sockets: the test tests little", seed, kinds)
		}
		for name, enter := range map[string]func(*ring) func(take, wait int) (int, syscall.Errno){
			"ring": func(r *ring) func(take, wait int) (int, syscall.Errno) { return r.sysEnter },
			"a ring that takes few": func(r *ring) func(take, wait int) (int, syscall.Errno) {
				return func(take, _ int) (int, syscall.Errno) {
					take = min(take, 1+rnd.IntN(20))
					return r.sysEnter(take, take)
				}
			},
			"a ring that is interrupted and has no memory at times": func(r *ring) func(take, wait int) (int, syscall.Errno) {
				return func(take, wait int) (int, syscall.Errno) {
					switch rnd.IntN(3) {
					case 0:
						return -1, syscall.EINTR
					case 1:
						return -1, syscall.EAGAIN
					}
					return r.sysEnter(take, wait)
				}
			},
		} {
			s := &sender{ring: testRing(t)}
			s.ring.enter = enter(s.ring)
			got := runSender(t, s, seed)
			if !slices.Equal(got, want) {
				t.Errorf("seed %d: %s says %v, calls say %v", seed, name, got, want)
			}
			if s.ring == nil {
				t.Errorf("seed %d: %s was given up", seed, name)
			}
			s.close()
		}
	}
}

// TestRingFails shows that nothing is lost, sent twice or cut when a ring fails
// in the middle of a batch, and that calls do the rest.
func TestRingFails(t *testing.T) {
	for _, taken := range []int{0, 1, 5, ringBatch - 1, ringBatch} {
		for _, errno := range []syscall.Errno{syscall.EBADFD, syscall.EBUSY, syscall.EAGAIN} {
			t.Run(fmt.Sprint(taken, " ", errno), func(t *testing.T) {
				s := &sender{ring: testRing(t)}
				r, first := s.ring, true
				r.enter = func(take, wait int) (int, syscall.Errno) {
					if !first || taken == 0 {
						return -1, errno
					}
					first = false
					return r.sysEnter(min(take, taken), 0)
				}
				want := runSender(t, &sender{}, 9)
				if got := runSender(t, s, 9); !slices.Equal(got, want) {
					t.Errorf("%v, want %v", got, want)
				}
				if s.ring != nil {
					t.Error("the ring is still in use")
				}
			})
		}
	}
}

// TestNoRing shows that a sender works where no ring can be made, and that what
// was made of one is undone.
func TestNoRing(t *testing.T) {
	before := descriptors(t)
	if r, err := newRing(0); err == nil {
		r.close()
		t.Error("a ring without entries was made")
	}
	s := &sender{}
	s.start(true)
	if s.ring != nil {
		t.Error("there is a ring, though none was wanted")
	}
	s.close()
	s.start(false)
	s.close()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
	runSender(t, s, 5)
}
