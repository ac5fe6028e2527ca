package load

import (
	"bytes"
	"net/netip"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Role is what connections of a swarm do, over and over.
type Role struct {
	// Request is what a connection says; nil if it says nothing.
	Request func(i int) []byte
	// Ahead is how many bytes of it are said at once, where Drip is set: of the
	// rest one is said every second.
	Ahead int
	Drip  bool
	// Deaf connections have a receive buffer of 1 KiB and never read.
	Deaf bool
	// Leave has the client reset the connection as soon as it is answered, and
	// come again. Without it, the client asks again over the same connection.
	Leave bool
}

// A Tally is what the connections of a swarm got.
type Tally struct {
	Opened  uint64         // connections that were made
	Failed  uint64         // that could not be made
	Cut     uint64         // that the server ended
	Answers map[int]uint64 // by their status
}

// A Swarm is connections that put a server to what it must bear. Whatever ends
// is counted and begins again: nothing is a failure.
type Swarm struct {
	Tally Tally
	roles []Role
	conns []attacker
	addr  netip.AddrPort
	poll  *poller
	buf   []byte
	next  int // connection to be looked at by the clock
}

type attacker struct {
	role    *Role
	fd      int32
	open    bool // it has a socket
	made    bool // the connection is made
	request []byte
	said    int
	in      []byte // of an answer
}

// NewSwarm returns a swarm of n connections to addr, which take turns in their
// roles.
func NewSwarm(addr netip.AddrPort, n int, roles ...Role) (*Swarm, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, err
	}
	s := &Swarm{
		Tally: Tally{Answers: map[int]uint64{}},
		roles: roles, conns: make([]attacker, n), addr: addr, poll: poll, buf: make([]byte, 256<<10),
	}
	for i := range s.conns {
		s.conns[i].role = &s.roles[i%len(roles)]
	}
	return s, nil
}

// pass is how long it takes to look at every connection once: those that drip
// say a byte each time, and those that could not be made try again.
const pass = time.Second

// Run attacks until stop is closed, and then cuts all connections. It is called
// once, in a goroutine of its own.
func (s *Swarm) Run(stop <-chan struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer unix.Close(s.poll.fd)
	defer func() {
		for i := range s.conns {
			s.close(&s.conns[i])
		}
	}()
	begin, looked := time.Now(), 0
	for {
		select {
		case <-stop:
			return
		default:
		}
		// They are looked at evenly, not all at once.
		for due := int(time.Since(begin).Seconds() / pass.Seconds() * float64(len(s.conns))); looked < due; looked++ {
			s.look(s.next)
			s.next = (s.next + 1) % len(s.conns)
			if looked%64 == 0 {
				s.turn(0)
			}
		}
		s.turn(pass / time.Duration(len(s.conns)+1))
	}
}

func (s *Swarm) turn(timeout time.Duration) {
	for _, event := range s.poll.wait(max(timeout, time.Millisecond)) {
		i := int(event.Fd)
		a := &s.conns[i]
		if !a.open {
			continue
		}
		if event.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 && !a.made {
			s.Tally.Failed++
			s.close(a) // it tries again with the next pass
			continue
		}
		if event.Events&unix.EPOLLOUT != 0 && !s.writable(i, a) {
			continue
		}
		if event.Events&^unix.EPOLLOUT != 0 {
			s.readable(i, a)
		}
	}
}

// look is called once in a pass for each connection.
func (s *Swarm) look(i int) {
	a := &s.conns[i]
	switch {
	case !a.open:
		s.connect(i, a)
	case a.made && a.role.Drip && a.said < len(a.request):
		if n, errno := send(a.fd, a.request[a.said:a.said+1]); errno == 0 {
			a.said += n
		} // an end is noticed by epoll
	}
}

func (s *Swarm) connect(i int, a *attacker) {
	*a = attacker{role: a.role, in: a.in[:0]}
	buffer := 0
	if a.role.Deaf {
		buffer = 1024
	}
	fd, err := dial(s.addr, i, buffer)
	if err != nil {
		s.Tally.Failed++
		return
	}
	a.fd, a.open = int32(fd), true
	if a.role.Request != nil {
		a.request = a.role.Request(i)
	}
	if s.poll.add(a.fd, i, unix.EPOLLOUT) != nil {
		s.close(a)
	}
}

// writable goes on with what is to be said at once.
func (s *Swarm) writable(i int, a *attacker) bool {
	if !a.made {
		a.made = true
		s.Tally.Opened++
	}
	whole, ok := s.say(i, a)
	switch {
	case !ok:
		return false
	case !whole:
	case a.role.Deaf:
		s.poll.change(a.fd, i, unix.EPOLLRDHUP)
	default:
		s.poll.change(a.fd, i, unix.EPOLLIN)
	}
	return true
}

// say sends what is to be said at once, and reports whether all of it is sent.
func (s *Swarm) say(i int, a *attacker) (whole, ok bool) {
	limit := len(a.request)
	if a.role.Drip {
		limit = a.role.Ahead
	}
	if a.said < limit {
		n, errno := send(a.fd, a.request[a.said:limit])
		if errno != 0 && errno != unix.EAGAIN {
			s.again(i, a)
			return false, false
		}
		a.said += max(n, 0)
	}
	return a.said >= limit, true
}

func (s *Swarm) readable(i int, a *attacker) {
	if a.role.Deaf {
		s.again(i, a)
		return
	}
	n, errno := recv(a.fd, s.buf)
	if errno == unix.EAGAIN {
		return
	}
	if errno != 0 || n == 0 {
		s.again(i, a)
		return
	}
	a.in = append(a.in, s.buf[:n]...)
	if a.role.Leave {
		if status, ok := status(a.in); ok {
			s.Tally.Answers[status]++
			s.close(a)
			s.connect(i, a)
		}
		return
	}
	for {
		status, size := response(a.in)
		if size == 0 {
			return
		}
		s.Tally.Answers[status]++
		a.in = append(a.in[:0], a.in[size:]...)
		if !a.role.Drip && a.request != nil {
			a.request, a.said = a.role.Request(i), 0
			whole, ok := s.say(i, a)
			if !ok {
				return
			}
			if !whole {
				s.poll.change(a.fd, i, unix.EPOLLIN|unix.EPOLLOUT)
			}
		}
	}
}

// again counts a connection that the server has ended, and makes another.
func (s *Swarm) again(i int, a *attacker) {
	s.Tally.Cut++
	s.close(a)
	s.connect(i, a)
}

func (s *Swarm) close(a *attacker) {
	if a.open {
		a.open = false
		abort(a.fd)
	}
}

// status reads the first line of an answer, once its head is there.
func status(answer []byte) (int, bool) {
	if len(answer) < 12 || !bytes.Contains(answer, []byte("\r\n\r\n")) {
		return 0, false
	}
	code, _ := strconv.Atoi(string(answer[9:12])) // 0 for what is no answer
	return code, true
}
