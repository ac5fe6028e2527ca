package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// socketPath returns a path to a socket in a directory that is short enough for
// an address, and what is to be called once it is not used any more.
func socketPath(dir, name string) (string, func(), error) {
	path := filepath.Join(dir, name)
	if len(path) < len(syscall.RawSockaddrUnix{}.Path) {
		return path, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name), func() { d.Close() }, nil
}
