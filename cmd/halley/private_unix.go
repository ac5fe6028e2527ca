//go:build unix

package main

import "syscall"

// keepPrivate makes files that are made from now on their owner's alone: who can
// read a log or a backup can read every message.
func keepPrivate() { syscall.Umask(0o077) }
