package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"github.com/halley-comet/halley/bench/peers"
	"github.com/halley-comet/halley/bench/stores"
)

// Stores is what a scenario of stores does. Each call is in a process of its
// own, so that none finds the heap, the caches or the garbage of another.
type Stores struct {
	// Kinds are those that a case compares.
	Kinds func(c Case) []stores.Kind
	// Prepare, if not nil, stores in config.Dir what all runs of all cases of
	// a size read. Without it each run begins with an empty folder.
	Prepare func(k stores.Kind, c Case, config Config) (Values, error)
	// Run measures.
	Run func(k stores.Kind, c Case, config Config) ([]Measure, error)
	// Feed, if not nil, is what another process does to a store while Run
	// looks at it.
	Feed func(k stores.Kind, c Case, config Config) (Values, error)
	// Leave opens a store and leaves it open, for its process to be killed.
	Leave func(k stores.Kind, c Case, config Config) error
}

// StoreNames lists the stores that a scenario compares, in any of its cases.
func (s Scenario) StoreNames() []string {
	if s.Stores == nil {
		return nil
	}
	var names []string
	for _, c := range s.Cases(Config{}) {
		for _, k := range s.Stores.Kinds(c) {
			if !slices.Contains(names, k.Name) {
				names = append(names, k.Name)
			}
		}
	}
	return names
}

// A task is one of these calls.
type task struct {
	Scenario string
	Store    string
	Step     step
	Case     Case
	Config   Config
}

type step string

const (
	prepareStep step = "prepare"
	runStep     step = "run"
	feedStep    step = "feed"
	leaveStep   step = "leave"
)

// An outcome is what a task's process says on its standard output.
type outcome struct {
	Prepared Values
	Measures []Measure
	Error    string
}

// taskVariable has the task of a process that was started for one.
const taskVariable = "HALLEY_BENCH_TASK"

// Together returns the first of the cases, and those after it that read what
// was prepared for it.
func (s Scenario) Together(cases []Case) []Case {
	n := 1
	for n < len(cases) && s.Stores.Prepare != nil && cases[n].Connections == cases[0].Connections {
		n++
	}
	return cases[:n]
}

// PrepareStore prepares a store for the runs of a case. The process that calls
// it, or RunStore, begins with [Child].
func (s Scenario) PrepareStore(k stores.Kind, c Case, config Config) (Values, error) {
	o, err := spawn(task{s.Name, k.Name, prepareStep, c, config}, false)
	return o.Prepared, err
}

// RunStore runs a case with a store.
func (s Scenario) RunStore(k stores.Kind, c Case, config Config) ([]Measure, error) {
	o, err := spawn(task{s.Name, k.Name, runStep, c, config}, false)
	return o.Measures, err
}

// leave has another process open a store, and kills it.
func leave(scenario string, k stores.Kind, c Case, config Config) error {
	_, err := spawn(task{scenario, k.Name, leaveStep, c, config}, true)
	return err
}

// spawn has another process of this program do a task, and kills it then or
// waits for its end.
func spawn(t task, kill bool) (outcome, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return outcome{}, err
	}
	program, err := os.Executable()
	if err != nil {
		return outcome{}, err
	}
	command := exec.Command(program)
	command.Env = append(os.Environ(), taskVariable+"="+string(text))
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stay, err := command.StdinPipe()
	if err != nil {
		return outcome{}, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return outcome{}, err
	}
	if err := command.Start(); err != nil {
		return outcome{}, err
	}
	var o outcome
	err = json.NewDecoder(out).Decode(&o)
	if kill {
		command.Process.Kill()
	}
	stay.Close()
	ended := command.Wait()
	switch {
	case o.Error != "":
		return o, errors.New(o.Error)
	case err != nil:
		return o, fmt.Errorf("%s of %s: %w, %v", t.Step, t.Store, err, ended)
	}
	return o, nil
}

// Child does the task that the process was started for. It reports false where
// there is none.
func Child() bool {
	if peers.Child() {
		return true
	}
	text := os.Getenv(taskVariable)
	if text == "" {
		return false
	}
	os.Unsetenv(taskVariable)
	var t task
	var o outcome
	err := json.Unmarshal([]byte(text), &t)
	if err == nil {
		err = t.do(&o)
	}
	if err != nil {
		o.Error = err.Error()
	}
	json.NewEncoder(os.Stdout).Encode(o)
	if t.Step == leaveStep {
		io.Copy(io.Discard, os.Stdin) // until it is killed
	}
	return true
}

func (t *task) do(o *outcome) error {
	for _, s := range All() {
		if s.Name != t.Scenario || s.Stores == nil {
			continue
		}
		for _, k := range s.Stores.Kinds(t.Case) {
			if k.Name != t.Store {
				continue
			}
			var err error
			switch t.Step {
			case prepareStep:
				o.Prepared, err = s.Stores.Prepare(k, t.Case, t.Config)
			case runStep:
				o.Measures, err = s.Stores.Run(k, t.Case, t.Config)
			case feedStep:
				o.Prepared, err = s.Stores.Feed(k, t.Case, t.Config)
			case leaveStep:
				err = s.Stores.Leave(k, t.Case, t.Config)
			}
			return err
		}
	}
	return fmt.Errorf("there is no store %q in a scenario %q", t.Store, t.Scenario)
}
