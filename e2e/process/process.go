// Package process runs the programs that the browser tests need: browsers,
// their drivers and the server. None of them outlives the test binary, however
// it ends.
package process

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// A Process is a running program, leader of a process group of its own.
type Process struct {
	cmd    *exec.Cmd
	output output
	done   chan struct{}
	err    error // of Wait; set before done is closed
}

// Start runs cmd and collects what it prints; cmd.Stdout and cmd.Stderr are
// set by Start. The kernel kills the program should the test binary die
// without calling Stop, where the system can do that (Linux).
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	// A descendant outside the group may keep the output open.
	cmd.WaitDelay = 2 * time.Second
	cmd.SysProcAttr = attributes()
	started := make(chan error)
	go func() {
		// The kernel's watch is on the thread that started the program, so
		// that thread stays for as long as the program runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
		p.output.wake()
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	return p, nil
}

// Await returns the first match of re in what the program printed so far or
// prints before ctx is done, with its submatches.
func (p *Process) Await(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	for {
		changed := p.output.changed()
		if match := re.FindStringSubmatch(p.Output()); match != nil {
			return match, nil
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("process: %s ended (%v) and never printed %q; it printed:\n%s",
				p.cmd.Path, p.err, re, p.Output())
		case <-ctx.Done():
			return nil, fmt.Errorf("process: %s printed no %q: %w; it printed:\n%s",
				p.cmd.Path, re, ctx.Err(), p.Output())
		case <-changed:
		}
	}
}

// Output is what the program printed on both its outputs, cut after 1 MiB.
func (p *Process) Output() string { return p.output.String() }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the program ended, as exec.Cmd.Wait does; only after Done.
func (p *Process) Err() error { return p.err }

// Signal sends sig to the program alone, not to its group.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Stop kills the program and its group and waits until it is gone. It may be
// called more than once.
func (p *Process) Stop() {
	select {
	case <-p.done: // the number may belong to another group by now
		return
	default:
	}
	kill(p.cmd.Process)
	<-p.done
}

// output keeps what is written to it and tells those who wait for more.
type output struct {
	mu   sync.Mutex // guards what follows
	text []byte
	more chan struct{}
}

const outputLimit = 1 << 20

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	room := max(0, outputLimit-len(o.text))
	o.text = append(o.text, b[:min(room, len(b))]...)
	o.mu.Unlock()
	o.wake()
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// changed returns a channel that is closed by the next wake.
func (o *output) changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return o.more
}

func (o *output) wake() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
}
