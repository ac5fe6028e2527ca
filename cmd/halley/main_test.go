package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"halley": main})
}

// TestScripts runs the command as users type it. The scripts know three
// commands more:
//
//	start FLAG…    starts halley serve on a free port and sets $ADDR and $URL
//	stop [SIGNAL]  ends it by SIGTERM or another signal; it must exit with 0
//	lines N ARG…   runs halley until it has printed N lines, and interrupts it
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"start": start,
			"stop":  stop,
			"lines": lines,
		},
	})
}

var ready = regexp.MustCompile(`^halley: ready at (\w+)://([^ ]+) `)

func program(ts *testscript.TestScript, args ...string) *exec.Cmd {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		path := filepath.Join(dir, "halley")
		if _, err := os.Stat(path); err != nil {
			continue
		}
		cmd := exec.Command(path, args...)
		cmd.Dir = ts.MkAbs(".")
		for _, name := range []string{"HOME", "PATH", "TMPDIR", "HALLEY_URL", "HALLEY_HEARTBEAT", "HALLEY_CONFIG", "HALLEY_RETAIN_COUNT", "HALLEY_DATA_DIR"} {
			cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
			if ts.Getenv(name) == "" {
				cmd.Env = cmd.Env[:len(cmd.Env)-1]
			}
		}
		return cmd
	}
	ts.Fatalf("halley is not in PATH")
	return nil
}

func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("start cannot be negated: use exec halley serve")
	}
	cmd := program(ts, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() { _ = cmd.Process.Kill() }) // if a script forgets to stop it
	scanner := bufio.NewScanner(stderr)
	for scanner.Scan() {
		m := ready.FindStringSubmatch(scanner.Text())
		if m == nil {
			ts.Logf("%s", scanner.Text())
			continue
		}
		ts.Setenv("ADDR", m[2])
		ts.Setenv("HALLEY_URL", m[1]+"://"+m[2]+"/comet")
		ts.Setenv("URL", m[1]+"://"+m[2]+"/comet")
		ts.Setenv("PID", strconv.Itoa(cmd.Process.Pid))
		servers.Store(m[2], cmd)
		go func() {
			for scanner.Scan() {
			}
		}()
		return
	}
	ts.Fatalf("the server ended before it was ready: %v", cmd.Wait())
}

// servers holds the *exec.Cmd of each, by address. Scripts run side by side.
var servers sync.Map

func stop(ts *testscript.TestScript, _ bool, args []string) {
	server, ok := servers.Load(ts.Getenv("ADDR"))
	if !ok {
		ts.Fatalf("no server was started")
	}
	cmd := server.(*exec.Cmd)
	sig := syscall.SIGTERM
	if len(args) > 0 && args[0] == "INT" {
		sig = syscall.SIGINT
	}
	ts.Check(cmd.Process.Signal(sig))
	if err := cmd.Wait(); err != nil {
		ts.Fatalf("the server ended with %v, want 0", err)
	}
}

func lines(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	cmd := program(ts, args[1:]...)
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	scanner := bufio.NewScanner(stdout)
	for range n {
		if !scanner.Scan() {
			ts.Fatalf("the command ended too soon: %v", cmd.Wait())
		}
		_, err := ts.Stdout().Write(append(scanner.Bytes(), '\n'))
		ts.Check(err)
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil {
		ts.Fatalf("the command ended with %v after an interrupt, want 0", err)
	}
}
