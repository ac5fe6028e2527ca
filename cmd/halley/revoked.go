package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/halley-comet/halley"
)

// revokedName is that of the file in the data directory that has the
// revocations, a JSON object a line.
const revokedName = "revocations"

// maxRevokedLines is how many lines the file has at most before it is written
// anew, with one for each user and token.
const maxRevokedLines = 2 * halley.MaxRevocations

// errRevokedClosed is why a revocation is refused at the very end.
var errRevokedClosed = errors.New("the server has ended")

// A revokedLine is a revocation as the file has it.
type revokedLine struct {
	User string    `json:"user,omitempty"`
	ID   string    `json:"jti,omitempty"`
	Time time.Time `json:"time"`
}

// A revokedFile keeps revocations over a restart. It is of the server that has
// the log open, whose directory it is in.
type revokedFile struct {
	path string

	mu     sync.Mutex
	file   *os.File                        // guarded by mu: to append to; nil if all is to be written anew
	lines  int                             // guarded by mu
	last   map[halley.Revocation]time.Time // guarded by mu: the newest of each user and token, by it without its time
	closed bool                            // guarded by mu
}

// openRevoked opens the file in a directory, which need not have it yet. What
// is not needed any more is removed from it.
func openRevoked(dir string) (*revokedFile, error) {
	f := &revokedFile{path: filepath.Join(dir, revokedName), last: map[halley.Revocation]time.Time{}}
	list, torn, err := readRevoked(f.path)
	if err != nil {
		return nil, err
	}
	if torn {
		slog.Warn("halley: the last revocation was torn, and is left out: nobody had been told of it", "file", f.path)
	}
	for _, r := range list {
		who := halley.Revocation{User: r.User, ID: r.ID}
		if time.Since(r.Time) < halley.RevocationTime && r.Time.After(f.last[who]) {
			f.last[who] = r.Time
		}
	}
	f.forget()
	f.lines = len(list)
	switch {
	case torn || f.lines != len(f.last):
		if err := f.rewrite(); err != nil { // a full disk is no reason not to start
			slog.Warn("halley: the revocations cannot be written: no token can be revoked until they can", "error", err)
		}
	case f.lines > 0:
		f.file, err = os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0o600)
	}
	return f, err
}

// readRevoked reads a file, which need not be there. A last line that is not
// whole is of a write that was cut off; anything else that is wrong is not for
// the server to leave out, as a token would be good again.
func readRevoked(path string) (list []halley.Revocation, torn bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	for n := 1; len(text) > 0; n++ {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		var r revokedLine
		err := json.Unmarshal(line, &r)
		switch {
		case !whole || err != nil && len(rest) == 0:
			return list, true, nil
		case err == nil && ((r.User == "") == (r.ID == "") || r.Time.IsZero()):
			err = errors.New("want user or jti, and time")
			fallthrough
		case err != nil:
			return nil, false, fmt.Errorf("%s: line %d is not a revocation: %w", path, n, err)
		}
		list = append(list, halley.Revocation(r))
		text = rest
	}
	return list, false, nil
}

// list returns what is kept, the oldest first.
func (f *revokedFile) list() []halley.Revocation {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.listLocked()
}

func (f *revokedFile) listLocked() []halley.Revocation {
	list := make([]halley.Revocation, 0, len(f.last))
	for r, at := range f.last {
		r.Time = at
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b halley.Revocation) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.User, b.User), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// forget removes what is too old, and the oldest of what is too much.
func (f *revokedFile) forget() {
	list := f.listLocked()
	for i, r := range list {
		if time.Since(r.Time) < halley.RevocationTime && len(list)-i <= halley.MaxRevocations {
			return
		}
		delete(f.last, halley.Revocation{User: r.User, ID: r.ID})
	}
}

// keep returns when a revocation is on the disk.
func (f *revokedFile) keep(r halley.Revocation) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errRevokedClosed
	}
	who := halley.Revocation{User: r.User, ID: r.ID}
	before, known := f.last[who]
	if before.Before(r.Time) {
		f.last[who] = r.Time
	}
	var err error
	if f.file == nil || f.lines >= maxRevokedLines {
		f.forget()
		err = f.rewrite()
	} else if err = f.append(r); err != nil {
		// Nobody knows what is on the disk now, so the next one writes all.
		f.file.Close()
		f.file = nil
	}
	if err == nil {
		return nil
	}
	if known {
		f.last[who] = before
	} else {
		delete(f.last, who)
	}
	return err
}

func (f *revokedFile) append(r halley.Revocation) error {
	line, err := json.Marshal(revokedLine(r))
	if err != nil {
		return err
	}
	if _, err := f.file.Write(append(line, '\n')); err != nil {
		return err
	}
	f.lines++
	return f.file.Sync()
}

// rewrite puts a file with all that is kept in the place of what is there.
func (f *revokedFile) rewrite() error {
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
	list := f.listLocked()
	var b bytes.Buffer
	for _, r := range list {
		line, err := json.Marshal(revokedLine(r))
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	if err := replaceFile(f.path, b.Bytes()); err != nil {
		return err
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0o600)
	f.file, f.lines = file, len(list)
	return err
}

// copyTo puts what is kept into another directory.
func (f *revokedFile) copyTo(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return copyRevoked(filepath.Dir(f.path), dir)
}

// copyRevoked copies the file of a directory, if it has one, to another.
func copyRevoked(from, to string) error {
	text, err := os.ReadFile(filepath.Join(from, revokedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = replaceFile(filepath.Join(to, revokedName), text)
	}
	if err != nil {
		return fmt.Errorf("the revocations: %w", err)
	}
	return nil
}

// close has later revocations refused.
func (f *revokedFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

// replaceFile writes a file, whole or not at all, and returns when it is on the
// disk.
func replaceFile(path string, text []byte) error {
	partial := path + ".partial"
	file, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // a directory cannot be synced there
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
