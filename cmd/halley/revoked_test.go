package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley"
)

func mustOpenRevoked(t *testing.T, dir string) *revokedFile {
	t.Helper()
	f, err := openRevoked(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// namesOf returns whom revocations are of, as one text.
func namesOf(list []halley.Revocation) string {
	var names []string
	for _, r := range list {
		names = append(names, r.User+r.ID)
	}
	return strings.Join(names, " ")
}

// What was kept is there after every cut but that of its own line, and after it
// further lines are whole.
func TestRevokedTorn(t *testing.T) {
	dir := t.TempDir()
	f := mustOpenRevoked(t, dir)
	for _, r := range []halley.Revocation{{User: "ann"}, {ID: "7"}, {User: "b\n\"ö"}} {
		r.Time = time.Now()
		if err := f.keep(r); err != nil {
			t.Fatal(err)
		}
	}
	f.close()
	if err := f.keep(halley.Revocation{User: "late", Time: time.Now()}); err == nil {
		t.Error("kept after the end")
	}
	path := filepath.Join(dir, revokedName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for cut := range len(whole) + 1 {
		for _, garbage := range []string{"", "\x00\x00\x00", "\x00\x00\n"} {
			if err := os.WriteFile(path, append(whole[:cut:cut], garbage...), 0o600); err != nil {
				t.Fatal(err)
			}
			want := strings.Join([]string{"ann", "7", "b\n\"ö"}[:strings.Count(string(whole[:cut]), "\n")], " ")
			f := mustOpenRevoked(t, dir)
			if got := namesOf(f.list()); got != want {
				t.Fatalf("cut at %d, %q after it: got %q, want %q", cut, garbage, got, want)
			}
			if err := f.keep(halley.Revocation{User: "new", Time: time.Now()}); err != nil {
				t.Fatal(err)
			}
			f.close()
			list, torn, err := readRevoked(path)
			if got := namesOf(list); got != strings.TrimSpace(want+" new") || torn || err != nil {
				t.Fatalf("cut at %d, %q after it: then got %q, %v, %v", cut, garbage, got, torn, err)
			}
		}
	}
}

// What is not needed goes at the start; what is in the way of nothing does not
// keep the server from starting.
func TestRevokedCompacts(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, revokedName)
	now := time.Now()
	write := func(list ...halley.Revocation) {
		t.Helper()
		var b strings.Builder
		for _, r := range list {
			line, err := json.Marshal(revokedLine(r))
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(line, '\n'))
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(halley.Revocation{User: "old", Time: now.Add(-halley.RevocationTime)}, halley.Revocation{User: "ann", Time: now}, halley.Revocation{ID: "ann", Time: now}, halley.Revocation{User: "ann", Time: now.Add(time.Second)})
	mustOpenRevoked(t, dir)
	list, _, err := readRevoked(path)
	if namesOf(list) != "ann ann" || list[0].ID != "ann" || !list[1].Time.Equal(now.Add(time.Second)) || err != nil {
		t.Errorf("got %+v, %v", list, err)
	}

	var many []halley.Revocation
	for i := range halley.MaxRevocations + 5 {
		many = append(many, halley.Revocation{ID: fmt.Sprint(i), Time: now.Add(time.Duration(i))})
	}
	write(many...)
	f := mustOpenRevoked(t, dir)
	if list := f.list(); len(list) != halley.MaxRevocations || list[0].ID != "5" {
		t.Errorf("%d are kept, the first %+v", len(list), list[0])
	}
	// Repeats do not fill the disk.
	f.lines = maxRevokedLines
	if err := f.keep(halley.Revocation{ID: "7", Time: now.Add(time.Minute)}); err != nil || f.lines != halley.MaxRevocations {
		t.Errorf("%d lines, %v", f.lines, err)
	}

	for what, text := range map[string]string{
		"line 1": "nonsense\n{\"user\":\"ann\",\"time\":\"2026-11-26T00:00:00Z\"}\n",
		"line 2": "{\"user\":\"ann\",\"time\":\"2026-11-26T00:00:00Z\"}\n{\"user\":\"ann\"}\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openRevoked(dir); err == nil || !strings.Contains(err.Error(), what+" is not a revocation") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// After an error nobody knows what is on the disk, so the next revocation writes
// everything that was accepted.
func TestRevokedFails(t *testing.T) {
	dir := t.TempDir()
	f := mustOpenRevoked(t, dir)
	keep := func(user string) error { return f.keep(halley.Revocation{User: user, Time: time.Now()}) }
	if err := keep("a"); err != nil {
		t.Fatal(err)
	}
	f.file.Close()
	if err := keep("b"); err == nil {
		t.Fatal("kept in a file that is closed")
	}
	partial := filepath.Join(dir, revokedName+".partial")
	if err := os.Mkdir(partial, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := keep("c"); err == nil {
		t.Fatal("kept where no file can be made")
	}
	if err := os.Remove(partial); err != nil {
		t.Fatal(err)
	}
	if err := keep("d"); err != nil {
		t.Fatal(err)
	}
	list, _, err := readRevoked(f.path)
	if got := namesOf(list); got != "a d" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// tokens makes tokens for one server.
type tokens struct {
	t      *testing.T
	secret string
}

func newTokens(t *testing.T) tokens {
	return tokens{t, writeFile(t, "secret", []byte(testSecret))}
}

func (k tokens) make(flags ...string) string {
	k.t.Helper()
	return strings.TrimSpace(mustRun(k.t, append([]string{"token", "make", "--secret-file", k.secret, "--subscribe", "**"}, flags...)...))
}

// post asks a server with a token, and returns its status and what it answers.
func (s *server) post(method, path, token string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.client.URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// wantRevoked wants a token to be refused, or good.
func (s *server) wantRevoked(token, what string, revoked bool) {
	s.t.Helper()
	status, answer := s.post("GET", "/history?channel=a", token)
	if revoked != (status == 401 && strings.Contains(answer, "token-revoked")) || !revoked && status != 200 {
		s.t.Errorf("%s: %d %s, want revoked %v", what, status, answer, revoked)
	}
}

// A server that is killed at any moment has taken back what it has said it has.
func TestRevocationsSurviveKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	k := newTokens(t)
	admin := k.make("--admin", "--user", "root")
	const users = 6
	var names, of []string
	for u := range users {
		names = append(names, fmt.Sprint("user", u))
		of = append(of, k.make("--user", names[u]))
	}
	revoked := map[int]bool{}
	for round := range 5 {
		s := serve(t, dir, "--auth-secret-file", k.secret, "--fsync", "never")
		for u := range users {
			// Who got no answer may be revoked or not.
			if status, _ := s.post("GET", "/history?channel=a", of[u]); status == 401 {
				revoked[u] = true
			} else if revoked[u] {
				t.Errorf("%s is good again in round %d", names[u], round)
			}
		}
		if len(revoked) < round {
			t.Errorf("%d are revoked in round %d", len(revoked), round)
		}
		var mu sync.Mutex
		var asking sync.WaitGroup
		answered := make(chan struct{}, users)
		for _, u := range []int{round, (round + 1) % users, round} {
			asking.Go(func() {
				status, _ := s.post("POST", "/revoke?user="+names[u], admin)
				mu.Lock()
				defer mu.Unlock()
				if status == 200 {
					revoked[u] = true
					answered <- struct{}{}
				}
			})
		}
		<-answered
		time.Sleep(time.Duration(rand.Int64N(int64(2 * time.Millisecond))))
		s.stop(syscall.SIGKILL)
		asking.Wait()
	}
}
