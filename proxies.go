package halley

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// A proxyList has the addresses of proxies that say truly whom they pass on.
type proxyList []netip.Prefix

// newProxyList reads addresses and ranges of them ("10.0.0.0/8").
func newProxyList(list []string) (proxyList, error) {
	var l proxyList
	for i, s := range list {
		p, err := netip.ParsePrefix(s)
		if addr, single := netip.ParseAddr(s); single == nil {
			addr = addr.WithZone("")
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("halley: Options.TrustedProxies[%d] is %q, not an address or a range such as 10.0.0.0/8", i, s)
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		l = append(l, p.Masked())
	}
	return l, nil
}

func (l proxyList) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(l, func(p netip.Prefix) bool { return p.Contains(a) })
}

// clientAddress returns the address of a request's client: of the connection's
// other side, or, if that is a trusted proxy, of whom it says it passed on. It
// is not valid if the connection has none, as of a Unix socket.
func (h *Hub) clientAddress(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return h.proxies.client(peer.Addr().Unmap().WithZone(""), r.Header)
}

// forwards tells whether a request says for whom a proxy has passed it on.
func forwards(r *http.Request) bool {
	return r.Header["X-Forwarded-For"] != nil || r.Header["Forwarded"] != nil
}

// Proxied tells whether a request says that a proxy has passed it on: then its
// connection may be one for many clients.
func Proxied(r *http.Request) bool { return forwards(r) || r.Header["Via"] != nil }

// secure tells whether a request's client came by TLS, here or to a trusted
// proxy.
func (h *Hub) secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && h.proxies.trusts(peer.Addr().Unmap().WithZone("")) && r.Header.Get("X-Forwarded-Proto") == "https"
}

// client returns whom a connection's other side has passed on, by
// X-Forwarded-For or Forwarded (RFC 7239): the last address of the list that is
// not a trusted proxy's. What stands before it is what a stranger has sent.
//
// A proxy that sets one of the two may pass on a stranger's other one. So if
// both are there they have to say the same; if they do not, or cannot be read,
// the address of the proxy is all that is known.
func (l proxyList) client(peer netip.Addr, header http.Header) netip.Addr {
	if !l.trusts(peer) {
		return peer
	}
	client := netip.Addr{}
	for _, list := range [][]string{forwardedFor(header), forwarded(header)} {
		if list == nil {
			continue
		}
		last := l.last(peer, list)
		if client.IsValid() && last != client {
			return peer
		}
		client = last
	}
	if !client.IsValid() {
		return peer
	}
	return client
}

// last walks a list from its end, for as long as those who have added to it are
// trusted.
func (l proxyList) last(peer netip.Addr, list []string) netip.Addr {
	at := peer
	for _, s := range slices.Backward(list) {
		a, ok := nodeAddress(s)
		if !ok {
			break
		}
		if at = a; !l.trusts(at) {
			break
		}
	}
	return at
}

// forwardedFor returns the elements of X-Forwarded-For, nil if there is none.
func forwardedFor(header http.Header) (list []string) {
	for _, line := range header["X-Forwarded-For"] {
		list = append(list, strings.Split(line, ",")...)
	}
	return list
}

// forwarded returns the "for" parameters of Forwarded, "" where an element has
// none, and nil if there is no such header. A list that cannot be parsed is one
// of nobody.
func forwarded(header http.Header) (list []string) {
	lines := header["Forwarded"]
	if len(lines) == 0 {
		return nil
	}
	node := ""
	for rest := strings.Join(lines, ","); ; {
		rest = strings.TrimLeft(rest, " \t")
		var name, value string
		end := strings.IndexAny(rest, "=,;")
		if end >= 0 && rest[end] == '=' {
			name, rest = rest[:end], rest[end+1:]
			var ok bool
			if value, rest, ok = forwardedValue(rest); !ok {
				return []string{""}
			}
			rest = strings.TrimLeft(rest, " \t")
		} else if end > 0 || end < 0 && rest != "" {
			return []string{""} // a name without a value
		}
		if strings.EqualFold(name, "for") {
			if node != "" {
				return []string{""} // given twice
			}
			node = value
		}
		switch {
		case rest == "":
			return append(list, node)
		case rest[0] == ',':
			list, node = append(list, node), ""
		case rest[0] != ';':
			return []string{""}
		}
		rest = rest[1:]
	}
}

// forwardedValue cuts a token or a quoted string off (RFC 7239, 4).
func forwardedValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, " \t,;\"")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], end > 0
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// nodeAddress reads an address that may have a port (RFC 7239, 6).
func nodeAddress(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	a, err := netip.ParseAddr(s)
	if err != nil {
		var ap netip.AddrPort
		if ap, err = netip.ParseAddrPort(s); err == nil {
			a = ap.Addr()
		} else if host, found := strings.CutPrefix(s, "["); found {
			host, found = strings.CutSuffix(host, "]")
			if a, err = netip.ParseAddr(host); !found {
				return netip.Addr{}, false
			}
		}
	}
	return a.Unmap().WithZone(""), err == nil
}
