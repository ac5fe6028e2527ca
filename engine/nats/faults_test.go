package nats

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/internal/natstest"
)

// patience is how long a test waits for what comes unless something is wrong.
const testPatience = time.Minute

func one(channel, data string) engine.Batch {
	return engine.Batch{Messages: []engine.Message{{Channel: channel, ContentType: "text/plain", Data: []byte(data)}}}
}

func mustAppend(t *testing.T, l *Log, b engine.Batch) engine.Receipt {
	t.Helper()
	r, err := l.Append(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testPatience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never comes to be that %s", what)
		}
	}
}

// all returns the messages after a cursor as text, and whether there is a gap.
func all(t *testing.T, l *Log, after engine.Cursor) (list []string, gap bool) {
	t.Helper()
	page, err := l.Read(t.Context(), engine.Query{Channels: []string{"**"}, After: after})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page.Messages {
		list = append(list, fmt.Sprintf("%d:%s:%s", m.ID.Seq, m.Channel, m.Data))
	}
	return list, page.Gap
}

// A natsClient publishes and looks after streams as any program may.
func client(t *testing.T, server *natstest.Server) (*natsgo.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := natsgo.Connect(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// TestNodes wants two nodes to have one log and one memory of keys.
func TestNodes(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	a, b := open(t, server, t.TempDir(), Options{}), open(t, server, t.TempDir(), Options{})
	var wg sync.WaitGroup
	for _, l := range []*Log{a, b} {
		wg.Go(func() {
			for i := range 200 {
				batch := one("a", fmt.Sprint(i))
				for range i % 4 {
					batch.Messages = append(batch.Messages, batch.Messages[0])
				}
				r, err := l.Append(t.Context(), batch)
				if err != nil {
					t.Error(err)
					return
				}
				// A client may turn up anywhere with what it was told here.
				other := a
				if l == a {
					other = b
				}
				page, err := other.Read(t.Context(), engine.Query{Channels: []string{"a"}, After: r.ID(r.Count - 1)})
				if err != nil || page.Gap {
					t.Errorf("the other node after %v: gap %v, %v", r.ID(r.Count-1), page.Gap, err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "both have all", func() bool { return a.End() == b.End() && a.End().Seq == 2*500 })
	x, _ := all(t, a, engine.Cursor{})
	y, _ := all(t, b, engine.Cursor{})
	if strings.Join(x, " ") != strings.Join(y, " ") {
		t.Error("the nodes differ")
	}

	// A key, on both at once, and then again.
	keyed := one("k", "once")
	keyed.Key, keyed.Digest = "key", [32]byte{1}
	var receipts [8]engine.Receipt
	for i := range receipts {
		wg.Go(func() {
			r, err := []*Log{a, b}[i%2].Append(t.Context(), keyed)
			if receipts[i] = r; err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	fresh := 0
	for _, r := range receipts {
		if r.First != receipts[0].First || r.Time != receipts[0].Time {
			t.Errorf("under one key: %+v and %+v", r, receipts[0])
		}
		if !r.Repeated {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d of the calls have stored it", fresh)
	}
	keyed.Digest = [32]byte{2}
	for _, l := range []*Log{a, b} {
		if _, err := l.Append(t.Context(), keyed); !errors.Is(err, engine.ErrKeyReused) {
			t.Errorf("other content under the key: %v", err)
		}
	}
	batch := engine.Batch{Messages: append(one("k", "1").Messages, one("k", "2").Messages...), Key: "batch"}
	first := mustAppend(t, a, batch)
	if again := mustAppend(t, b, batch); !again.Repeated || again.First != first.First || again.Count != 2 {
		t.Errorf("a batch again: %+v, was %+v", again, first)
	}
}

// TestServerAway kills the server while two nodes publish, and starts it again.
// What was acknowledged is there once, and so is what was not, or not at all.
func TestServerAway(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	a, b := open(t, server, t.TempDir(), Options{Timeout: 4 * time.Second}), open(t, server, t.TempDir(), Options{Timeout: 4 * time.Second})
	epoch := a.End().Epoch
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	acked := make(map[string]engine.Cursor)
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("%d.%d", p, i)
				batch := one("a", name)
				for range i % 3 {
					batch.Messages = append(batch.Messages, one("b", name).Messages...)
				}
				r, err := []*Log{a, b}[p%2].Append(t.Context(), batch)
				switch {
				case err == nil:
					mu.Lock()
					acked[name] = r.First
					mu.Unlock()
				case !errors.Is(err, engine.ErrUnavailable):
					t.Error(err)
					return
				}
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acked)
	}
	for round := range 2 {
		n := count()
		eventually(t, "they publish", func() bool { return count() > n+100 })
		server.Kill()
		eventually(t, "a node tells that it is away", func() bool { return a.Err() != nil })
		// Readers have what the node has.
		if list, gap := all(t, a, engine.Cursor{Epoch: epoch}); gap || len(list) == 0 {
			t.Errorf("round %d: while it is away there are %d messages, gap is %v", round, len(list), gap)
		}
		if round == 1 {
			eventually(t, "publishers are refused", func() bool {
				_, err := a.Append(t.Context(), one("a", "refused"))
				return errors.Is(err, engine.ErrUnavailable)
			})
		}
		server.Restart(t)
		eventually(t, "it is back", func() bool { return a.Err() == nil && b.Err() == nil })
		n = count()
		eventually(t, "they publish again", func() bool { return count() > n+100 })
	}
	// And one that stands still for a while.
	server.Pause(t)
	time.Sleep(3 * time.Second)
	server.Resume(t)
	n := count()
	eventually(t, "they publish after that", func() bool { return count() > n+100 })
	cancel()
	wg.Wait()

	eventually(t, "the nodes agree", func() bool { return a.End() == b.End() })
	if a.End().Epoch != epoch {
		t.Errorf("the epoch is %s, was %s", a.End().Epoch, epoch)
	}
	at := make(map[string]uint64)
	for after := (engine.Cursor{Epoch: epoch}); ; {
		page, err := a.Read(t.Context(), engine.Query{Channels: []string{"a"}, After: after})
		if err != nil || page.Gap {
			t.Fatalf("reading after %v: gap is %v, %v", after, page.Gap, err)
		}
		for _, m := range page.Messages {
			if was := at[string(m.Data)]; was != 0 && string(m.Data) != "refused" {
				t.Errorf("%s is at %d and at %v", m.Data, was, m.ID)
			}
			at[string(m.Data)] = m.ID.Seq
		}
		if after = page.End; !page.More {
			break
		}
	}
	for name, c := range acked {
		if at[name] != c.Seq {
			t.Errorf("%s was acknowledged at %v and is at %d", name, c, at[name])
		}
	}
	s := a.Stats()
	t.Logf("acknowledged %d, published again %d, followed %d times", len(acked), s.Retries, s.Followed)
}

// TestBeginsWithout opens a node while the servers are away: it has what it had.
func TestBeginsWithout(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	dir := t.TempDir()
	a := open(t, server, dir, Options{})
	at := mustAppend(t, a, one("a", "1")).First
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	a = open(t, server, dir, Options{Timeout: time.Second})
	if list, gap := all(t, a, engine.Cursor{Epoch: at.Epoch}); gap || len(list) != 1 || a.Err() == nil {
		t.Errorf("it has %v, gap is %v, and is ready: %v", list, gap, a.Err() == nil)
	}
	if _, err := a.Append(t.Context(), one("a", "2")); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("Append: %v", err)
	}
	server.Restart(t)
	eventually(t, "it follows", func() bool { return a.Err() == nil })
	if r := mustAppend(t, a, one("a", "3")); r.First != (engine.Cursor{Epoch: at.Epoch, Seq: 2}) {
		t.Errorf("then it stores at %v", r.First)
	}

	// One that has nothing waits.
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if l, err := Open(ctx, t.TempDir(), Options{URL: server.URL, Replicas: 1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a new node without servers: %v", err)
		if err == nil {
			l.Close()
		}
	}
}

// TestAnotherStream wants a stream that was made again to be another log, and
// a running node to make one that is gone.
func TestAnotherStream(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	o := Options{missing: time.Second}
	a, b := open(t, server, t.TempDir(), o), open(t, server, t.TempDir(), o)
	first := mustAppend(t, a, one("a", "1")).First
	_, js := client(t, server)
	if err := js.DeleteStream(t.Context(), "halley"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the nodes have another epoch", func() bool {
		return a.End().Epoch != first.Epoch && b.End().Epoch == a.End().Epoch && a.Err() == nil && b.Err() == nil
	})
	second := mustAppend(t, b, one("a", "2")).First
	if second.Seq != 1 || second.Epoch == first.Epoch {
		t.Errorf("stored at %v, before that at %v", second, first)
	}
	for _, l := range []*Log{a, b} {
		eventually(t, "it has it", func() bool { return l.End() == second })
		if list, gap := all(t, l, first); !gap || len(list) != 1 {
			t.Errorf("after what was before: %v, gap is %v", list, gap)
		}
	}
	if err := a.Wait(t.Context(), first); err != nil {
		t.Error(err)
	}

	// Whoever restores a backup may say so.
	stream, err := js.Stream(t.Context(), "halley")
	if err != nil {
		t.Fatal(err)
	}
	c := stream.CachedInfo().Config
	c.Metadata[epochKey] = "restored"
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the nodes have a third epoch", func() bool {
		return a.End().Epoch != second.Epoch && b.End() == a.End() && a.End().Seq == 1
	})
	if list, gap := all(t, a, second); !gap || len(list) != 1 {
		t.Errorf("after a cursor of the second: %v, gap is %v", list, gap)
	}
}

// TestRolledBack gives the server an older state of its disk, as a power cut may
// leave it: what nodes were told is gone, and its positions are given out again.
func TestRolledBack(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("positions given out again is %v", again), func(t *testing.T) {
			dir := t.TempDir()
			server := natstest.Start(t, dir, "")
			o := Options{behind: time.Second}
			nodeDir := t.TempDir()
			a := open(t, server, nodeDir, o)
			before := mustAppend(t, a, one("a", "kept")).First
			server.Kill()
			old := filepath.Join(t.TempDir(), "store")
			if err := os.CopyFS(old, os.DirFS(filepath.Join(dir, "store"))); err != nil {
				t.Fatal(err)
			}
			server.Restart(t)
			eventually(t, "it is back", func() bool { return a.Err() == nil })
			lost := mustAppend(t, a, one("a", "lost")).First
			if again {
				a.Close() // it will not see it happen
			}
			server.Kill()
			if err := os.RemoveAll(filepath.Join(dir, "store")); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(dir, "store"), os.DirFS(old)); err != nil {
				t.Fatal(err)
			}
			server.Restart(t)
			if again {
				b := open(t, server, t.TempDir(), o) // which was not there before
				for i := range 3 {
					mustAppend(t, b, one("a", fmt.Sprint("other ", i)))
				}
				a = open(t, server, nodeDir, o)
			}
			eventually(t, "there is another epoch", func() bool { return a.End().Epoch != before.Epoch && a.Err() == nil })
			list, gap := all(t, a, lost)
			want := "1:a:kept"
			if again {
				want += " 2:a:other 0 3:a:other 1 4:a:other 2"
			}
			if got := strings.Join(list, " "); !gap || got != want {
				t.Errorf("after what was lost: %s, gap is %v, want %s", got, gap, want)
			}
		})
	}
}

// TestRetentionAhead has the stream drop what a node has missed.
func TestRetentionAhead(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	o := Options{StreamBytes: 64 << 10}
	dir := t.TempDir()
	a, b := open(t, server, t.TempDir(), o), open(t, server, dir, o)
	at := mustAppend(t, a, one("a", "before")).First
	eventually(t, "both have it", func() bool { return b.End() == at })
	b.Close()
	for i := range 100 {
		mustAppend(t, a, one("b", fmt.Sprint(i, strings.Repeat("x", 2000))))
	}
	b = open(t, server, dir, o)
	if a.End() != b.End() {
		t.Errorf("the nodes are at %v and %v", a.End(), b.End())
	}
	if list, gap := all(t, b, at); !gap || len(list) < 10 || len(list) > 40 {
		t.Errorf("after what it had there are %d messages, gap is %v", len(list), gap)
	}
	if list, gap := all(t, a, at); gap || len(list) != 100 {
		t.Errorf("on the other node there are %d messages, gap is %v", len(list), gap)
	}
	if s := b.Stats(); s.Holes != 1 {
		t.Errorf("%d holes", s.Holes)
	}
	end := b.End()
	mustAppend(t, a, one("a", "after"))
	eventually(t, "both have that", func() bool { return a.End() == b.End() })
	if list, gap := all(t, b, end); gap || len(list) != 1 {
		t.Errorf("after the end: %v, gap is %v", list, gap)
	}
}

// TestDeleted has an operator delete messages and purge the stream.
func TestDeleted(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	dir := t.TempDir()
	a := open(t, server, dir, Options{})
	_, js := client(t, server)
	stream, err := js.Stream(t.Context(), "halley")
	if err != nil {
		t.Fatal(err)
	}
	at := mustAppend(t, a, one("a", "1")).First
	a.Close()
	b := open(t, server, t.TempDir(), Options{})
	for i := range 4 {
		mustAppend(t, b, one("a", fmt.Sprint(i+2)))
	}
	for _, seq := range []uint64{3, 5} { // in the middle, and the last
		if err := stream.DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	a = open(t, server, dir, Options{})
	if list, gap := all(t, a, at); !gap || strings.Join(list, " ") != "2:a:2 4:a:4" {
		t.Errorf("%v, gap is %v", list, gap)
	}
	if a.End().Seq != 5 || a.Err() != nil {
		t.Errorf("it is at %v, and ready: %v", a.End(), a.Err())
	}
	a.Close()
	mustAppend(t, b, one("a", "6"))
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	a = open(t, server, dir, Options{})
	if a.End().Seq != 6 || a.Err() != nil {
		t.Errorf("after a purge it is at %v, and ready: %v", a.End(), a.Err())
	}
	if r := mustAppend(t, a, one("a", "7")); r.First.Seq != 7 {
		t.Errorf("then it stores at %v", r.First)
	}
	eventually(t, "both have it", func() bool { return a.End() == b.End() })
	if list, gap := all(t, b, at); gap || len(list) != 6 {
		t.Errorf("the node that was there has %v, gap is %v", list, gap)
	}
}

// TestForeign publishes as any NATS client may.
func TestForeign(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	a := open(t, server, t.TempDir(), Options{})
	nc, js := client(t, server)
	begin := a.End()
	put := func(subject, contentType, data string) {
		t.Helper()
		m := natsgo.NewMsg(subject)
		m.Data = []byte(data)
		if contentType != "" {
			m.Header.Set("Content-Type", contentType)
		}
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	put("halley.chat.room#7", "text/plain", "hello")
	put("halley.a", "application/json", `{"n":1}`)
	put("halley.a", "", "\xff")
	// Nobody waits for what nobody listens to: no acknowledgement is asked for.
	if err := nc.Publish("halley.b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they are there", func() bool { return a.End().Seq == 4 })
	list, gap := all(t, a, begin)
	if got := strings.Join(list, " "); gap || got != "1:chat/room.7:hello 2:a:{\"n\":1} 3:a:\xff 4:b:x" {
		t.Errorf("%q, gap is %v", got, gap)
	}
	page, err := a.Read(t.Context(), engine.Query{Channels: []string{"b"}})
	if err != nil || page.Messages[0].ContentType != "application/octet-stream" || page.Messages[0].Time == 0 {
		t.Errorf("%+v, %v", page.Messages, err)
	}

	at := a.End()
	put("halley.a", "application/json", `{"n":`)
	put("halley.a", "text/plain", "\xff")
	put("halley.meta.connect", "text/plain", "x")
	put("halley.grüße", "text/plain", "x")
	eventually(t, "they are left out", func() bool { return a.End().Seq == 8 })
	if list, gap := all(t, a, at); !gap || len(list) != 0 {
		t.Errorf("after what is none: %v, gap is %v", list, gap)
	}
	if s := a.Stats(); s.Skipped != 4 {
		t.Errorf("%d were left out", s.Skipped)
	}
	if r := mustAppend(t, a, one("a", "good")); r.First.Seq != 9 {
		t.Errorf("stored at %v", r.First)
	}

	// What looks like a word of the servers is a message like any other.
	for i, status := range []string{"100", "204", "408", "409", "503"} {
		m := natsgo.NewMsg("halley.a")
		m.Header.Set("Status", status)
		m.Header.Set("Nats-Pending-Messages", "1000000")
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is there", func() bool { return a.End().Seq == uint64(10+i) })
	}
	if s := a.Stats(); s.Skipped != 4 || s.Followed != 1 {
		t.Errorf("what looks like a status: %+v", s)
	}
}

// TestMisfit wants everything told at once that keeps a stream from being a log.
func TestMisfit(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	_, js := client(t, server)
	c := jetstream.StreamConfig{
		Name: "halley", Subjects: []string{"other.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew,
		MaxMsgsPerSubject: 5, Storage: jetstream.MemoryStorage, NoAck: true, Duplicates: time.Second,
	}
	if _, err := js.CreateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), t.TempDir(), Options{URL: server.URL, Replicas: 3})
	if !errors.Is(err, ErrMisfit) {
		t.Fatalf("Open: %v", err)
	}
	for _, want := range []string{"halley.>", "limits", "discards", "5 messages a subject", "in memory", "acknowledge", "1 replicas, and 3", "duplicates for 1s"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not tell %q: %v", want, err)
		}
	}
	_, err = Open(t.Context(), t.TempDir(), Options{URL: server.URL, Stream: "other", Replicas: 1})
	if err == nil || errors.Is(err, ErrMisfit) || !strings.Contains(err.Error(), "subjects overlap") {
		t.Errorf("a stream whose subjects another has: %v", err)
	}
	_, err = Open(t.Context(), t.TempDir(), Options{URL: server.URL, Stream: "three", Replicas: 3})
	if err == nil || !strings.Contains(err.Error(), "a lone NATS server can have one replica") {
		t.Errorf("three replicas on one server: %v", err)
	}

	// One that takes no batches is a log for single messages.
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "single", Subjects: []string{"single.>"}}); err != nil {
		t.Fatal(err)
	}
	a := open(t, server, t.TempDir(), Options{Stream: "single"})
	mustAppend(t, a, one("a", "1"))
	b := one("a", "2")
	b.Messages = append(b.Messages, b.Messages[0])
	if _, err := a.Append(t.Context(), b); !errors.Is(err, engine.ErrInvalid) || !strings.Contains(err.Error(), "allow_atomic") {
		t.Errorf("a batch: %v", err)
	}
}

// TestConsumerGone takes the node's consumer away while messages come.
func TestConsumerGone(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	a, b := open(t, server, t.TempDir(), Options{}), open(t, server, t.TempDir(), Options{})
	_, js := client(t, server)
	stream, err := js.Stream(t.Context(), "halley")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		mustAppend(t, a, one("a", fmt.Sprint(i)))
		for name := range stream.ConsumerNames(t.Context()).Name() {
			if err := stream.DeleteConsumer(t.Context(), name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
				t.Fatal(err)
			}
		}
		// The last message, which no consumer brings.
		nc, _ := client(t, server)
		if err := nc.Publish("halley.last", nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both find it", func() bool { return a.End().Seq == uint64(2*i+2) && b.End() == a.End() })
	}
	if _, gap := all(t, b, engine.Cursor{Epoch: b.End().Epoch}); gap {
		t.Error("there is a gap")
	}
}

// TestDirectory wants nothing of a directory that is not a replica's, nor of one
// that is in use.
func TestDirectory(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	dir := t.TempDir()
	own, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := Open(t.Context(), dir, Options{URL: server.URL, Replicas: 1})
		if !errors.Is(err, disk.ErrInUse) && !errors.Is(err, disk.ErrNotReplica) {
			t.Errorf("a directory with a log of its own: %v", err)
		}
		own.Close()
	}
}

