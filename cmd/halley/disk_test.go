package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestRestart wants what was acknowledged to be there after the server ended,
// and clients to go on from their cursors.
func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first := serve(t, dir)
	if out := first.printed(); !strings.Contains(out, "(engine disk, data in "+dir+")") {
		t.Errorf("the server does not say where its data is:\n%s", out)
	}
	ids := first.publish("a", "1", "2", "3")
	first.stop(syscall.SIGKILL)

	second := serve(t, dir)
	second.publish("a", "4")
	messages, gap := second.subscribe(ids[0], 3, "a")
	if texts := textsOf(messages); texts != "2 3 4" || gap || messages[0].ID != ids[1] {
		t.Errorf("after a kill, from %s: got %s, gap %v", ids[0], texts, gap)
	}
	if out := second.stop(syscall.SIGTERM); !strings.Contains(out, "the log was not closed the last time") {
		t.Errorf("the server says nothing of a log that was not closed:\n%s", out)
	}

	third := serve(t, dir, "--fsync", "never", "--disk-limit", "0", "--memory-limit", "4MiB")
	third.publish("a", "5")
	if messages, gap := third.subscribe(ids[2], 2, "a"); textsOf(messages) != "4 5" || gap {
		t.Errorf("after SIGTERM, from %s: got %s, gap %v", ids[2], textsOf(messages), gap)
	}
	if out := third.stop(syscall.SIGINT); strings.Count(out, "WARN") != 1 { // of that it is open
		t.Errorf("after SIGTERM:\n%s", out)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s is not its owner's alone: %v, %v", dir, info.Mode(), err)
	}
}

// TestOneServer wants a second server to say which directory is in use.
func TestOneServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s := serve(t, dir)
	_, stderr, err := run(t, nil, "serve", "--listen", "127.0.0.1:0", "--data-dir", dir)
	if err == nil || !strings.Contains(stderr, "--data-dir "+dir+": the directory is in use by another process") {
		t.Errorf("a second server: %v\n%s", err, stderr)
	}
	s.publish("a", "1")
	s.stop(syscall.SIGTERM)
}

// TestBackupAndRestore makes backups while publishers publish, and goes on from
// one.
func TestBackupAndRestore(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	s := serve(t, data)
	var acked atomic.Uint64 // messages
	var stop atomic.Bool
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				if _, err := s.tryPublish("many", fmt.Sprintf("%d-%d", p, i)); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				acked.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	before := make(map[string]uint64)
	var last string
	for i := range 3 {
		last = filepath.Join(dir, "backups", fmt.Sprint(i))
		time.Sleep(50 * time.Millisecond)
		before[last] = acked.Load()
		if out := mustRun(t, "log", "backup", "--data-dir", data, last); out != last+"\n" {
			t.Errorf("backup printed %q", out)
		}
	}
	old := s.publish("a", "after the backup")[0]
	stop.Store(true)
	wg.Wait()
	if _, stderr, err := run(t, nil, "log", "backup", "--data-dir", data, last); err == nil || !strings.Contains(stderr, last+": file already exists") {
		t.Errorf("backup to what is there: %v\n%s", err, stderr)
	}
	s.stop(syscall.SIGTERM)

	for backup, n := range before {
		if out := mustRun(t, "log", "verify", "--data-dir", backup); !strings.HasPrefix(out, "ok, up to ") {
			t.Errorf("verify %s: %s", backup, out)
		}
		if got := strings.Count(mustRun(t, "log", "export", "--data-dir", backup), `"channel":"many"`); uint64(got) < n {
			t.Errorf("%s has %d messages, acknowledged were %d", backup, got, n)
		}
	}
	epochs := map[string]bool{epochOf(old): true}
	for i := range 2 {
		// What an operator does: the backup takes the directory's place.
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(data, os.DirFS(last)); err != nil {
			t.Fatal(err)
		}
		restored := serve(t, data)
		if out := restored.printed(); !strings.Contains(out, `why="a backup"`) || strings.Contains(out, "not closed") {
			t.Errorf("restored:\n%s", out)
		}
		messages, gap := restored.subscribe(old, 1, "many")
		if epoch := epochOf(messages[0].ID); epochs[epoch] || !gap {
			t.Errorf("restored, time %d: epoch %s, gap %v", i, epoch, gap)
		} else {
			epochs[epoch] = true
		}
		restored.publish("a", "restored")
		restored.stop(syscall.SIGTERM)
	}
}

func epochOf(id string) string {
	epoch, _, _ := strings.Cut(id, "-")
	return epoch
}

// TestControl reaches a server whose directory has a long name, after one that
// was killed, and not one that could make no socket.
func TestControl(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	s := serve(t, dir)
	s.publish("a", "1", "2")
	s.stop(syscall.SIGKILL)
	if out := mustRun(t, "log", "stats", "--data-dir", dir); !strings.Contains(out, "messages   2\n") {
		t.Errorf("stats of a log whose server was killed:\n%s", out)
	}
	s = serve(t, dir)
	s.publish("a", "3")
	out := mustRun(t, "log", "stats", "--data-dir", dir)
	if !strings.Contains(out, "messages   3\n") || !strings.Contains(out, "directory  "+dir+"\n") {
		t.Errorf("stats of a server:\n%s", out)
	}
	socket := filepath.Join(dir, controlName)
	if info, err := os.Stat(socket); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
	s.stop(syscall.SIGTERM)
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left")
	}

	if err := os.Mkdir(socket, 0o700); err != nil {
		t.Fatal(err)
	}
	s = serve(t, dir)
	s.publish("a", "4")
	if out := s.printed(); !strings.Contains(out, "there is no control socket") {
		t.Errorf("the server says nothing of a socket that it could not make:\n%s", out)
	}
	s.stop(syscall.SIGTERM)
}
