//go:build unix

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
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

// succeed finds out whether the program that is installed now can be executed,
// and keeps the socket for it.
func succeed(l net.Listener) (*successor, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	try := exec.CommandContext(ctx, path, "version") // #nosec G204 -- this program itself
	try.Args[0] = os.Args[0]
	if out, err := try.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s version: %w: %s", path, err, out)
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
	var failed error
	if err := raw.Control(func(fd uintptr) { s.socket, failed = syscall.Dup(int(fd)) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, os.NewSyscallError("dup", failed)
	}
	return s, nil
}

// run executes the program. It returns only if that fails.
func (s *successor) run() error {
	env := append(os.Environ(), socketEnv+"="+strconv.Itoa(s.socket))
	return fmt.Errorf("start %s: %w", s.path, syscall.Exec(s.path, os.Args, env)) // #nosec G204 G702 -- this program itself, as it was started
}
