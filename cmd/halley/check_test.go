package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/halley-comet/halley/internal/certtest"
)

// reviewOf checks a configuration file.
func reviewOf(t *testing.T, yaml string) *review {
	t.Helper()
	return readConfig(strings.NewReader(yaml), "halley.yaml").review()
}

// told returns all that a review tells, a line each.
func (r *review) told() string {
	var b strings.Builder
	r.print(&b)
	return b.String()
}

func wantTold(t *testing.T, r *review, want string) {
	t.Helper()
	if !strings.Contains(r.told(), want) {
		t.Errorf("got\n%swant %q in it", r.told(), want)
	}
}

// writeCertificate makes a certificate for push.example.com, and its key.
func writeCertificate(t *testing.T, from, until time.Time) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certtest.Write(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "push.example.com"},
		DNSNames: []string{"push.example.com"}, NotBefore: from, NotAfter: until,
	}, cert, key)
	return cert, key
}

func TestCheckCertificate(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	cert, key := writeCertificate(t, now.Add(-day), now.Add(100*day))
	_, otherKey := writeCertificate(t, now, now.Add(day))
	expired, expiredKey := writeCertificate(t, now.Add(-2*day), now.Add(-day))
	early, earlyKey := writeCertificate(t, now.Add(day), now.Add(2*day))
	soon, soonKey := writeCertificate(t, now.Add(-day), now.Add(10*day+time.Hour))
	open, openKey := writeCertificate(t, now.Add(-day), now.Add(100*day))
	if err := os.Chmod(openKey, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ cert, key, host, want string }{
		{cert, key, "push.example.com:8443", "0 problems, 0 dangers, 0 warnings"},
		{cert, key, "other.example.com", "warning: halley.yaml:3:11: the certificate is not for other.example.com"},
		{cert, otherKey, "push.example.com", "problem: halley.yaml:3:11: tls-cert: with tls-key: tls: private key does not match public key"},
		{key, cert, "push.example.com", "problem: halley.yaml:3:11: tls-cert: with tls-key: tls:"},
		{expired, expiredKey, "push.example.com", "problem: halley.yaml:3:11: tls-cert: the certificate has expired"},
		{early, earlyKey, "push.example.com", "problem: halley.yaml:3:11: tls-cert: the certificate is not valid before"},
		{soon, soonKey, "push.example.com", "warning: halley.yaml:3:11: the certificate expires in 10 days"},
		{open, openKey, "push.example.com", "warning: halley.yaml:4:10: others on this machine can read the key (-rw-r--r--)"},
	} {
		r := reviewOf(t, fmt.Sprintf("engine: memory\nopen: true\ntls-cert: %s\ntls-key: %s\nhosts: [%q]\n", tt.cert, tt.key, tt.host))
		wantTold(t, r, tt.want)
	}
}

