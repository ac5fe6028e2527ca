package halley

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func testProxies(t testing.TB) proxyList {
	t.Helper()
	l, err := newProxyList([]string{"10.0.0.0/8", "192.0.2.7", "2001:db8:1::/48", "::ffff:172.16.0.0/108"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A client is whom the trusted proxies name, and nothing that a stranger sends
// changes who it is.
func TestClientAddress(t *testing.T) {
	h := &Hub{proxies: testProxies(t)}
	for _, tt := range []struct {
		name, peer     string
		xff, forwarded []string
		want           string
	}{
		{"nothing in between", "203.0.113.9:5000", nil, nil, "203.0.113.9"},
		{"a stranger who says he is a proxy", "203.0.113.9:5000", []string{"198.51.100.1"}, []string{"for=198.51.100.1"}, "203.0.113.9"},
		{"a neighbour of a proxy", "192.0.2.8:1", []string{"198.51.100.1"}, nil, "192.0.2.8"},
		{"a proxy", "10.1.2.3:5000", []string{"198.51.100.1"}, nil, "198.51.100.1"},
		{"a proxy that is one address", "192.0.2.7:5000", []string{"198.51.100.1"}, nil, "198.51.100.1"},
		{"a proxy by IPv4 in IPv6", "[::ffff:10.1.2.3]:5000", []string{"::ffff:198.51.100.1"}, nil, "198.51.100.1"},
		{"a proxy of a range that was given so", "172.17.0.1:1", []string{"198.51.100.1"}, nil, "198.51.100.1"},
		{"a proxy by IPv6", "[2001:db8:1::5]:5000", []string{"2001:db8:2::1"}, nil, "2001:db8:2::1"},
		{"a proxy with a zone", "[2001:db8:1::5%eth0]:5000", []string{"fe80::1%eth0"}, nil, "fe80::1"},
		{"a proxy that says nothing", "10.1.2.3:5000", nil, nil, "10.1.2.3"},
		{"a proxy that says nothing in a header", "10.1.2.3:5000", []string{""}, []string{""}, "10.1.2.3"},
		{"what the client has sent before", "10.1.2.3:5000", []string{"6.6.6.6, 198.51.100.1"}, nil, "198.51.100.1"},
		{"what the client has sent in a line of its own", "10.1.2.3:5000", []string{"6.6.6.6", "198.51.100.1"}, nil, "198.51.100.1"},
		{"two proxies", "10.1.2.3:5000", []string{"6.6.6.6,198.51.100.1,\t10.9.9.9"}, nil, "198.51.100.1"},
		{"a client that names proxies", "10.1.2.3:5000", []string{"10.4.4.4, 198.51.100.1, 10.9.9.9"}, nil, "198.51.100.1"},
		{"nobody but proxies", "10.1.2.3:5000", []string{"10.4.4.4, 10.9.9.9"}, nil, "10.4.4.4"},
		{"ports", "10.1.2.3:5000", []string{"198.51.100.1:443"}, nil, "198.51.100.1"},
		{"brackets", "10.1.2.3:5000", []string{"[2001:db8:2::1]"}, nil, "2001:db8:2::1"},
		{"brackets and a port", "10.1.2.3:5000", []string{"[2001:db8:2::1]:443"}, nil, "2001:db8:2::1"},
		{"half a bracket", "10.1.2.3:5000", []string{"[2001:db8:2::1"}, nil, "10.1.2.3"},
		{"what is no address", "10.1.2.3:5000", []string{"198.51.100.1, unknown"}, nil, "10.1.2.3"},
		{"what is no address, behind two proxies", "10.1.2.3:5000", []string{"6.6.6.6, x, 10.9.9.9"}, nil, "10.9.9.9"},
		{"an empty element", "10.1.2.3:5000", []string{"6.6.6.6,"}, nil, "10.1.2.3"},
		{"Forwarded", "10.1.2.3:5000", nil, []string{`for=6.6.6.6, FOR="198.51.100.1:443";proto=https ; by=10.0.0.1`}, "198.51.100.1"},
		{"Forwarded by two proxies", "10.1.2.3:5000", nil, []string{`for=198.51.100.1`, `for=10.9.9.9`}, "198.51.100.1"},
		{"Forwarded with IPv6", "10.1.2.3:5000", nil, []string{`proto=http;for="[2001:db8:2::1]:4711"`}, "2001:db8:2::1"},
		{"Forwarded with an escape", "10.1.2.3:5000", nil, []string{`for="198.51.100\.1"`}, "198.51.100.1"},
		{"Forwarded without for", "10.1.2.3:5000", nil, []string{`for=6.6.6.6, proto=https`}, "10.1.2.3"},
		{"Forwarded of nobody", "10.1.2.3:5000", nil, []string{`for=6.6.6.6, for=_hidden`}, "10.1.2.3"},
		{"an open quote before a proxy's", "10.1.2.3:5000", nil, []string{`for="6.6.6.6`, `for=198.51.100.1`}, "10.1.2.3"},
		{"a quote that hides a proxy's", "10.1.2.3:5000", nil, []string{`for=6.6.6.6;x="`, `for=198.51.100.1`}, "10.1.2.3"},
		{"for twice", "10.1.2.3:5000", nil, []string{`for=198.51.100.1;for=6.6.6.6`}, "10.1.2.3"},
		{"no list", "10.1.2.3:5000", nil, []string{`198.51.100.1`}, "10.1.2.3"},
		{"after a quoted string", "10.1.2.3:5000", nil, []string{`for="198.51.100.1"x`}, "10.1.2.3"},
		{"both", "10.1.2.3:5000", []string{"6.6.6.6, 198.51.100.1"}, []string{"for=7.7.7.7, for=198.51.100.1"}, "198.51.100.1"},
		{"a stranger's Forwarded behind a proxy's X-Forwarded-For", "10.1.2.3:5000", []string{"198.51.100.1"}, []string{"for=6.6.6.6"}, "10.1.2.3"},
		{"a stranger's X-Forwarded-For behind a proxy's Forwarded", "10.1.2.3:5000", []string{"6.6.6.6"}, []string{"for=198.51.100.1"}, "10.1.2.3"},
		{"a stranger's Forwarded that is broken", "10.1.2.3:5000", []string{"198.51.100.1"}, []string{`for="`}, "10.1.2.3"},
		{"a Unix socket", "@", []string{"198.51.100.1"}, nil, "invalid IP"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.peer
		for _, v := range tt.xff {
			r.Header.Add("X-Forwarded-For", v)
		}
		for _, v := range tt.forwarded {
			r.Header.Add("Forwarded", v)
		}
		if got := h.clientAddress(r); got.String() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestTrustedProxies(t *testing.T) {
	for _, s := range []string{"", "10.0.0.0/33", "10.0.0", "proxy.example.com", "10.0.0.1:80", "*"} {
		if _, err := newProxyList([]string{"10.0.0.1", s}); err == nil || !strings.Contains(err.Error(), "TrustedProxies[1]") {
			t.Errorf("%q: got %v, want an error that names it", s, err)
		}
	}
}

// Whatever a client sends before what a proxy adds, it does not choose who it
// is: it is itself, or the proxy.
func FuzzClientAddress(f *testing.F) {
	for _, s := range []string{"6.6.6.6", `for=6.6.6.6`, `for="`, `"`, ",", ";=", `\"`, "10.0.0.1, 6.6.6.6", `for="[::1]`} {
		f.Add(s, s)
	}
	l := testProxies(f)
	peer, client := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("198.51.100.1")
	f.Fuzz(func(t *testing.T, xff, forwarded string) {
		for _, joined := range []bool{false, true} {
			add := func(before, what string) []string {
				if joined {
					return []string{before + ", " + what}
				}
				return []string{before, what}
			}
			for _, header := range []http.Header{
				{"X-Forwarded-For": add(xff, "198.51.100.1")},
				{"X-Forwarded-For": add(xff, "198.51.100.1"), "Forwarded": {forwarded}},
				{"Forwarded": add(forwarded, "for=198.51.100.1")},
				{"Forwarded": add(forwarded, "for=198.51.100.1"), "X-Forwarded-For": {xff}},
			} {
				if got := l.client(peer, header); got != client && got != peer {
					t.Errorf("got %v by %q", got, header)
				}
			}
		}
	})
}
