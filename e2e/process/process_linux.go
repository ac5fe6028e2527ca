package process

import (
	"os"
	"syscall"
)

func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func kill(leader *os.Process) { syscall.Kill(-leader.Pid, syscall.SIGKILL) }
