package main

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// writable tells whether this user may make files in a directory.
func writable(dir string) bool { return unix.Access(dir, unix.W_OK|unix.X_OK) == nil }

// freeSpace returns the bytes that are free where a path is or would be made.
func freeSpace(path string) (int64, bool) {
	path = absolute(path)
	for !exists(path) && filepath.Dir(path) != path {
		path = filepath.Dir(path)
	}
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil {
		return 0, false
	}
	return int64(s.Bavail) * s.Bsize, true
}
