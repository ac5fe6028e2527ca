package disk

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/halley-comet/halley/engine"
)

// TestKeysAreBounded has more keys than a quarter of the limit has room for:
// the oldest are forgotten.
func TestKeysAreBounded(t *testing.T) {
	const limit = 4 << 20
	l := reopen(t, "log", Options{fs: vfs.NewMem(), Fsync: Never, Limit: limit})
	defer l.Close()
	append := func(key string) engine.Receipt {
		t.Helper()
		r, err := l.Append(t.Context(), engine.Batch{Key: key, Messages: []engine.Message{{Channel: "a"}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const most = limit / 4 / keyCost
	for i := range 3 * most {
		append(fmt.Sprintf("%0400d", i))
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		report, err := l.Verify(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if report.Keys <= most {
			break
		} else if time.Since(begin) > 10*time.Second {
			t.Fatalf("%d keys, at most %d", report.Keys, most)
		}
	}
	if r := append(fmt.Sprintf("%0400d", 3*most-1)); !r.Repeated {
		t.Error("the newest key was forgotten")
	}
	if r := append(fmt.Sprintf("%0400d", 0)); r.Repeated {
		t.Error("the oldest key is remembered")
	}
}

// TestRepeatUnsynced repeats a batch whose first sync is still to come, and
// fails. The repeat is no better.
func TestRepeatUnsynced(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var failing atomic.Bool
	held, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !failing.Load() || op.Kind != errorfs.OpFileSync && op.Kind != errorfs.OpFileSyncData || !strings.HasSuffix(op.Path, ".log") {
			return nil
		}
		once.Do(func() { close(held) })
		<-free
		return syscall.EIO
	}))
	l := reopen(t, "log", Options{Fsync: Always, fs: fs})
	publish(t, l, "a", 3)
	failing.Store(true)
	b := engine.Batch{Key: "k", Messages: []engine.Message{{Channel: "a", Data: []byte("x")}}}
	answers := make(chan error, 2)
	try := func() {
		_, err := l.Append(t.Context(), b)
		answers <- err
	}
	go try()
	<-held
	go try()
	// The writer takes the repeat, and waits for its turn to be answered.
	for begin := time.Now(); l.inFlight.Load() < 2 && time.Since(begin) < 100*time.Millisecond; time.Sleep(time.Millisecond) {
	}
	close(free)
	for range 2 {
		wantError(t, "Append of what was not synced", <-answers, engine.ErrUnavailable)
	}
	l.Close()
}
