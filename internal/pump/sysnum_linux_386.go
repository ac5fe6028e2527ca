package pump

// Package syscall has socketcall(2) alone, which takes its arguments by a
// pointer that it would have to keep alive. These came with Linux 4.3.
const (
	sysSendto   = 369
	sysRecvfrom = 371
)
