package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A Pool is a set of connections that one goroutine serves. Its methods are for
// that goroutine alone.
type Pool struct {
	Counts  Counts
	Latency Histogram // of the messages, from when each was made

	// Ended, if it is set, is told of each subscriber that is refused, with a
	// [Refusal], or whose connection ends. What is not published is counted
	// then. Without it the first of these fails the pool.
	Ended func(i int, err error)
	// Heard, if it is set, is told what whole messages came to a subscriber
	// whose dialog says what whole ones are. It keeps nothing of them.
	Heard func(i int, messages []byte)

	addr   netip.AddrPort // of subscribers
	entry  netip.AddrPort // of publishers
	poller *poller
	buf    []byte
	conns  []conn
	subs   []int // indexes of subscribers
	pubs   []int // indexes of publishers
	owed   int   // answers that publishers wait for
	opened int   // dialogs that go on
	failed error
	arrive func(sequence uint64, sent int64)
	conn   *conn // whose bytes are scanned
	now    int64
	reply  []byte // the first subscriber's last answer of its dialog
	recent []byte // the first subscriber's last bytes
	answer []byte // the last answer to a publish
}

// New returns a pool whose connections go to addr. It ties the goroutine to its
// thread.
func New(addr netip.AddrPort) (*Pool, error) {
	runtime.LockOSThread()
	poller, err := newPoller()
	if err != nil {
		return nil, err
	}
	p := &Pool{addr: addr, entry: addr, poller: poller, buf: make([]byte, 256<<10)}
	p.arrive = func(sequence uint64, sent int64) {
		if p.conn.track.got(sequence, &p.Counts) {
			p.Latency.Add(p.now-sent, 1)
		}
	}
	return p, nil
}

// PublishTo has publishers that are added from now on connect to another
// address.
func (p *Pool) PublishTo(addr netip.AddrPort) { p.entry = addr }

// Close cuts every connection.
func (p *Pool) Close() {
	for i := range p.conns {
		p.drop(i)
	}
	unix.Close(p.poller.fd)
	runtime.UnlockOSThread()
}

// Reply is what the first subscriber got before its stream, and Recent the last
// 4 KiB of it. A server's position is in one of them.
func (p *Pool) Reply() []byte  { return p.reply }
func (p *Pool) Recent() []byte { return p.recent }

// Answer is the last answer to a publish.
func (p *Pool) Answer() []byte { return p.answer }

// Subscribers returns how many there are.
func (p *Pool) Subscribers() int { return len(p.subs) }

// inFlight is how many connections are being made at once. The kernel's queue
// of connections not yet accepted has room for them.
const inFlight = 1000

// Subscribe adds n subscribers and returns when all are subscribed. The dialog
// of the subscriber i, counted from 0 over the pool's life, is dialog(i); from
// is the first sequence that it is to get.
func (p *Pool) Subscribe(n int, from uint64, dialog func(i int) Dialog, timeout time.Duration) error {
	first := len(p.subs)
	for i := range n {
		p.add(from)
		if err := p.Join(first+i, dialog(first+i)); err != nil {
			return err
		}
		for p.opened >= inFlight {
			if err := p.Until(func() bool { return p.opened < inFlight }, timeout); err != nil {
				return fmt.Errorf("subscriber %d: %w", first+i, err)
			}
		}
		if i%32 == 0 {
			p.Turn(0)
		}
	}
	if err := p.Until(func() bool { return p.opened == 0 }, timeout); err != nil {
		return fmt.Errorf("%d of %d are not subscribed: %w", p.opened, n, err)
	}
	return p.failed
}

// Add adds n subscribers that are not connected yet.
func (p *Pool) Add(n int, from uint64) {
	for range n {
		p.add(from)
	}
}

func (p *Pool) add(from uint64) {
	index := len(p.conns)
	p.conns = append(p.conns, conn{number: int32(len(p.subs)), track: track{next: from}})
	p.subs = append(p.subs, index)
}

// Join begins to connect the subscriber i, which is not connected. Its counting
// goes on.
func (p *Pool) Join(i int, d Dialog) error { return p.JoinAt(p.addr, i, d) }

