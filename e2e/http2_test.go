package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Every way works over HTTP/2 and TLS too, and there a page may hold more
// streams than HTTP/1.1 has connections for.
func TestHTTP2(t *testing.T) {
	each(t, func(t *testing.T, p *page) {
		certificate, key := selfSigned(t)
		s := serve(t, "--tls-cert", certificate, "--tls-key", key)
		s.scheme = "https"
		p.visit(s.mount())
		var protocol string
		p.eval(`return performance.getEntriesByType("navigation")[0].nextHopProtocol;`, &protocol)
		if protocol != "h2" {
			t.Errorf("the page came by %q, want h2", protocol)
		}
		eachWay(t, p, func(t *testing.T, p *page, w way) {
			stream := p.open(w, s.mount(), s.cursor())
			for i := range 3 {
				id := s.publish(text("</script>"))
				if got := stream.message(i); got.ID != id {
					t.Errorf("id %q, want %q", got.ID, id)
				}
			}
			if w.stream {
				checkOpen(t, stream)
			}
			stream.close()
		})
		t.Run("many streams", func(t *testing.T) {
			p := p.in(t)
			var streams []stream
			for range 10 {
				streams = append(streams, p.open(find(t, "sse"), s.mount(), s.cursor()))
			}
			id := s.publish(text("to all"))
			for _, st := range streams {
				if got := st.message(0); got.ID != id {
					t.Errorf("id %q, want %q", got.ID, id)
				}
			}
		})
	})
}

// selfSigned makes a certificate for the loopback address.
func selfSigned(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "halley e2e"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:     []string{"localhost"},
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", signed), write("key.pem", "PRIVATE KEY", secret)
}
