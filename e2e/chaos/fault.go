// Package chaos is a proxy between a client and a server of HTTP/1.1 that does
// what networks do: it cuts, delays, stalls, holds back, refuses and mangles.
// A test switches the faults at run time. They work on the bytes of a
// response, so that a cut may fall anywhere: in a status line, in the size of
// a chunk, in the middle of a character.
package chaos

import (
	"math/rand/v2"
	"time"
)

// A Kind is one of the things that go wrong.
type Kind string

const (
	// Cut ends connections, those there are and those to come, each after a
	// number of bytes of its own; some with a TCP reset, some with an end
	// that looks clean.
	Cut Kind = "cut"
	// Delay brings every piece of a response late, by up to a second.
	Delay Kind = "delay"
	// Stall leaves connections open, after a number of bytes, and carries
	// nothing more on them, in either direction, for ever.
	Stall Kind = "stall"
	// Hold keeps bytes back until 64 KiB of them are there or the response
	// has ended. Of some responses the head passes at once.
	Hold Kind = "hold"
	// NoWebSocket answers an upgrade with 400 or 403.
	NoWebSocket Kind = "no websocket"
	// BadGateway answers every request with 502.
	BadGateway Kind = "bad gateway"
	// Strip takes the fields Connection and Upgrade from requests.
	Strip Kind = "strip"
	// Refuse closes the port.
	Refuse Kind = "refuse"
)

// Kinds are all there are.
var Kinds = []Kind{Cut, Delay, Stall, Hold, NoWebSocket, BadGateway, Strip, Refuse}

// holdSize is how many bytes Hold keeps back at most.
const holdSize = 64 << 10

// A Window is the time for which a fault was switched on. End is zero while it is.
type Window struct {
	Kind       Kind
	Begin, End time.Time
}

// A Step of a schedule is a fault and the quiet time after it.
type Step struct {
	Kind     Kind
	For      time.Duration
	Recovery time.Duration
}

// Schedule draws a sequence of steps by seed: rounds of every kind, each round
// in an order of its own.
func Schedule(seed uint64, rounds int, shortest, longest, recovery time.Duration) []Step {
	random := rand.New(rand.NewPCG(seed, 1))
	var steps []Step
	for range rounds {
		for _, i := range random.Perm(len(Kinds)) {
			length := shortest + time.Duration(random.Int64N(int64(longest-shortest)+1))
			steps = append(steps, Step{Kinds[i], length, recovery})
		}
	}
	return steps
}
