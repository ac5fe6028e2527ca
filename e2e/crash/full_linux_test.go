package crash

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/internal/crashtest"
)

// mount mounts a file system of so many bytes, in memory.
func mount(t *testing.T, size int64) (dir string) {
	t.Helper()
	dir = t.TempDir()
	err := syscall.Mount("halley-test", dir, "tmpfs", 0, fmt.Sprint("size=", size))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("needs root, to mount a small file system: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// used returns how many bytes of a file system are in use, and how many free.
func used(t *testing.T, dir string) (used, free int64) {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Blocks-s.Bfree) * s.Bsize, int64(s.Bfree) * s.Bsize
}

// TestFull fills the disk. Publishers are told, readers go on, and the server
// lives. Once there is space and it is started again, everything acknowledged
// is there, and publishing goes on.
func TestFull(t *testing.T) {
	for name, end := range map[string]func(*server){
		"stopped": func(s *server) {
			if err := s.stop(); err != nil {
				s.t.Errorf("the server ended with %v; it printed:\n%s", err, s.process.Output())
			}
		},
		"killed": (*server).kill,
	} {
		t.Run(name, func(t *testing.T) { testFull(t, end) })
	}
}

func testFull(t *testing.T, end func(*server)) {
	r, space := fill(t)
	_, free := used(t, filepath.Dir(space))
	for _, p := range r.publishers {
		checkRefused(r.T, p)
	}
	r.checkReaders()
	acked := r.acked
	if !strings.Contains(r.server.process.Output(), "no space left on device") {
		t.Errorf("the server does not say why: it printed:\n%s", r.server.process.Output())
	}
	select {
	case <-r.server.process.Done():
		t.Fatalf("the server ended: %v; it printed:\n%s", r.server.process.Err(), r.server.process.Output())
	default:
	}
	end(r.server)
	r.goOn(space)
	t.Logf("acknowledged %d until the disk was full, with %d bytes free, and %d afterwards: lost %d, doubled %d, out of order %d, epochs %d",
		acked, free, r.acked-acked, r.ledger.Lost, r.ledger.Doubled, r.ledger.Disordered, len(r.ledger.Epochs))
}

// fill returns a trial of a server whose disk is full: each publisher was
// refused. There is space once the file is removed.
func fill(t *testing.T) (r *trial, space string) {
	t.Helper()
	dir := mount(t, 128<<20)
	space = filepath.Join(dir, "space")
	if err := os.WriteFile(space, make([]byte, 48<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r = newTrialIn(t, crashtest.Seeded(t), filepath.Join(dir, "data"), "--retain-count", "0", "--retain-bytes", "0", "--disk-limit", "0", "--heartbeat", "200ms")
	r.publishing.Wait()
	return r, space
}

// goOn makes space, starts the server, and wants all to be as if the disk had
// never been full.
func (r *trial) goOn(space string) {
	r.Helper()
	if err := os.Remove(space); err != nil {
		r.Fatal(err)
	}
	r.server.start()
	for _, p := range r.publishers {
		refused := p.Refused.Request
		// It may have been stored. With a key, repeating it tells.
		if p.Refused = nil; refused.Key == "" || p.Send(r.Context(), refused) {
			p.Done(refused)
		}
		r.publishing.Go(func() { p.Run(r.ctx, r.stop) })
	}
	select {
	case <-r.acks.Await(50):
	case <-time.After(patience):
		r.Fatal("publishers are not answered")
	}
	r.finish()
}

// checkRefused wants a publisher to have been told that it may try again, and
// to be told so again.
func checkRefused(t *testing.T, p *crashtest.Publisher) {
	t.Helper()
	for range 2 {
		r := p.Refused
		if r == nil {
			t.Fatal("a publisher was not refused")
		}
		var problem struct {
			Status      int
			Code, Title string
		}
		err := json.Unmarshal(r.Body, &problem)
		after, _ := strconv.Atoi(r.Header.Get("Retry-After"))
		if err != nil || r.Status != 503 || problem.Status != 503 || problem.Code != "engine-unavailable" || problem.Title == "" ||
			!strings.HasPrefix(r.Header.Get("Content-Type"), "application/problem+json") || after < 1 || after > 3 {
			t.Errorf("%v", r)
		}
		p.Refused = nil
		if p.Send(t.Context(), r.Request) {
			t.Fatal("a full disk has taken a message")
		}
	}
}

// checkReaders wants those that were there before the disk was full to have all
// that was acknowledged, and to be sent heartbeats, and others to be served.
func (r *trial) checkReaders() {
	r.Helper()
	r.check()
	for _, s := range r.subscribers {
		s.Finish(r.ledger)
		awaitHeartbeat(r.T, s)
	}
	for _, transport := range comet.Transports {
		s := newSubscriber(r.T, r.server, transport, r.start, "load/**")
		ctx, cancel := context.WithCancel(r.Context())
		r.subscribing.Go(func() { s.Run(ctx) })
		s.Finish(r.ledger)
		cancel()
	}
}

// awaitHeartbeat waits for a heartbeat that comes from now on. With polls it is
// an answer.
func awaitHeartbeat(t *testing.T, s *crashtest.Subscriber) {
	t.Helper()
	for range 2 { // one may have come before
		select {
		case <-s.Beats:
		case <-time.After(patience):
			t.Fatalf("%v: no heartbeats", s)
		}
	}
}

// TestLimit publishes many times what the disk holds to a log that has a limit.
// Retention keeps the disk from ever being full, and publishers from being
// refused. The disk is larger than the limit by what logs, tables before their
// compaction and the compaction itself take at most.
func TestLimit(t *testing.T) {
	const size, limit = 512 << 20, 64 << 20
	dir := mount(t, size)
	s := newServer(t, filepath.Join(dir, "data"), "--retain-count", "0", "--retain-bytes", "0", "--disk-limit", fmt.Sprint(limit, "B"))
	s.start()
	var left atomic.Int64 // bytes to publish
	left.Store(int64(crashtest.Rounds(t, 3, 2)) * (32 << 20))
	total := left.Load()
	var newest atomic.Uint64
	var publishing sync.WaitGroup
	for i := range 8 {
		random := rand.New(rand.NewPCG(rand.Uint64(), 0))
		p := newPublisher(t, s, i, random, new(crashtest.Pulse))
		publishing.Go(func() {
			for {
				data := make([]byte, 4<<10<<random.IntN(9))
				if left.Add(int64(-len(data))) < 0 {
					return
				}
				for i := 0; i < len(data); i += 8 { // what nothing makes smaller
					binary.NativeEndian.PutUint64(data[i:], random.Uint64())
				}
				r := &crashtest.Publish{Query: url.Values{"channel": {fmt.Sprint("c/", random.IntN(100))}}, ContentType: "image/png", Body: data, Names: make([]crashtest.Name, 1)}
				first, err := p.Attempt(t.Context(), r)
				if err != nil {
					t.Errorf("%v", err)
					return
				}
				for {
					was := newest.Load()
					if was >= first || newest.CompareAndSwap(was, first) {
						break
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		publishing.Wait()
		close(done)
	}()
	highest, least := int64(0), int64(size)
	for going := true; going; {
		select {
		case <-done:
			going = false
		case <-time.After(5 * time.Millisecond):
		}
		used, free := used(t, dir)
		highest, least = max(highest, used), min(least, free)
	}
	s.kill()
	s.start()
	page, err := s.client().History(t.Context(), comet.Query{Channels: []string{"**"}, Before: "now", Limit: 1})
	if err != nil || len(page.Messages) != 1 || !strings.HasSuffix(page.Messages[0].ID, fmt.Sprint("-", newest.Load())) {
		t.Errorf("the newest message is %+v, %v, want %d", page, err, newest.Load())
	}
	if err := s.stop(); err != nil {
		t.Errorf("the server ended with %v; it printed:\n%s", err, s.process.Output())
	}
	t.Logf("published %d MiB with a limit of %d MiB: the disk had at most %d MiB in use, and always %d MiB free", total>>20, limit>>20, highest>>20, least>>20)
}

// TestStartOnFull starts the server on a disk that has not a byte left. It says
// why it cannot, or serves readers. It loses nothing.
func TestStartOnFull(t *testing.T) {
	r, space := fill(t)
	dir := filepath.Dir(space)
	r.check()
	r.server.kill()
	_, free := used(t, dir)
	rest := filepath.Join(dir, "rest")
	if err := os.WriteFile(rest, make([]byte, free), 0o600); err != nil {
		t.Fatal(err)
	}
	r.server.launch()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := r.server.process.Await(ctx, ready)
	switch {
	case err == nil:
		r.ledger.Read(false)
		r.server.kill()
	case ctx.Err() != nil: // It neither serves nor ends.
		t.Error(err)
		r.server.kill()
	case !strings.Contains(r.server.process.Output(), "no space left on device"):
		t.Error(err)
	}
	if err := os.Remove(rest); err != nil {
		t.Fatal(err)
	}
	r.goOn(space)
}
