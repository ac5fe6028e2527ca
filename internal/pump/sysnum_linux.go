//go:build !386

package pump

import "syscall"

const (
	sysSendto   = syscall.SYS_SENDTO
	sysRecvfrom = syscall.SYS_RECVFROM
)
