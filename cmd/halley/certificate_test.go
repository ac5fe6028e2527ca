package main

import (
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/halley-comet/halley/internal/certtest"
)

// writePair writes a certificate with a number, and its key.
func writePair(t *testing.T, chain, key string, number int64) {
	t.Helper()
	certtest.Write(t, &x509.Certificate{
		SerialNumber: big.NewInt(number), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, chain, key)
}

// A pair that is replaced is taken without a restart, and connections stay. One
// that is no good is not taken.
func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	chain, key := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	writePair(t, chain, key, 1)
	s := serve(t, filepath.Join(dir, "data"), "--tls-cert", chain, "--tls-key", key)
	u, err := url.Parse(s.client.URL)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(c *tls.Config) (*tls.Conn, error) {
		c.InsecureSkipVerify = true // it is looked at here
		return tls.Dial("tcp", u.Host, c)
	}
	number := func() int64 {
		conn, err := dial(&tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if n := number(); n != 1 {
		t.Fatalf("got certificate %d", n)
	}
	if _, err := dial(&tls.Config{MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("a client of TLS 1.1 is served")
	}
	if conn, err := dial(&tls.Config{MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}); err != nil {
		t.Error(err)
	} else if conn.ConnectionState().NegotiatedProtocol != "h2" {
		t.Errorf("a client of TLS 1.2 gets %q", conn.ConnectionState().NegotiatedProtocol)
	}

	writePair(t, chain, key, 2)
	eventually(t, "the new certificate is there", func() bool { return number() == 2 })

	// A chain whose key is not there yet.
	old, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	writePair(t, chain, filepath.Join(dir, "other"), 3)
	eventually(t, "a bad pair is told of", func() bool {
		if n := number(); n != 2 {
			t.Fatalf("got certificate %d", n)
		}
		return strings.Contains(s.printed(), "the new certificate is no good")
	})
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a key that is missing is told of", func() bool { return strings.Contains(s.printed(), "no such file") })
	if n := number(); n != 2 {
		t.Errorf("got certificate %d", n)
	}
	if err := os.WriteFile(key, old, 0o600); err != nil {
		t.Fatal(err)
	}

	// By a signal it is taken at once.
	writePair(t, chain, key, 4)
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server has read it", func() bool { return strings.Count(s.printed(), "was read again") >= 2 })
	if n := number(); n != 4 {
		t.Errorf("after SIGHUP: got certificate %d", n)
	}
	s.stop(syscall.SIGTERM)
}
