package main

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"

	"github.com/halley-comet/halley/engine/disk"
)

type checkCmd struct {
	Config string `env:"HALLEY_CONFIG" help:"Configuration file, as of serve; without, what the environment says is checked." placeholder:"FILE"`
	Strict bool   `help:"Exit with 1 for dangers and warnings, too."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// Run prints all that is wrong with a configuration, and then what an operator
// should know of it. It starts nothing and changes nothing.
func (c *checkCmd) Run() error {
	f := &configFile{}
	if c.Config != "" {
		file, err := os.Open(c.Config)
		if err != nil {
			return err
		}
		defer file.Close()
		f = readConfig(file, c.Config)
	}
	r := f.review()
	if c.JSON {
		if err := printJSON(r); err != nil {
			return err
		}
	} else {
		r.print(os.Stdout)
	}
	if len(r.Problems) > 0 || c.Strict && slices.ContainsFunc(r.Findings, func(f finding) bool { return f.Level != note }) {
		os.Exit(1)
	}
	return nil
}

// printJSON prints a value for programs, as people can read it too.
func printJSON(v any) error {
	enc := json.NewEncoder(os.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// A review is what check tells.
type review struct {
	Problems problems  `json:"problems"` // for which serve does not start
	Findings []finding `json:"findings"` // the gravest first
}

// A finding is something that is allowed, and that an operator should know.
type finding struct {
	Level level `json:"level"`
	problem
	Advice string `json:"advice"`
}

// A level is how grave a finding is.
type level string

const (
	danger  level = "danger"  // strangers can do what they should not
	warning level = "warning" // something will go wrong some day
	note    level = "note"    // good to know
)

var levels = []level{danger, warning, note}

func (r *review) print(w io.Writer) {
	for _, p := range r.Problems {
		fmt.Fprintf(w, "problem: %s\n", p)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%s: %s. %s.\n", f.Level, f.problem, f.Advice)
	}
	counts := []string{count(len(r.Problems), "problem")}
	for _, l := range levels {
		n := 0
		for _, f := range r.Findings {
			if f.Level == l {
				n++
			}
		}
		counts = append(counts, count(n, string(l)))
	}
	fmt.Fprintln(w, strings.Join(counts, ", "))
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// review checks what serve would have for settings: the file's, and what the
// environment says.
func (f *configFile) review() *review {
	if err := f.eliminate(true, (*serveCmd).checkStart); err != nil {
		// Not the file's: the environment's.
		f.report(nil, "", "%v", err)
		f.problems[len(f.problems)-1].File = ""
	}
	r := &review{Problems: problems{}, Findings: []finding{}}
	if c, flags, err := f.parse(f.settings, true); err == nil {
		s := &settings{serveCmd: c, file: f, flags: flags}
		s.checkFiles()
		for _, rule := range rules {
			s.apply(rule)
		}
		s.checkPolicies()
		r.Findings = append(r.Findings, s.findings...)
	}
	slices.SortStableFunc(r.Findings, func(a, b finding) int {
		return cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level))
	})
	f.problems.sort()
	r.Problems = append(r.Problems, f.problems...)
	return r
}

// checkStart reports what serve would refuse when it starts, of settings whose
// values are possible each by itself.
func (c *serveCmd) checkStart() error {
	switch _, _, err := splitListen(c.Listen); {
	case err != nil:
		return fmt.Errorf("--listen: %w", err)
	case c.Engine == "disk" && c.DataDir == "":
		return errors.New("--data-dir is empty")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key: one is nothing without the other")
	}
	if err := c.checkCluster(); err != nil {
		return err
	}
	return c.checkValues()
}

// dryRun finds out whether serve would start, also while a server runs with the
// same settings: what that one has to itself is not asked for.
func (c *serveCmd) dryRun() error {
	if err := c.checkStart(); err != nil {
		return err
	}
	s := &settings{serveCmd: c, file: &configFile{}}
	s.checkDirectory()
	if len(s.file.problems) > 0 {
		return s.file.problems
	}
	if c.TLSCert != "" {
		if _, err := loadCertificate(c.TLSCert, c.TLSKey); err != nil {
			return fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
	}
	_, closer, err := c.authorizer()
	if err != nil {
		return err
	}
	if closer != nil {
		defer closer.Close()
	}
	if err := mayListen(c.AdminListen); err != nil {
		return fmt.Errorf("--admin-listen: %w", err)
	}
	// The socket that is handed over may be at another address than is set.
	addr, err := handedOver()
	if err == nil && addr == nil {
		if err = mayListen(c.Listen); err == nil {
			addr, err = net.ResolveTCPAddr("tcp", c.Listen)
		}
	}
	if err != nil {
		return err
	}
	return c.access.check(addr)
}

// handedOver returns the address of the socket that was handed over, nil if
// there is none.
func handedOver() (net.Addr, error) {
	l, err := inherit()
	if l == nil || err != nil {
		return nil, err
	}
	return l.Addr(), l.Close()
}

// mayListen reports why nobody could listen on an address, if it is not empty,
// beside that somebody does.
func mayListen(addr string) error {
	if addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.Close()
}

// splitListen returns the parts of an address to listen on.
func splitListen(addr string) (host string, port int, err error) {
	host, name, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err = net.LookupPort("tcp", name)
	return host, port, err
}

// settings are those of a server, and what is found out about them.
type settings struct {
	*serveCmd
	file     *configFile
	flags    map[string]*kong.Flag
	findings []finding
}

// origin is a problem without a text, at the place that a setting comes from.
func (s *settings) origin(name string) problem {
	if flag := s.flags[name]; flag != nil {
		for _, env := range flag.Envs {
			if _, ok := os.LookupEnv(env); ok {
				return problem{Setting: name, File: env}
			}
		}
	}
	for i := range s.file.settings {
		if set := &s.file.settings[i]; set.flag.Name == name {
			return s.at(name, set.at())
		}
	}
	return problem{Setting: name}
}

func (s *settings) at(name string, n *yaml.Node) problem {
	return problem{Setting: name, File: s.file.name, Line: n.Line, Column: n.Column}
}

// problem reports that serve would refuse a setting.
func (s *settings) problem(name, format string, args ...any) {
	p := s.origin(name)
	p.Text = name + ": " + fmt.Sprintf(format, args...)
	s.file.problems = append(s.file.problems, p)
}

// find reports what an operator should know.
func (s *settings) find(l level, at problem, text, advice string) {
	at.Text = text
	s.findings = append(s.findings, finding{l, at, advice})
}

// apply adds a rule's finding, if there is one.
func (s *settings) apply(r rule) {
	if text := r.text(s); text != "" {
		s.find(r.level, s.origin(r.setting), text, r.advice)
	}
}

// checkFiles reports files that the settings name and that serve could not use.
func (s *settings) checkFiles() {
	readable := true
	for _, name := range slices.Sorted(maps.Keys(s.flags)) {
		flag := s.flags[name]
		// What stands for the value in the help tells what it is.
		if flag.PlaceHolder != "FILE" {
			continue
		}
		paths := []string{flag.Target.String()}
		if list, ok := flag.Target.Interface().([]string); ok {
			paths = list
		}
		for _, path := range paths {
			if path == "" {
				continue
			}
			if err := checkReadable(path); err != nil {
				s.problem(name, "%v", err)
				readable = false
			}
		}
	}
	if s.TLSCert != "" && s.TLSKey != "" && readable {
		s.checkCertificate()
	}
	s.checkDirectory()
}

func (s *settings) checkDirectory() {
	if s.onDisk() && s.DataDir != "" {
		s.checkDataDir()
	}
}

// checkReadable reports why a file cannot be read.
func checkReadable(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.IsDir() {
		return errors.Join(err, fmt.Errorf("%s is a directory", path))
	}
	return nil
}

// soon is how long before its end a certificate is told of.
const soon = 21 * 24 * time.Hour

func (s *settings) checkCertificate() {
	pair, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey)
	if err != nil {
		s.problem("tls-cert", "with tls-key: %v", err)
		return
	}
	leaf, now := pair.Leaf, time.Now()
	switch left := leaf.NotAfter.Sub(now); {
	case left < 0:
		s.problem("tls-cert", "the certificate has expired, at %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		s.problem("tls-cert", "the certificate is not valid before %s", leaf.NotBefore.UTC().Format(time.RFC3339))
	case left < soon:
		s.find(warning, s.origin("tls-cert"), fmt.Sprintf("the certificate expires in %d days, at %s", int(left.Hours()/24), leaf.NotAfter.UTC().Format(time.RFC3339)),
			"Renew it: clients refuse the server from then on")
	}
	for _, h := range s.Hosts {
		name := h
		if host, _, err := net.SplitHostPort(h); err == nil {
			name = host
		}
		if err := leaf.VerifyHostname(strings.Trim(name, "[]")); err != nil {
			s.find(warning, s.origin("tls-cert"), fmt.Sprintf("the certificate is not for %s, which hosts has", h), "Get one that names it, or browsers refuse the server")
		}
	}
	if info, err := os.Stat(s.TLSKey); err == nil && info.Mode().Perm()&0o044 != 0 {
		s.find(warning, s.origin("tls-key"), fmt.Sprintf("others on this machine can read the key (%v)", info.Mode().Perm()),
			"Take their right away: chmod go= "+s.TLSKey)
	}
}

// checkDataDir reports why serve could not open its log. The log is opened for
// reading, so nothing in it changes.
func (s *settings) checkDataDir() {
	info, err := os.Stat(s.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		// Serve makes it, and what is above it.
		above := filepath.Dir(absolute(s.DataDir))
		for info, err = os.Stat(above); errors.Is(err, fs.ErrNotExist) && filepath.Dir(above) != above; info, err = os.Stat(above) {
			above = filepath.Dir(above)
		}
		switch {
		case err != nil:
			s.problem("data-dir", "%v", err)
		case !info.IsDir():
			s.problem("data-dir", "%s is not there, and %s is not a directory", s.DataDir, above)
		case !writable(above):
			s.problem("data-dir", "%s is not there, and this user may not make it in %s", s.DataDir, above)
		}
		return
	}
	switch {
	case err != nil:
		s.problem("data-dir", "%v", err)
		return
	case !info.IsDir():
		s.problem("data-dir", "%s is not a directory", s.DataDir)
		return
	case !writable(s.DataDir):
		s.problem("data-dir", "this user may not write to %s", s.DataDir)
		return
	case info.Mode().Perm()&0o077 != 0:
		s.find(warning, s.origin("data-dir"), fmt.Sprintf("others on this machine can reach %s (%v), and may read every message", s.DataDir, info.Mode().Perm()),
			"Take their right away: chmod go= "+s.DataDir)
	}
	entries, err := os.ReadDir(s.DataDir)
	if err != nil {
		s.problem("data-dir", "%v", err)
		return
	}
	if len(entries) == 0 {
		return
	}
	log, err := s.openForReading()
	switch {
	case errors.Is(err, disk.ErrInUse):
		s.find(note, s.origin("data-dir"), s.DataDir+" is in use: a server runs on it", "A second one would not start; stop it first")
	case err != nil:
		s.problem("data-dir", "%s", strings.TrimPrefix(err.Error(), "--data-dir: "))
	default:
		log.Close()
	}
	if _, _, err := readRevoked(filepath.Join(s.DataDir, revokedName)); err != nil {
		s.problem("data-dir", "%v", err)
	}
}

// public tells whether others than this machine can reach the server.
func (s *settings) public() bool { return reachable(s.Listen) }

// reachable tells whether others than this machine can reach an address to
// listen on.
func reachable(addr string) bool {
	host, _, err := splitListen(addr)
	if err != nil {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return !ip.Unmap().IsLoopback()
	}
	return host == "" || !strings.EqualFold(host, "localhost")
}