// JoinAt is Join at another address.
func (p *Pool) JoinAt(addr netip.AddrPort, i int, d Dialog) error {
	index := p.subs[i]
	c := &p.conns[index]
	*c = conn{number: c.number, track: c.track}
	return p.begin(addr, index, d)
}

// Next returns the sequence of the message that the subscriber i waits for.
func (p *Pool) Next(i int) uint64 { return p.conns[p.subs[i]].track.next }

// SubscribeDeaf adds n connections that ask to subscribe, have a receive buffer
// of 1 KiB and never read.
func (p *Pool) SubscribeDeaf(n int, dialog func(i int) Dialog) error {
	for i := range n {
		fd, err := dial(p.addr, i, 1024)
		if err != nil {
			return err
		}
		p.conns = append(p.conns, conn{fd: int32(fd), state: deaf})
		request := dialog(i).Steps[0].Send(nil)
		for tries := 0; ; tries++ {
			if _, errno := send(int32(fd), request); errno == 0 {
				break
			} else if tries == 100 {
				return fmt.Errorf("send: %w", errno)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// Cut resets all subscribers at once.
func (p *Pool) Cut() {
	for _, index := range p.subs {
		p.drop(index)
	}
}

// Return connects the subscribers again that were cut. Their counting goes on.
func (p *Pool) Return(dialog func(i int) Dialog, timeout time.Duration) error {
	for i := range p.subs {
		if err := p.Join(i, dialog(i)); err != nil {
			return err
		}
		for p.opened >= inFlight {
			if err := p.Until(func() bool { return p.opened < inFlight }, timeout); err != nil {
				return fmt.Errorf("subscriber %d comes back: %w", i, err)
			}
		}
		if i%32 == 0 {
			p.Turn(0)
		}
	}
	return p.failed
}

func (p *Pool) begin(addr netip.AddrPort, index int, d Dialog) error {
	fd, err := dial(addr, index, 0)
	if err != nil {
		return err
	}
	c := &p.conns[index]
	c.fd, c.state = int32(fd), connecting
	c.talk = &talk{dialog: d, out: d.Steps[0].Send(nil), waiting: true}
	c.talk.request = c.talk.out
	p.opened++
	return p.poller.add(c.fd, index, unix.EPOLLIN|unix.EPOLLOUT)
}

// AddPublishers makes n connections to publish with.
func (p *Pool) AddPublishers(n int) error {
	for i := range n {
		index := len(p.conns)
		p.conns = append(p.conns, conn{number: int32(i)})
		p.pubs = append(p.pubs, index)
		if err := p.connectPublisher(index); err != nil {
			return err
		}
		fd := p.conns[index].fd
		if _, err := unix.Poll([]unix.PollFd{{Fd: fd, Events: unix.POLLOUT}}, 5000); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pool) connectPublisher(index int) error {
	c := &p.conns[index]
	fd, err := dial(p.entry, int(c.number), 0)
	if err != nil {
		return err
	}
	c.fd, c.state, c.talk = int32(fd), publishing, &talk{}
	return p.poller.add(c.fd, index, unix.EPOLLIN)
}

// Publish sends requests, which get so many answers, by the publisher i.
func (p *Pool) Publish(i int, requests []byte, answers int) error {
	c := &p.conns[p.pubs[i]]
	if c.state == closed && p.Ended != nil {
		if err := p.connectPublisher(p.pubs[i]); err != nil {
			return err
		}
	}
	p.owed += answers
	c.talk.owed += answers
	if len(c.talk.out) == 0 {
		n, errno := send(c.fd, requests)
		if errno != 0 && errno != unix.EAGAIN && p.Ended != nil {
			p.fail(p.pubs[i], errno)
			return nil
		}
		if errno != 0 && errno != unix.EAGAIN {
			return fmt.Errorf("publish: %w", errno)
		}
		requests = requests[max(n, 0):]
		if len(requests) == 0 {
			return nil
		}
	}
	c.talk.out = append(c.talk.out, requests...)
	return p.poller.change(c.fd, p.pubs[i], unix.EPOLLIN|unix.EPOLLOUT)
}

// Publishers returns how many there are.
func (p *Pool) Publishers() int { return len(p.pubs) }

// Owed returns how many publishes were not answered yet.
func (p *Pool) Owed() int { return p.owed }

// Idle reports whether the publisher i waits for no answer.
func (p *Pool) Idle(i int) bool { return p.conns[p.pubs[i]].talk.owed == 0 }

// ErrTimeout is what Until returns where its time is over.
var ErrTimeout = errors.New("timed out")

// Until serves the connections until done, or until a connection fails.
func (p *Pool) Until(done func() bool, timeout time.Duration) error {
	end := Now() + int64(timeout)
	for !done() {
		if p.failed != nil {
			return p.failed
		}
		p.Turn(100 * time.Millisecond)
		if Now() > end && !done() {
			return fmt.Errorf("%w after %v: %+v, %d answers owed", ErrTimeout, timeout, p.Counts, p.owed)
		}
	}
	return p.failed
}

// Turn serves what there is, waiting for it up to timeout, and reports whether
// there was anything.
func (p *Pool) Turn(timeout time.Duration) bool {
	events := p.poller.wait(timeout)
	for _, event := range events {
		index := int(event.Fd)
		c := &p.conns[index]
		if c.state == closed {
			continue
		}
		if event.Events&unix.EPOLLOUT != 0 {
			p.flush(index, c)
		}
		if event.Events&^unix.EPOLLOUT != 0 {
			p.read(index, c)
		}
	}
	return len(events) > 0
}

// Finish counts as lost what the subscriber i did not get of the messages before
// end(i).
func (p *Pool) Finish(end func(i int) uint64) {
	for i, index := range p.subs {
		p.conns[index].track.finish(end(i), &p.Counts)
	}
}

func (p *Pool) flush(index int, c *conn) {
	t := c.talk
	if t == nil {
		return
	}
	if len(t.out) > 0 {
		n, errno := send(c.fd, t.out)
		if errno == unix.EAGAIN {
			return
		}
		if errno != 0 {
			p.fail(index, errno)
			return
		}
		t.out = t.out[n:]
		if len(t.out) > 0 {
			return
		}
	}
	p.poller.change(c.fd, index, unix.EPOLLIN)
	if c.state == connecting && t.waiting {
		t.waiting = false
		p.advance(index, c)
	}
}

// advance goes on in a dialog as far as what has come allows.
func (p *Pool) advance(index int, c *conn) {
	t := c.talk
	for {
		step := t.dialog.Steps[t.step]
		at := bytes.Index(t.in, []byte(step.Wait))
		if at < 0 {
			return
		}
		at += len(step.Wait)
		answer := t.in[:at]
		t.in = t.in[at:]
		t.step++
		if t.step == len(t.dialog.Steps) {
			p.subscribed(index, c, answer)
			return
		}
		t.request = t.dialog.Steps[t.step].Send(answer)
		t.in = nil
		if !p.put(index, c, t.request) {
			t.waiting = true
			return
		}
	}
}

// put sends data and reports whether all of it could be sent.
func (p *Pool) put(index int, c *conn, data []byte) bool {
	n, errno := send(c.fd, data)
	if errno == unix.EAGAIN {
		n = 0
	} else if errno != 0 {
		p.fail(index, errno)
		return false
	}
	if n == len(data) {
		return true
	}
	c.talk.out = data[n:]
	p.poller.change(c.fd, index, unix.EPOLLIN|unix.EPOLLOUT)
	return false
}

func (p *Pool) subscribed(index int, c *conn, answer []byte) {
	p.opened--
	rest := c.talk.in
	if index == p.subs[0] {
		p.reply = append(p.reply[:0], answer...)
		p.recent = p.recent[:0]
	}
	if c.talk.dialog.Again != nil {
		c.state = polling
		c.talk.in = append([]byte(nil), rest...)
		return
	}
	c.state = streaming
	if c.talk.dialog.Whole == nil {
		c.talk = nil
	} else {
		rest, c.talk.in = c.talk.in, nil
	}
	p.stream(index, c, rest)
}

func (p *Pool) stream(index int, c *conn, piece []byte) {
	if len(p.subs) > 0 && index == p.subs[0] {
		p.recent = append(p.recent, piece...)
		if over := len(p.recent) - 4096; over > 0 {
			p.recent = append(p.recent[:0], p.recent[over:]...)
		}
	}
	if c.talk != nil {
		p.whole(c, piece)
		return
	}
	p.conn, p.now = c, Now()
	c.scan.scan(piece, p.arrive)
}

// whole counts what is whole, and keeps the rest until it is.
func (p *Pool) whole(c *conn, piece []byte) {
	t := c.talk
	if len(t.in) > 0 {
		t.in = append(t.in, piece...)
		piece = t.in
	}
	size := t.dialog.Whole(piece)
	p.hear(c, piece[:size])
	if rest := piece[size:]; len(rest) > 0 {
		t.in = append(t.in[:0], rest...)
	} else {
		t.in = nil // most have nothing to keep
	}
}

// hear counts whole messages, and tells of them.
func (p *Pool) hear(c *conn, messages []byte) {
	p.conn, p.now = c, Now()
	c.scan.scan(messages, p.arrive)
	if p.Heard != nil && len(messages) > 0 {
		p.Heard(int(c.number), messages)
	}
}

func (p *Pool) read(index int, c *conn) {
	for {
		n, errno := recv(c.fd, p.buf)
		if errno == unix.EAGAIN {
			return
		}
		if errno != 0 {
			p.fail(index, errno)
			return
		}
		if n == 0 {
			p.fail(index, errors.New("the server closed the connection"))
			return
		}
		piece := p.buf[:n]
		switch c.state {
		case streaming:
			p.stream(index, c, piece)
		case connecting:
			c.talk.in = append(c.talk.in, piece...)
			if bytes.HasPrefix(c.talk.in, []byte("HTTP/1.1 ")) && len(c.talk.in) > 9 && c.talk.in[9] > '2' {
				// What has come of the answer is nearly always all of it.
				p.fail(index, &Refusal{bytes.Clone(c.talk.in)})
				return
			}
			if !c.talk.waiting {
				p.advance(index, c)
			}
		case polling:
			p.poll(index, c, piece)
		case publishing:
			p.answered(index, c, piece)
		}
		if n < len(p.buf) || c.state == closed {
			return
		}
	}
}

// poll counts what an answer brought and asks again.
func (p *Pool) poll(index int, c *conn, piece []byte) {
	t := c.talk
	if len(t.in) > 0 {
		t.in = append(t.in, piece...)
		piece = t.in
	}
	status, size := response(piece)
	if size == 0 {
		if len(t.in) == 0 {
			t.in = append(t.in, piece...)
		}
		return
	}
	answer := piece[:size]
	if status/100 != 2 && status != 304 {
		p.fail(index, &Refusal{bytes.Clone(answer)})
		return
	}
	p.hear(c, answer)
	t.request = t.dialog.Again(t.request, answer)
	t.in = t.in[:0]
	if t.request == nil {
		p.fail(index, ErrRest)
		return
	}
	p.put(index, c, t.request)
}

func (p *Pool) answered(index int, c *conn, piece []byte) {
	t := c.talk
	t.in = append(t.in, piece...)
	for {
		status, size := response(t.in)
		if size == 0 {
			return
		}
		if status/100 != 2 {
			if p.Ended == nil {
				p.fail(index, fmt.Errorf("publish refused: %.300s", t.in))
				return
			}
			p.Counts.Refused++
		}
		p.owed--
		t.owed--
		p.answer = append(p.answer[:0], t.in[:size]...)
		t.in = append(t.in[:0], t.in[size:]...)
	}
}

// A Refusal is an answer other than what was asked for.
type Refusal struct{ Answer []byte }

func (r *Refusal) Error() string { return fmt.Sprintf("refused: %.300s", r.Answer) }

// ErrRest is the end of a poll that asks for nothing more for the moment.
var ErrRest = errors.New("the client rests")

func (p *Pool) fail(index int, err error) {
	c := &p.conns[index]
	state := c.state
	if state == connecting {
		p.opened--
	}
	p.drop(index)
	switch {
	case p.Ended == nil:
		if p.failed == nil {
			p.failed = fmt.Errorf("connection %d: %w", index, err)
		}
	case state == publishing:
		p.Counts.Refused += uint64(c.talk.owed)
		p.owed -= c.talk.owed
	default:
		p.Ended(int(c.number), err)
	}
}

func (p *Pool) drop(index int) {
	c := &p.conns[index]
	if c.state != closed {
		c.state = closed
		abort(c.fd)
	}
}
