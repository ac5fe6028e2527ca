package nats

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/halley-comet/halley/internal/natstest"
)

// TestSecured has a server that speaks TLS, and asks for a password and for the
// client's certificate.
func TestSecured(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir)
	server := natstest.Start(t, dir, fmt.Sprintf(
		"tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }\nauthorization { user: halley, password: s3cret }", cert, key, cert))
	address := strings.TrimPrefix(server.URL, "nats://")
	open := func(patience time.Duration, user string, connect ...natsgo.Option) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		l, err := Open(ctx, t.TempDir(), Options{URL: "tls://" + user + "@" + address, Replicas: 1, StreamBytes: 64 << 20, Connect: connect})
		if err != nil {
			return err
		}
		defer l.Close()
		_, err = l.Append(t.Context(), one("a", "1"))
		return err
	}
	if err := open(testPatience, "halley:s3cret", natsgo.RootCAs(cert), natsgo.ClientCert(cert, key)); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"Authorization Violation": open(2*time.Second, "halley:wrong", natsgo.RootCAs(cert), natsgo.ClientCert(cert, key)),
		"unknown authority":       open(2*time.Second, "halley:s3cret", natsgo.ClientCert(cert, key)),
		"tls":                     open(2*time.Second, "halley:s3cret", natsgo.RootCAs(cert)),
	} {
		if err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error does not tell of %q: %v", what, err)
		}
	}
}

// certificate makes one that is its own authority, for both sides.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", public), write("key.pem", "PRIVATE KEY", secret)
}