func TestCheckDataDir(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(path, want string) {
		t.Helper()
		wantTold(t, reviewOf(t, "data-dir: "+path+"\ndisk-limit: 1MiB\n"), want)
	}
	check(filepath.Join(dir, "new", "below"), "0 problems, 0 dangers")
	check(file, "problem: halley.yaml:1:11: data-dir: "+file+" is not a directory")
	check(filepath.Join(file, "below"), "problem: halley.yaml:1:11: data-dir: stat "+file)

	data := filepath.Join(dir, "data")
	s := serve(t, data)
	check(data, "note: halley.yaml:1:11: "+data+" is in use: a server runs on it")
	s.stop(syscall.SIGTERM)
	check(data, "0 problems, 0 dangers")
	if err := os.Chmod(data, 0o755); err != nil {
		t.Fatal(err)
	}
	check(data, "warning: halley.yaml:1:11: others on this machine can reach "+data)

	stranger := filepath.Join(dir, "stranger")
	if err := os.MkdirAll(filepath.Join(stranger, "wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stranger, "readme"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(stranger, "problem: halley.yaml:1:11: data-dir: ")
	if os.Geteuid() == 0 {
		return // who may write everywhere
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	check(filepath.Join(dir, "new"), "this user may not make it")
}

// The example of the documents has nothing wrong in it.
func TestCheckExample(t *testing.T) {
	file, err := os.Open("../../docs/halley.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if f := readConfig(file, "halley.yaml"); len(f.problems) > 0 || len(f.policies) == 0 {
		t.Errorf("%d policies, %v", len(f.policies), f.problems)
	}
}

// Every rule is about a setting that there is, ends without a full stop, which
// is added, and holds its tongue for what the settings are by default.
func TestRules(t *testing.T) {
	for _, env := range os.Environ() {
		if name, value, _ := strings.Cut(env, "="); strings.HasPrefix(name, "HALLEY_") {
			t.Logf("without %s=%s", name, value)
			os.Unsetenv(name)
			defer os.Setenv(name, value)
		}
	}
	f := readConfig(strings.NewReader(""), "")
	c, flags, err := f.parse(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	s := &settings{serveCmd: c, file: f, flags: flags}
	for _, r := range rules {
		if flags[r.setting] == nil {
			t.Errorf("a rule is about %s, which is no setting", r.setting)
		}
		if strings.HasSuffix(r.advice, ".") || r.advice == "" {
			t.Errorf("%s: advice %q", r.setting, r.advice)
		}
		if text := r.text(s); text != "" && r.setting != "data-dir" && r.setting != "disk-limit" {
			t.Errorf("by default: %s", text)
		}
	}
}

func TestPublic(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:80": false, "[::1]:80": false, "localhost:80": false, "127.9.9.9:0": false, "[::ffff:127.0.0.1]:1": false,
		":80": true, "0.0.0.0:80": true, "[::]:80": true, "10.0.0.1:80": true, "push.example.com:https": true, "nonsense": false,
	} {
		if s := (&settings{serveCmd: &serveCmd{Listen: listen}}); s.public() != want {
			t.Errorf("%s: got public %v, want %v", listen, !want, want)
		}
	}
}

// What strangers could do, and each time what to do about it.
func TestCheckOpen(t *testing.T) {
	const undecided = "is not decided"
	for _, tt := range []struct{ yaml, want, not string }{
		{"hosts: [push.example.com]", `danger: halley.yaml:2:9: hosts has names`, "there are trusted-proxies"},
		{"hosts: [192.0.2.1]\ntrusted-proxies: [127.0.0.1]", `danger: halley.yaml:2:9: hosts has names`, "there are trusted-proxies"},
		{"trusted-proxies: [127.0.0.1]", `danger: halley.yaml:2:19: there are trusted-proxies, but who may do what is not decided`, "hosts has"},
		{"hosts: [localhost, a.localhost, \"127.0.0.1:80\", \"[::1]:80\"]", "0 problems, 0 dangers", undecided},
		{"hosts: [push.example.com]\nopen: true", "0 problems, 0 dangers", undecided},
		{"hosts: [push.example.com]\nanonymous-subscribe: [news]", "0 problems, 0 dangers", undecided},
		{"hosts: [push.example.com]\nlisten: 0.0.0.0:80", "serve will not start", undecided},

		{"open: true\ntrusted-proxies: [10.0.0.0/8, 0.0.0.0/0]", "danger: halley.yaml:3:19: trusted-proxies has 0.0.0.0/0, where strangers are too", ""},
		{"open: true\ntrusted-proxies: [\"::/0\"]", "trusted-proxies has ::/0", ""},
		{"open: true\ntrusted-proxies: [128.0.0.0/1]", "trusted-proxies has 128.0.0.0/1", ""},
		{"open: true\ntrusted-proxies: [\"::ffff:0.0.0.0/96\"]", "trusted-proxies has ::ffff:0.0.0.0/96", ""},
		{"open: true\ntrusted-proxies: [8.0.0.0/7]", "trusted-proxies has 8.0.0.0/7", ""},
		{"open: true\ntrusted-proxies: [10.0.0.0/7]", "trusted-proxies has 10.0.0.0/7", ""},
		{"open: true\ntrusted-proxies: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.7, \"fd00::/8\", 104.16.0.0/13, \"2a06:98c0::/29\", \"::1\"]", "0 problems, 0 dangers", ""},

		{"admin-listen: 0.0.0.0:9090", "danger: halley.yaml:2:15: admin-listen is 0.0.0.0:9090, which is not only for this machine", ""},
		{"admin-listen: \":9090\"", "danger: halley.yaml:2:15: admin-listen is :9090", ""},
		{"admin-listen: 127.0.0.1:9090", "0 problems, 0 dangers", ""},
		{"admin-listen: \"[::1]:9090\"", "0 problems, 0 dangers", ""},

		{"admit-rate: 0", "warning: halley.yaml:2:13: admit-rate sets no bound", ""},
		{"admit-rate: 1", "0 problems, 0 dangers, 0 warnings", ""},
	} {
		r := reviewOf(t, "engine: memory\n"+tt.yaml+"\n")
		wantTold(t, r, tt.want)
		if told := r.told(); tt.not != "" && strings.Contains(told, tt.not) {
			t.Errorf("%s: got\n%swant no %q", tt.yaml, told, tt.not)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	flags := serveFlags(kong.Must(new(cli), kong.Name("halley")))
	var names []string
	for name := range flags {
		names = append(names, name)
	}
	for name, want := range map[string]string{
		"listne": "listen", "retain_count": "retain-count", "hearbeat": "heartbeat", "origin": "origins", "tlscert": "tls-cert",
		"x": "", "something-else-altogether": "", "": "",
	} {
		got := didYouMean(name, names)
		if want == "" && got != "" || want != "" && got != "; did you mean "+want+"?" {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

// Every problem is at a place that the file has, and settings without a problem
// are those that serve starts with.
func FuzzConfig(f *testing.F) {
	for _, file := range []string{
		"", "heartbeat: 5s\nretain-count: 10\n", "heartbeat: 1us\norigins: [a, 'https://b', *c]\n", "heartbeat: [\n", "- a\n", "a: &a\n  b: *a\n",
		"channels:\n  - pattern: a/**\n    retain-age: often\n  - pattern: a/b\n  - {pattern: 'x*', slow-clients: cut, slow-limit: -1}\n  - 5\n",
		"channels: 3\ndemo: maybe\nmax-message: 3 apples\n---\nlisten: x\n", "data-dir:\ntls-cert: [a]\nhosts: {a: b}\nhosts: []\n",
		"x: &x [{pattern: a}]\nchannels: *x\n", "<<: {heartbeat: 5s}\n? [a]\n: b\n", "heartbeat: !!binary aGk=\nfsync: \"ne\\u0076er\"\n",
	} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, yaml string) {
		file := readConfig(strings.NewReader(yaml), "halley.yaml")
		lines := strings.Count(yaml, "\n") + strings.Count(yaml, "\r") + strings.Count(yaml, "\u0085") + strings.Count(yaml, "\u2028") + strings.Count(yaml, "\u2029") + 2
		for _, p := range file.problems {
			if p.Line < 0 || p.Line > lines || p.Line > 0 && p.Column < 1 || p.Text == "" {
				t.Errorf("%q: problem %+v", yaml, p)
			}
		}
		c, _, err := file.parse(file.settings, false)
		if err == nil {
			err = c.checkValues()
		}
		if err != nil {
			t.Errorf("%q: what has no problem is refused: %v", yaml, err)
			return
		}
		for _, rule := range c.rules() {
			if err := rule.Check(); err != nil {
				t.Errorf("%q: %v", yaml, err)
			}
		}
	})
}
