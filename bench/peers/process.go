package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Usage is what a server's processes have used.
type Usage struct {
	CPU    time.Duration // user and system time so far
	Memory int64         // resident bytes; pages that its processes share count once
}

// A process is a server that runs, with its children.
type process struct {
	command *exec.Cmd
	addr    netip.AddrPort
	log     bytes.Buffer
	ended   chan struct{}
}

// Addr is where the server listens.
func (p *process) Addr() netip.AddrPort { return p.addr }

// free returns an address that nobody listens on.
func free() (netip.AddrPort, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer listener.Close()
	return netip.ParseAddrPort(listener.Addr().String())
}

// start runs a command and waits until its address takes connections.
func (p *process) start(addr netip.AddrPort, command *exec.Cmd) error {
	p.addr = addr
	return p.run(command)
}

func (p *process) run(command *exec.Cmd) error {
	if err := p.begin(command); err != nil {
		return err
	}
	return p.listening()
}

// begin runs a command that is to listen at the address, and does not wait.
func (p *process) begin(command *exec.Cmd) error {
	p.command, p.ended = command, make(chan struct{})
	p.log.Reset()
	command.Stdout, command.Stderr = &p.log, &p.log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	command.WaitDelay = time.Second
	if err := command.Start(); err != nil {
		return err
	}
	go func() {
		command.Wait()
		close(p.ended)
	}()
	return nil
}

// listening waits until the address takes connections.
func (p *process) listening() error {
	name := filepath.Base(p.command.Path)
	for range 200 {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", name, tail(p.log.Bytes()))
		case <-time.After(50 * time.Millisecond):
		}
		if conn, err := net.Dial("tcp", p.addr.String()); err == nil {
			conn.Close()
			return nil
		}
	}
	p.Stop()
	return fmt.Errorf("%s does not listen: %s", name, tail(p.log.Bytes()))
}

func tail(log []byte) string {
	return string(log[max(0, len(log)-1000):])
}

// Signal sends the server a signal.
func (p *process) Signal(signal syscall.Signal) error {
	return p.command.Process.Signal(signal)
}

// Ended is closed when the server has ended.
func (p *process) Ended() <-chan struct{} { return p.ended }

// Stop ends the process and those it started.
func (p *process) Stop() {
	if p.command == nil || p.command.Process == nil {
		return
	}
	group := -p.command.Process.Pid
	syscall.Kill(p.command.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(2 * time.Second):
		syscall.Kill(group, syscall.SIGKILL)
		<-p.ended
	}
	p.command = nil
}

// Kill ends the process and those it started at once, without a word to them.
func (p *process) Kill() {
	if p.command == nil || p.command.Process == nil {
		return
	}
	syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// Usage reads what the processes of the server's group have used.
func (p *process) Usage() (Usage, error) {
	select {
	case <-p.ended:
		return Usage{}, fmt.Errorf("the server ended: %s", tail(p.log.Bytes()))
	default:
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return Usage{}, err
	}
	var usage Usage
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// The name, in brackets, may hold anything: count from its end.
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if group, _ := strconv.Atoi(fields[2]); group != p.command.Process.Pid {
			continue
		}
		user, _ := strconv.ParseInt(fields[11], 10, 64)
		system, _ := strconv.ParseInt(fields[12], 10, 64)
		usage.CPU += time.Duration(user+system) * (time.Second / clockTicks)
		usage.Memory += proportional(filepath.Join(filepath.Dir(path), "smaps_rollup"))
	}
	if usage.Memory == 0 {
		return usage, errors.New("cannot read the server's memory")
	}
	return usage, nil
}

// clockTicks is USER_HZ, which Linux has the same on all its platforms that Go
// runs on.
const clockTicks = 100

// proportional reads a process's resident bytes, with its share of what it
// shares.
func proportional(path string) int64 {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if rest, found := strings.CutPrefix(line, "Pss:"); found {
			kilobytes, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}

// output runs a command for its output, which is its error too.
func output(dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, name, args...)
	command.Dir = dir
	data, err := command.CombinedOutput()
	text := strings.TrimSpace(string(data))
	if err != nil {
		return text, fmt.Errorf("%s: %w: %s", name, err, tail(data))
	}
	return text, nil
}
