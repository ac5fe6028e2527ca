//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// On SIGUSR2 the program gives its place to what is installed under its name
// now: it drains, closes the log, which one process at a time may have, and
// executes it (execve(2)) with the same arguments. It is still the same process
// to whoever supervises it, and its socket stays open all the time.

// socketEnv names the descriptor of the socket to go on with.
const socketEnv = "HALLEY_SOCKET"

// notifyRestart has the channel told when the program is to be started again.
func notifyRestart(c chan<- os.Signal) { signal.Notify(c, syscall.SIGUSR2) }

// inherit returns the socket of the program that was here before, or nil.
func inherit() (net.Listener, error) {
	value, ok := os.LookupEnv(socketEnv)
	if !ok {
		return nil, nil
	}
	_ = os.Unsetenv(socketEnv) // it is for this program alone; the name is good
	fd, err := strconv.Atoi(value)
	if err != nil {
		return nil, fmt.Errorf("%s is %q, not a descriptor", socketEnv, value)
	}
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close() // the listener has a duplicate
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("%s is %d: %w", socketEnv, fd, err)
	}
	return l, nil
}

// A successor is the program that is to go on in this one's place.
type successor struct {
	path   string
	socket int // a duplicate, which it inherits
}

// succeed finds out whether the program that is installed now would start, and
// keeps the socket for it.
func succeed(l net.Listener) (*successor, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	sc, ok := l.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T cannot be handed over", l)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &successor{path: path}
	if s.socket, err = duplicate(raw); err != nil {
		return nil, err
	}
	if err := s.try(); err != nil {
		return nil, errors.Join(err, os.NewSyscallError("close", syscall.Close(s.socket)))
	}
	return s, nil
}

// duplicate returns a descriptor of a socket, which programs that are executed
// have too. That of net.TCPListener.File would make it wait, the socket's own as
// well, where it is given to another program.
func duplicate(raw syscall.RawConn) (fd int, err error) {
	var failed error
	if err := raw.Control(func(own uintptr) { fd, failed = syscall.Dup(int(own)) }); err != nil {
		return 0, err
	}
	return fd, os.NewSyscallError("dup", failed)
}

// tryTime is how long the program may take to say whether it would start.
const tryTime = 10 * time.Second

// try has the program say whether it would start as this one was started.
func (s *successor) try() error {
	ctx, cancel := context.WithTimeout(context.Background(), tryTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.path, append(slices.Clone(os.Args[1:]), "--dry-run")...) // #nosec G204 G702 -- this program itself, as it was started
	cmd.Args[0] = os.Args[0]
	cmd.Env = s.environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s would not start: %w: %s", s.path, err, bytes.TrimSpace(out))
	}
	return nil
}

func (s *successor) environ() []string {
	return append(os.Environ(), socketEnv+"="+strconv.Itoa(s.socket))
}

// run executes the program. It returns only if that fails.
func (s *successor) run() error {
	return fmt.Errorf("start %s: %w", s.path, syscall.Exec(s.path, os.Args, s.environ())) // #nosec G204 G702 -- this program itself, as it was started
}
