// Package enginetest is the suite that every [engine.Engine] passes.
//
// An engine's own test says how to open it, and what it promises beyond the
// contract:
//
//	func TestEngine(t *testing.T) {
//		enginetest.Run(t, enginetest.Suite{
//			Open: func(dir string, o enginetest.Options) (engine.Engine, error) {
//				return Open(dir, Config{Retention: o.Retention, Rules: o.Rules, KeyWindow: o.KeyWindow})
//			},
//			Durable: true,
//		})
//	}
//
// Each check is a subtest that states one promise. Those that choose at random
// log the seed they did it with, which [Suite.Seed] sets.
package enginetest

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/halley-comet/halley/engine"
)

// A Suite says how to open the engines that are tested, and what they promise.
// Only Open must be set.
type Suite struct {
	// Open opens the engine whose data is in dir: a new one where dir is an
	// empty directory, else the one that was open there before, closed or
	// crashed, with the same Options. An engine without data ignores dir. Run
	// closes what it opens. Several engines, of different directories, may be
	// open at once.
	Open func(dir string, o Options) (engine.Engine, error)

	// Durable says that an engine which is closed and opened again has all
	// that it acknowledged, at the same positions. One that is not durable
	// begins another epoch.
	Durable bool

	// Crash, if not nil, ends the engine on dir as a killed process ends: it
	// keeps what had been acknowledged when it was called, and closes nothing.
	// It is called while Appends are in progress, which may then return
	// anything, but must return. Run does not use the engine afterwards, and
	// opens another on dir. A durable engine should have it.
	Crash func(dir string, e engine.Engine) error

	// Tick is the shortest time to which the engine keeps ages and key
	// windows, in multiples of which the checks wait. Zero means 200 ms.
	Tick time.Duration

	// Synctest runs the checks which wait for time to pass in a bubble of
	// testing/synctest, so that they take none. It suits an engine whose
	// goroutines wait for nothing outside the bubble.
	Synctest bool

	// LooseGaps allows gaps that are not due, in logs so small that no engine
	// should have forgotten anything. Gaps which are due are always wanted.
	LooseGaps bool

	// Seed makes the random choices repeatable. Zero means another each time.
	Seed uint64
}

// Options are what a check wants of an engine.
type Options struct {
	// Retention holds for channels without a rule. A zero field sets no bound,
	// or one of at least 10,000 messages, 64 MiB or an hour.
	Retention engine.Retention
	// Rules are the engine's retention rules.
	Rules []engine.RetentionRule
	// KeyWindow is how long keys are remembered; zero is any time of a minute
	// or more.
	KeyWindow time.Duration
	// Limit is what all channels together may take, in bytes; zero is the
	// engine's default, at least 64 MiB. An engine without such a bound
	// ignores it.
	Limit int64
}

// A check tests one promise.
type check struct {
	name  string
	run   func(t *tester)
	waits bool               // for time to pass, or for the engine to do something
	only  func(s Suite) bool // whether it applies; nil means always
}

func durable(s Suite) bool  { return s.Durable }
func volatile(s Suite) bool { return !s.Durable }
func crashes(s Suite) bool  { return s.Durable && s.Crash != nil }

var checks = []check{
	{name: "Append/Order", run: appendOrder},
	{name: "Append/Content", run: appendContent},
	{name: "Append/Batches", run: appendBatches},
	{name: "Append/Invalid", run: appendInvalid},
	{name: "Append/Canceled", run: appendCanceled},
	{name: "Append/Arguments", run: appendArguments},

	{name: "Read/Model", run: readModel},
	{name: "Read/Resume", run: readResume},
	{name: "Read/Backward", run: readBackward},
	{name: "Read/DefaultLimit", run: readDefaultLimit},
	{name: "Read/UnknownCursor", run: readUnknownCursor},
	{name: "Read/Empty", run: readEmpty},
	{name: "Read/Invalid", run: readInvalid},

	{name: "Tail/Follow", run: tailFollow},
	{name: "Tail/Positions", run: tailPositions},

	{name: "Wait/Positions", run: waitPositions, waits: true},
	{name: "Wait/Woken", run: waitWoken, waits: true},
	{name: "Wait/Close", run: waitClose, waits: true},

	{name: "Retention/Count", run: retentionCount, waits: true},
	{name: "Retention/Bytes", run: retentionBytes, waits: true},
	{name: "Retention/Age", run: retentionAge, waits: true},
	{name: "Retention/Forgotten", run: retentionForgotten, waits: true},
	{name: "Retention/Immutable", run: retentionImmutable},

	{name: "Keys/Repeat", run: keysRepeat},
	{name: "Keys/Concurrent", run: keysConcurrent},
	{name: "Keys/Expiry", run: keysExpiry, waits: true},

	{name: "Concurrent", run: concurrent},

	{name: "Close/Closed", run: closeClosed},
	{name: "Close/Busy", run: closeBusy},

	{name: "Reopen/NewEpoch", run: reopenNewEpoch, only: volatile},
	{name: "Reopen/Same", run: reopenSame, waits: true, only: durable},
	{name: "Reopen/Crash", run: reopenCrash, only: crashes},
}

// Run runs the suite, each check in a subtest. It must not run in parallel with
// other tests of the process, whose goroutines it would take for leaks.
func Run(t *testing.T, s Suite) {
	if s.Open == nil {
		t.Fatal("enginetest: Suite.Open is nil")
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if c.only != nil && !c.only(s) {
				t.Skip("the suite says that this does not apply")
			}
			c.start(t, s, func(t *testing.T, s Suite) { runCheck(t, s, c) })
		})
	}
}

// start calls run, in a bubble where the check wants one.
func (c check) start(t *testing.T, s Suite, run func(t *testing.T, s Suite)) {
	if s.Tick == 0 {
		s.Tick = 200 * time.Millisecond
	}
	if s.Seed == 0 {
		s.Seed = rand.Uint64()
	}
	if c.waits && s.Synctest {
		synctest.Test(t, func(t *testing.T) { run(t, s) })
	} else {
		run(t, s)
	}
}
