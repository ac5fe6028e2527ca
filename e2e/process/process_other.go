//go:build !linux

package process

import (
	"os"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return nil }

func kill(leader *os.Process) { leader.Kill() }
