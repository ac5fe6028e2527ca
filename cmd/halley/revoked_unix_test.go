//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Revocations are handed over, and are in backups. In memory they are forgotten.
func TestRevocationsGoOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k := newTokens(t)
	admin, ann := k.make("--admin", "--user", "root"), k.make("--user", "ann")
	one, two := k.make("--user", "bob", "--id", "1"), k.make("--user", "bob", "--id", "2")
	s := serve(t, dir, "--auth-secret-file", k.secret, "--drain-window", "10ms")
	s.wantRevoked(ann, "at first", false)
	if status, answer := s.post("POST", "/revoke?user=ann", admin); status != 200 || answer != `{"connections":0}` {
		t.Fatalf("%d %s", status, answer)
	}
	if err := s.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server is there again", func() bool { return s.ready.Load() == 2 })
	s.wantRevoked(ann, "after it was handed over", true)
	if status, answer := s.post("POST", "/revoke?jti=1", admin); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	live, still := filepath.Join(t.TempDir(), "live"), filepath.Join(t.TempDir(), "still")
	mustRun(t, "log", "backup", "--data-dir", dir, live)
	s.stop(syscall.SIGTERM)
	mustRun(t, "log", "backup", "--data-dir", dir, still)
	for _, dir := range []string{live, still} {
		mustRun(t, "log", "verify", "--data-dir", dir)
		s := serve(t, dir, "--auth-secret-file", k.secret)
		s.wantRevoked(ann, dir, true)
		s.wantRevoked(one, dir, true)
		s.wantRevoked(two, dir, false)
		s.stop(syscall.SIGTERM)
	}

	if err := os.WriteFile(filepath.Join(dir, revokedName), []byte("nonsense\n{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := run(t, nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0"); err == nil || !strings.Contains(stderr, "line 1 is not a revocation") {
		t.Errorf("a file that is damaged: %v\n%s", err, stderr)
	}
	wantTold(t, reviewOf(t, "data-dir: "+dir+"\n"), "line 1 is not a revocation")

	for range 2 {
		s = serve(t, dir, "--engine", "memory", "--auth-secret-file", k.secret)
		s.wantRevoked(ann, "in memory", false)
		s.post("POST", "/revoke?user=ann", admin)
		s.wantRevoked(ann, "in memory", true)
		s.stop(syscall.SIGTERM)
	}
}