// TestTooLarge refuses what the servers do not take, before it is sent.
func TestTooLarge(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "max_payload: 64KB")
	a := open(t, server, t.TempDir(), Options{})
	if _, err := a.Append(t.Context(), one("a", strings.Repeat("x", 64<<10))); !errors.Is(err, engine.ErrTooLarge) || !strings.Contains(err.Error(), "max_payload") {
		t.Errorf("Append: %v", err)
	}
	mustAppend(t, a, one("a", strings.Repeat("x", 60<<10)))
}

// TestKeysOverNodes publishes under the same keys on two nodes at once, with the
// same content and with other.
func TestKeysOverNodes(t *testing.T) {
	server := natstest.Start(t, t.TempDir(), "")
	nodes := []*Log{open(t, server, t.TempDir(), Options{}), open(t, server, t.TempDir(), Options{})}
	for i := range 100 {
		var receipts [4]engine.Receipt
		var errs [4]error
		var wg sync.WaitGroup
		for j := range receipts {
			b := one("a", fmt.Sprint(i))
			for range i % 3 {
				b.Messages = append(b.Messages, b.Messages[0])
			}
			b.Key = fmt.Sprint("key ", i)
			if i%2 == 1 {
				b.Digest[0] = byte(j)
			}
			wg.Go(func() { receipts[j], errs[j] = nodes[j%2].Append(t.Context(), b) })
		}
		wg.Wait()
		fresh, refused := 0, 0
		for j, err := range errs {
			switch {
			case errors.Is(err, engine.ErrKeyReused):
				refused++
			case err != nil:
				t.Fatal(err)
			case !receipts[j].Repeated:
				fresh++
			}
		}
		if fresh != 1 || i%2 == 1 && refused != 3 || i%2 == 0 && refused != 0 {
			t.Fatalf("round %d: %d have stored it, %d were refused: %+v", i, fresh, refused, receipts)
		}
	}
}
