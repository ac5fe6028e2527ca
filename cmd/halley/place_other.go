//go:build !linux

package main

// These are found out on Linux alone.
func writable(string) bool           { return true }
func freeSpace(string) (int64, bool) { return 0, false }
