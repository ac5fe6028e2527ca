package halley

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/halley-comet/halley/internal/wire"
)

// limited returns what the limits of an address go by: for IPv6 the network, as
// one client has all of it (RFC 6177). This machine has no limits: it returns
// the zero Addr.
func limited(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	switch {
	case !a.IsValid() || a.IsLoopback():
		return netip.Addr{}
	case a.Is6():
		p, _ := a.Prefix(64) // it has so many bits
		return p.Addr()
	}
	return a
}

// limitedAddress is limited for a request's client. What a proxy on this machine
// has passed on, and does not say truly for whom, has not come from this machine.
func (h *Hub) limitedAddress(r *http.Request) netip.Addr {
	a := h.clientAddress(r)
	if a.IsLoopback() && len(h.proxies) > 0 && forwards(r) {
		return a
	}
	return limited(a)
}

// rates bound how much each client publishes: a token bucket for each user, or
// for the address of those that are nobody.
type rates struct {
	mu      sync.Mutex
	buckets map[rateKey]*rate.Limiter
	swept   time.Time
}

type rateKey struct {
	user string
	addr netip.Addr
}

// owner is who a caller is for its limits: the zero rateKey for those without.
func (v *caller) owner() rateKey {
	if v.grant.User != "" {
		return rateKey{user: v.grant.User}
	}
	return rateKey{addr: v.addr}
}

// maxBuckets is how many clients are told apart. Beyond, those that are new
// share one bucket.
const maxBuckets = 100_000

// checkRate tells why a caller may not publish so many messages now.
func (h *Hub) checkRate(v *caller, n int) *wire.Problem {
	key := v.owner()
	perSecond, burst := h.opts.PublishRate, h.opts.PublishBurst
	if own := v.grant.Limits; own.PublishRate != 0 {
		perSecond, burst = own.PublishRate, max(own.PublishBurst, int(own.PublishRate), 1)
	}
	if perSecond < 0 || key == (rateKey{}) {
		return nil
	}
	now := time.Now()
	l := h.rates.bucket(key, now, rate.Limit(perSecond), burst)
	if l.Limit() != rate.Limit(perSecond) || l.Burst() != burst {
		l.SetLimitAt(now, rate.Limit(perSecond))
		l.SetBurstAt(now, burst)
	}
	reservation := l.ReserveN(now, n)
	if !reservation.OK() {
		return wire.NewProblem(wire.TooLarge, fmt.Sprintf("%d messages at once, at most %d", n, burst))
	}
	delay := reservation.DelayFrom(now)
	if delay == 0 {
		return nil
	}
	reservation.CancelAt(now)
	p := wire.NewProblem(wire.RateLimited, fmt.Sprintf("at most %g messages a second, %d at once", perSecond, burst))
	p.RetryAfter = comeBack(delay, time.Second)
	return p
}

// failureRate is how many tokens a second of one address may be refused, and
// failureBurst how many at once, before no more are looked at: to verify one
// may take milliseconds. Many clients of one address may hold tokens that have
// run out.
const (
	failureRate  = 100
	failureBurst = 1000
)

// checkFailures tells why a caller's token is not looked at.
func (h *Hub) checkFailures(v *caller) *wire.Problem {
	if v.token == "" || !v.addr.IsValid() || h.failures.left(rateKey{addr: v.addr}, time.Now()) {
		return nil
	}
	p := wire.NewProblem(wire.RateLimited, "too many tokens of this address were refused")
	p.RetryAfter = comeBack(time.Second, failureBurst/failureRate*time.Second)
	return p
}

// failed notes that a caller's token was refused.
func (h *Hub) failed(v *caller) {
	if v.token != "" && v.addr.IsValid() {
		now := time.Now()
		h.failures.bucket(rateKey{addr: v.addr}, now, failureRate, failureBurst).AllowN(now, 1)
	}
}

// left tells whether there is something in a client's bucket.
func (rs *rates) left(key rateKey, now time.Time) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	l := rs.buckets[key]
	if l == nil && len(rs.buckets) >= maxBuckets {
		l = rs.buckets[rateKey{}]
	}
	return l == nil || l.TokensAt(now) >= 1
}

// bucket returns a client's bucket. A new one is full.
func (rs *rates) bucket(key rateKey, now time.Time, limit rate.Limit, burst int) *rate.Limiter {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if l := rs.buckets[key]; l != nil {
		return l
	}
	if len(rs.buckets) >= maxBuckets {
		if now.Sub(rs.swept) > time.Second {
			rs.sweep(now)
		}
		if len(rs.buckets) >= maxBuckets {
			key = rateKey{}
			if l := rs.buckets[key]; l != nil {
				return l
			}
		}
	}
	if rs.buckets == nil {
		rs.buckets = make(map[rateKey]*rate.Limiter)
	}
	l := rate.NewLimiter(limit, burst)
	rs.buckets[key] = l
	return l
}

// sweep forgets the buckets that are full, as new ones are.
func (rs *rates) sweep(now time.Time) {
	for key, l := range rs.buckets {
		if l.TokensAt(now) >= float64(l.Burst()) {
			delete(rs.buckets, key)
		}
	}
	rs.swept = now
}
