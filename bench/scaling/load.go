package main

import (
	"math"
	"math/rand/v2"
)

// A Load is what clients do to the servers.
type Load struct {
	Name, About string
	// Rate is how many messages are published in a second for so many clients.
	Rate func(clients float64) float64
	// Audience draws how many of so many clients follow a message's channel.
	Audience func(random *rand.Rand, clients float64) float64
	// Mean is what Audience draws on average.
	Mean func(clients float64) float64
	// Shared says that all clients follow the same channels: each log has all
	// messages then, for a part of the clients. Otherwise logs share the
	// messages as they share the clients.
	Shared bool
}

const (
	roomMedian  = 12
	roomSpread  = 1.3
	roomMost    = 10_000
	instruments = 2000
	followed    = 10
	popularity  = 0.9 // the exponent of Zipf's law
)

// loads are the shapes that are planned for.
func loads() []Load {
	// The rooms that messages come from are large ones more often than rooms are.
	roomLog := math.Log(roomMedian) + roomSpread*roomSpread
	roomMean := 0.0 // of what is drawn, with its bound: by the same quantiles for everyone
	const steps = 100_000
	for i := range steps {
		roomMean += min(roomMost, math.Exp(roomLog+roomSpread*normal((float64(i)+0.5)/steps))) / steps
	}
	shares := make([]float64, instruments)
	sum := 0.0
	for k := range shares {
		shares[k] = math.Pow(float64(k+1), -popularity)
		sum += shares[k]
	}
	for k := range shares {
		shares[k] *= followed / sum
	}
	fixed := func(v float64) func(float64) float64 { return func(float64) float64 { return v } }
	each := func(seconds float64) func(float64) float64 {
		return func(clients float64) float64 { return clients / seconds }
	}
	mean := 0.0
	for _, s := range shares {
		mean += min(1, s) / instruments
	}
	return []Load{
		{
			Name:     "notifications",
			About:    "a channel for each client, to which a message comes every 10 minutes",
			Rate:     each(600),
			Audience: func(*rand.Rand, float64) float64 { return 1 },
			Mean:     fixed(1),
		}, {
			Name:  "chat",
			About: "each client is in one room and writes every 2 minutes; rooms have 12 clients (median of a lognormal distribution, σ 1.3, at most 10,000)",
			Rate:  each(120),
			Audience: func(random *rand.Rand, _ float64) float64 {
				return math.Round(min(roomMost, math.Exp(roomLog+roomSpread*random.NormFloat64())))
			},
			Mean: fixed(roomMean),
		}, {
			Name:   "tickers",
			About:  "2,000 instruments that change once a second each; each client follows ten of them, by Zipf's law with exponent 0.9",
			Rate:   fixed(instruments),
			Shared: true,
			Audience: func(random *rand.Rand, clients float64) float64 {
				return math.Round(clients * min(1, shares[random.IntN(instruments)]))
			},
			Mean: func(clients float64) float64 { return clients * mean },
		}, {
			Name:     "broadcast",
			About:    "one channel that all clients follow, and a message every 2 seconds",
			Rate:     fixed(0.5),
			Shared:   true,
			Audience: func(_ *rand.Rand, clients float64) float64 { return clients },
			Mean:     func(clients float64) float64 { return clients },
		},
	}
}

// normal is the quantile of the standard normal distribution.
func normal(q float64) float64 { return math.Sqrt2 * math.Erfinv(2*q-1) }

// some draws how many of n are there where each is with probability p.
func some(random *rand.Rand, n, p float64) float64 {
	switch mean := n * p; {
	case p >= 1:
		return n
	case n <= 16:
		hits := 0.0
		for range int(n) {
			if random.Float64() < p {
				hits++
			}
		}
		return hits
	case mean < 20: // Poisson's
		hits, left := 0.0, math.Exp(-mean)
		for at := random.Float64(); at > left; at *= random.Float64() {
			hits++
		}
		return min(n, hits)
	default:
		return min(n, max(0, math.Round(mean+math.Sqrt(mean*(1-p))*random.NormFloat64())))
	}
}
