package disk

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
)

// TestNewRules opens a log with tighter rules, which hold for channels that get
// no more messages, and for what was stored before there was an age.
func TestNewRules(t *testing.T) {
	fs := vfs.NewMem()
	open := func(rules ...engine.RetentionRule) *Log {
		t.Helper()
		l, err := Open("log", Options{fs: fs, Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	wait := func(l *Log, want uint64) {
		t.Helper()
		for begin := time.Now(); ; time.Sleep(time.Millisecond) {
			if got := l.Stats().Messages; got == want {
				break
			} else if time.Since(begin) > 10*time.Second {
				t.Fatalf("%d messages are kept, want %d", got, want)
			}
		}
		if _, err := l.Verify(context.Background()); err != nil {
			t.Error(err)
		}
	}
	l := open()
	for i := range 300 { // more than one step looks at
		publish(t, l, fmt.Sprint("many/", i), 3)
	}
	publish(t, l, "old/a", 700)
	publish(t, l, "other", 10)
	l.Close()

	l = open(engine.RetentionRule{Pattern: "many/*", Retention: engine.Retention{Count: 2}})
	wait(l, 600+710)
	l.Close()
	l = open(engine.RetentionRule{Pattern: "old/*", Retention: engine.Retention{Age: time.Millisecond}},
		engine.RetentionRule{Pattern: "many/*", Retention: engine.Retention{Bytes: 1}})
	wait(l, 300+10)
	page, err := l.Read(context.Background(), engine.Query{Channels: []string{"old/a"}, After: l.cursor(1)})
	if err != nil || !page.Gap {
		t.Errorf("Read of what was removed: gap %v, %v", page.Gap, err)
	}
	l.Close()
	l = open(engine.RetentionRule{Pattern: "other", Retention: engine.Retention{Age: time.Hour}})
	publish(t, l, "other", 1)
	l.Close()
	l = open(engine.RetentionRule{Pattern: "other", Retention: engine.Retention{Age: time.Millisecond}})
	defer l.Close()
	wait(l, 300)
}

// TestRulesBetween has other rules for a moment, too short for a sweep. What was
// stored then comes under the rules that are back.
func TestRulesBetween(t *testing.T) {
	fs := vfs.NewMem()
	open := func(age time.Duration) *Log {
		t.Helper()
		l, err := Open("log", Options{fs: fs, Rules: []engine.RetentionRule{{Pattern: "**", Retention: engine.Retention{Age: age}}}})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open(time.Hour)
	for i := range 2000 { // what more than one step looks at
		publish(t, l, fmt.Sprint("many/", i), 1)
	}
	l.Close()
	l = open(0)
	publish(t, l, "z", 1)
	l.Close()
	l = open(time.Hour)
	defer l.Close()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if queued, err := l.get(ageKey(nil, time.Hour.Milliseconds(), 2001)); err != nil {
			t.Fatal(err)
		} else if queued != nil {
			break
		} else if time.Since(begin) > 10*time.Second {
			t.Fatal("the message is not in the queue of its age")
		}
	}
}

// TestAgeAgain has an age, then none, then the same one again. What the age's
// queue let go meanwhile is in it again.
func TestAgeAgain(t *testing.T) {
	fs := vfs.NewMem()
	open := func(age time.Duration) *Log {
		t.Helper()
		return reopen(t, "log", Options{fs: fs, Rules: []engine.RetentionRule{{Pattern: "a", Retention: engine.Retention{Age: age}}}})
	}
	const age = 300 * time.Millisecond
	l := open(age)
	publish(t, l, "a", 1)
	l.Close()
	l = open(0)
	// The age's queue lets go of it, which shows in nothing else.
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{ageKeys}, UpperBound: []byte{ageKeys + 1}})
		if err != nil {
			t.Fatal(err)
		}
		empty := !it.First()
		it.Close()
		if empty {
			break
		} else if time.Since(begin) > 10*time.Second {
			t.Fatal("the queue has the message still")
		}
	}
	if n := l.Stats().Messages; n != 1 {
		t.Fatalf("without an age %d messages are kept", n)
	}
	l.Close()
	l = open(age)
	defer l.Close()
	for begin := time.Now(); l.Stats().Messages > 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the message is kept")
		}
	}
}
