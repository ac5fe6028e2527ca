package chaos

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Proxy listens on one port of several addresses of the loopback network,
// since browsers allow six connections a host. Its methods may be called from
// any goroutine.
type Proxy struct {
	target string
	hosts  int
	port   int
	served sync.WaitGroup

	mu        sync.Mutex // guards what follows
	random    *rand.Rand
	active    map[Kind]int // how often each fault is switched on
	windows   []*Window
	listeners []net.Listener
	carried   map[*carriage]bool
	opened    int
	heads     []string // of the last requests
	closed    bool
}

// Start listens on 127.0.0.1 and as many addresses after it as make hosts, and
// carries what comes to target. What the faults draw they draw by seed, but
// what meets them is a matter of time.
func Start(target string, hosts int, seed uint64) (*Proxy, error) {
	p := &Proxy{
		target:  target,
		hosts:   max(1, hosts),
		random:  rand.New(rand.NewPCG(seed, 2)),
		active:  make(map[Kind]int),
		carried: make(map[*carriage]bool),
	}
	// While Refuse is on, the port is free. Nobody is given one by chance
	// that is below those that the kernel gives to clients.
	var err error
	for range 100 {
		p.port = 20_000 + rand.IntN(12_000)
		if err = p.listen(); err == nil {
			return p, nil
		}
	}
	return nil, err
}

// Host is the address that stands for the server's, by number from 0.
func (p *Proxy) Host(number int) string {
	return net.JoinHostPort(fmt.Sprintf("127.0.0.%d", 1+number%p.hosts), strconv.Itoa(p.port))
}

// Begin switches a fault on until the function that it returns is called,
// which may be more than once. Several faults may be on together.
func (p *Proxy) Begin(kind Kind) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &Window{Kind: kind, Begin: time.Now()}
	p.windows = append(p.windows, w)
	p.active[kind]++
	switch kind {
	case Refuse:
		p.deafen()
	case Cut, Stall:
		for c := range p.carried {
			c.arm(p.fuse())
		}
	}
	for c := range p.carried {
		if kind == Refuse || kind == BadGateway || (kind == NoWebSocket || kind == Strip) && c.upgraded.Load() {
			c.cut(p.random.IntN(2) == 0)
		}
	}
	return sync.OnceFunc(func() { p.end(w) })
}

func (p *Proxy) end(w *Window) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.End = time.Now()
	p.active[w.Kind]--
	if p.active[w.Kind] > 0 || p.closed {
		return
	}
	switch w.Kind {
	case Refuse:
		if err := p.listen(); err != nil {
			panic(err) // somebody took the port
		}
	case Cut, Stall:
		for c := range p.carried {
			c.disarm()
		}
	}
}

// Windows tells which faults there were and are, in the order of their begin.
func (p *Proxy) Windows() []Window {
	p.mu.Lock()
	defer p.mu.Unlock()
	var windows []Window
	for _, w := range p.windows {
		windows = append(windows, *w)
	}
	return windows
}

// Opened is how many connections there were.
func (p *Proxy) Opened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

// Pending are the request lines that are not answered to their end, those of
// WebSockets included, as long as the client holds their connections.
func (p *Proxy) Pending(part string) []string {
	return p.collect(part, func(h head) string { return h.start })
}

// PendingHosts are the hosts that those requests name.
func (p *Proxy) PendingHosts(part string) []string {
	return p.collect(part, func(h head) string { return h.get("Host") })
}

func (p *Proxy) collect(part string, what func(h head) string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for c := range p.carried {
		if h := c.pending.Load(); h != nil && strings.Contains(h.start, part) {
			all = append(all, what(*h))
		}
	}
	slices.Sort(all)
	return all
}

// headsKept is how many heads of requests a Proxy remembers.
const headsKept = 2000

// Requests are the heads of the latest requests that contain part.
func (p *Proxy) Requests(part string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var heads []string
	for _, h := range p.heads {
		if strings.Contains(h, part) {
			heads = append(heads, h)
		}
	}
	return heads
}

func (p *Proxy) record(h head) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.heads) == 2*headsKept {
		p.heads = append(p.heads[:0], p.heads[headsKept:]...)
	}
	p.heads = append(p.heads, string(h.bytes()))
}

// Break cuts at once the connections that hold a request whose line contains
// part, each with a reset or without, as it is drawn.
func (p *Proxy) Break(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.carried {
		if c.holds(part) {
			c.cut(p.random.IntN(2) == 0)
		}
	}
}

// Silence stalls them at once instead.
func (p *Proxy) Silence(part string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.carried {
		if c.holds(part) {
			c.silent.Store(true)
		}
	}
}

// Close ends all connections and returns when they are gone.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.deafen()
	for c := range p.carried {
		c.cut(true)
	}
	p.mu.Unlock()
	p.served.Wait()
}

// listen needs mu, unless nobody else has p.
func (p *Proxy) listen() error {
	for i := range p.hosts {
		l, err := net.Listen("tcp", p.Host(i))
		if err != nil {
			p.deafen()
			return err
		}
		p.listeners = append(p.listeners, l)
	}
	for _, l := range p.listeners {
		p.served.Go(func() { p.accept(l) })
	}
	return nil
}

// deafen needs mu.
func (p *Proxy) deafen() {
	for _, l := range p.listeners {
		l.Close()
	}
	p.listeners = nil
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.served.Go(func() { p.carry(client.(*net.TCPConn)) })
		}
	}
}

func (p *Proxy) carry(client *net.TCPConn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	c := newCarriage(p, client, server)
	p.mu.Lock()
	if p.closed || p.active[Refuse] > 0 {
		p.mu.Unlock()
		c.cut(true)
		return
	}
	p.opened++
	p.carried[c] = true
	if p.active[Cut] > 0 || p.active[Stall] > 0 {
		c.arm(p.fuse())
	}
	p.mu.Unlock()
	c.run()
	p.mu.Lock()
	delete(p.carried, c)
	p.mu.Unlock()
}

// fuse draws where a connection is cut or stalls. It needs mu.
func (p *Proxy) fuse() fuse {
	f := fuse{
		lit:   true,
		left:  int(math.Exp(p.random.Float64() * math.Log(4096))),
		reset: p.random.IntN(2) == 0,
		then:  Cut,
	}
	if p.active[Stall] > 0 && (p.active[Cut] == 0 || p.random.IntN(2) == 0) {
		f.then = Stall
	}
	return f
}

// on reports whether a fault is switched on.
func (p *Proxy) on(kind Kind) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.active[kind] > 0
}

// coin draws one of two.
func (p *Proxy) coin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.random.IntN(2) == 0
}

// lateness draws how late a piece is.
func (p *Proxy) lateness() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active[Delay] == 0 {
		return 0
	}
	return 100*time.Millisecond + time.Duration(p.random.Int64N(int64(900*time.Millisecond)))
}
