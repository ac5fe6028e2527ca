package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"

	"github.com/halley-comet/halley/engine"
)

// A rule tells of a setting that is allowed and has its price.
type rule struct {
	level   level
	setting string // the flag's name
	// text says what is the matter, and is empty where nothing is.
	text func(*settings) string
	// advice says what to do.
	advice string
}

// when is the text of a rule that has one alone.
func when(holds func(*settings) bool, text string) func(*settings) string {
	return func(s *settings) string {
		if holds(s) {
			return text
		}
		return ""
	}
}

// over is the text of a rule about a number that is large.
func over[T int | units.Base2Bytes | time.Duration](what string, value func(*settings) T, most T, why string) func(*settings) string {
	return func(s *settings) string {
		if v := value(s); v > most {
			return fmt.Sprintf("%s is %v, %s", what, v, why)
		}
		return ""
	}
}

// rules are what check looks for, beside what serve refuses. A new setting that
// can be dangerous gets an entry here.
var rules = []rule{
	{danger, "listen", func(s *settings) string {
		if !s.public() || s.authenticated() {
			return ""
		}
		text := "there is no authentication, and " + s.Listen + " is not only for this machine: "
		if s.Open {
			return text + "who reaches it reads and publishes everything"
		}
		return text + "serve will not start"
	}, "Set an auth- setting or anonymous rights; or listen on 127.0.0.1, and let nobody in but through a proxy that asks who it is"},
	{danger, "hosts", when(func(s *settings) bool { return s.openBehindProxy() && s.namedForOthers() },
		"hosts has names that others reach the server by, but who may do what is not decided: whoever the proxy in front lets through reads and publishes everything"),
		decide},
	{danger, "trusted-proxies", when(func(s *settings) bool { return s.openBehindProxy() && !s.namedForOthers() },
		"there are trusted-proxies, but who may do what is not decided: whoever the proxy lets through reads and publishes everything"),
		decide},
	{danger, "trusted-proxies", func(s *settings) string {
		for _, p := range s.TrustedProxies {
			if wide(p) {
				return "trusted-proxies has " + p + ", where strangers are too: each can say that it comes from another address, and has no limit then"
			}
		}
		return ""
	}, "List the addresses of your own proxies, or the range of your network that they are in"},
	{danger, "admin-listen", func(s *settings) string {
		if s.AdminListen == "" || !reachable(s.AdminListen) {
			return ""
		}
		return "admin-listen is " + s.AdminListen + ", which is not only for this machine: who reaches it reads all that the process has in memory, messages and tokens too"
	}, "Choose 127.0.0.1:9090, or an address of a network that is yours alone"},
	{danger, "anonymous-publish", when(func(s *settings) bool { return s.public() && slices.Contains(s.AnonymousPublish, "**") },
		`anonymous-publish has "**": strangers may write to every channel`),
		"Name the channels that strangers may write to"},
	{warning, "anonymous-subscribe", when(func(s *settings) bool { return s.public() && slices.Contains(s.AnonymousSubscribe, "**") },
		`anonymous-subscribe has "**": strangers may read every channel`),
		"Name the channels that are public"},
	{warning, "url-tokens", over("url-tokens", func(s *settings) time.Duration { return s.URLTokens }, 5*time.Minute, "and URLs are kept in logs and histories, from where a token can be used for so long"),
		"Choose 1m, and have clients use tickets"},
	{warning, "jsonp-cookies", when(func(s *settings) bool { return s.JSONPCookies },
		"jsonp is served to cookies: a page of a stranger's may load a script in the place of your user"),
		"Leave it off: the client uses tickets"},
	{warning, "auth-audience", when(func(s *settings) bool { return s.AuthJWKS != "" && len(s.AuthAudience) == 0 },
		"there is no auth-audience: tokens that the same keys have signed for other services are good here, too"),
		"Set it to what your tokens have as aud"},
	{danger, "auth-jwks", when(func(s *settings) bool { return strings.HasPrefix(s.AuthJWKS, "http://") },
		"auth-jwks is without TLS: whoever is on the way to it can sign tokens"),
		"Take the keys by https"},
	{danger, "auth-secret-file", func(s *settings) string {
		info, err := os.Stat(s.AuthSecretFile)
		if s.AuthSecretFile == "" || err != nil || info.Mode().Perm()&0o077 == 0 {
			return ""
		}
		return "others than its owner may read " + s.AuthSecretFile + ", and make tokens with it"
	}, "Set its mode to 0600"},
	{danger, "origins", when(func(s *settings) bool { return slices.Contains(s.Origins, "*") },
		`origins has "*": any page that a user of yours looks at may read and publish in that user's place`),
		"List the origins of your own pages, such as https://app.example.com"},
	{warning, "origins", func(s *settings) string {
		for _, o := range s.Origins {
			if rest, ok := strings.CutPrefix(strings.ToLower(o), "http://"); ok && !strings.HasPrefix(rest, "localhost") && !strings.HasPrefix(rest, "127.") {
				return "origins has " + o + ", without TLS: whoever is on the way to it can put a page of theirs in its place"
			}
		}
		return ""
	}, "Serve your pages by https, and list that origin"},
	{warning, "hosts", when(func(s *settings) bool { return s.public() && len(s.Hosts) == 0 },
		"there are no hosts: a page of a stranger may reach the server under a name of its own, and is of the same origin then"),
		"List the names that browsers reach the server by"},
	{warning, "tls-cert", when(func(s *settings) bool { return s.public() && s.TLSCert == "" },
		"there is no TLS on an address that others reach: whoever is on the way reads and changes messages, and takes tokens"),
		"Set tls-cert and tls-key, or listen on 127.0.0.1 behind a proxy that has TLS"},
	{warning, "demo", when(func(s *settings) bool { return s.public() && s.Demo },
		"the demo pages are on an address that others reach: they let anyone chat, and block transports"),
		"Set demo: false"},

	{warning, "max-message", over("max-message", func(s *settings) units.Base2Bytes { return s.MaxMessage }, 16<<20, "and each such message is held whole, and sent to every subscriber"),
		"Publish where large data is, and not the data"},
	{warning, "max-body", over("max-body", func(s *settings) units.Base2Bytes { return s.MaxBody }, 128<<20, "and each publisher may have so much of the memory"),
		"Choose what a batch of yours takes, 16MiB by default"},
	{note, "max-body", when(func(s *settings) bool { return s.MaxBody > 0 && s.MaxBody < s.MaxMessage },
		"max-body is below max-message: no message gets as large as that"),
		"Raise the one or lower the other"},
	{warning, "max-channels", over("max-channels", func(s *settings) int { return s.MaxChannels }, 100_000, "in a single subscription: a few strangers can have the server look after millions"),
		"Use patterns, and a limit of what your pages need"},
	{note, "max-connections", when(func(s *settings) bool { return s.public() && s.MaxConnections == 0 },
		"max-connections sets no bound: the files that the process may open are the only one"),
		"Set it to what the machine has memory for, below ulimit -n"},
	{warning, "admit-rate", when(func(s *settings) bool { return s.AdmitRate == 0 },
		"admit-rate sets no bound: after a restart or a failure of the network all clients come back at once"),
		"Choose 5000, or what the server has been seen to take"},
	{warning, "write-timeout", over("write-timeout", func(s *settings) time.Duration { return s.WriteTimeout }, 5*time.Minute, "so long a client that takes nothing keeps its connection"),
		"Choose some seconds; the client comes back and loses nothing"},
	{note, "multipart-limit", over("multipart-limit", func(s *settings) time.Duration { return s.MultipartLimit }, time.Hour, "so long an <img> keeps its connection, even after its page was left"),
		"Choose some minutes"},

	{warning, "fsync", when(func(s *settings) bool { return s.Engine == "disk" && s.Fsync == "never" },
		"fsync is never: a power cut loses messages that publishers were told are kept"),
		"Choose group, unless they can be published again"},
	{note, "engine", when(func(s *settings) bool { return s.Engine == "memory" },
		"the log is in memory: a restart forgets it, and every client is told of a gap"),
		"Choose engine: disk to keep it"},
	{danger, "nats-url", func(s *settings) string {
		for _, raw := range s.NATSURL {
			u, err := url.Parse(raw)
			if s.Engine == "nats" && err == nil && u.Scheme != "tls" && u.Scheme != "wss" && s.NATSCA == "" && s.NATSCert == "" && !isLoopback(u.Host) {
				return "nats-url has " + redacted([]string{raw}) + ", without TLS: whoever is on the way reads and changes every message of the log, and takes the credentials"
			}
		}
		return ""
	}, "Use tls://, or set nats-ca; without, only on a network that is yours alone"},
	{warning, "nats-replicas", when(func(s *settings) bool { return s.Engine == "nats" && s.NATSReplicas == 1 },
		"the stream is on one NATS server: while that is away nobody publishes, and with its disk the log is lost but for what servers have of it"),
		"Run three, and set nats-replicas: 3"},
	{warning, "nats-storage", when(func(s *settings) bool { return s.Engine == "nats" && s.NATSStorage == "memory" },
		"the stream is in the memory of the NATS servers: when most of them are down at once, it is lost and begins a new epoch"),
		"Choose nats-storage: file"},
	{note, "engine", when(func(s *settings) bool { return s.Engine == "nats" && s.NATSStorage == "file" },
		"what the stream has acknowledged is on the disks of the NATS servers within their sync_interval, two minutes by default: a power cut of most of them at once may take it"),
		"Set sync_interval: always in their configuration if that must not be, at less than half the speed; docs/cluster.md has the table"},
	{warning, "disk-limit", when(func(s *settings) bool { return s.onDisk() && s.DiskLimit == 0 },
		"disk-limit sets no bound: who may publish can fill the disk, and a full disk stops the log"),
		"Set it to less than half of what is free"},
	{warning, "disk-limit", func(s *settings) string {
		free, ok := freeSpace(s.DataDir)
		if !s.onDisk() || !ok || s.DiskLimit == 0 || exists(s.DataDir) {
			return "" // what is in the log already has its room
		}
		if need := 2*int64(s.DiskLimit) + 400<<20; free < need {
			return fmt.Sprintf("disk-limit is %v, and the files may take %d MB, but %d MB are free", s.DiskLimit, need>>20, free>>20)
		}
		return ""
	}, "Lower disk-limit, or put data-dir elsewhere: a full disk stops the log"},
	{warning, "data-dir", func(s *settings) string {
		dir := absolute(s.DataDir)
		if !s.onDisk() || !under(dir, os.TempDir()) && !under(dir, "/tmp") && !under(dir, "/var/tmp") && !under(dir, "/dev/shm") {
			return ""
		}
		return "data-dir is " + dir + ", where files are removed from time to time"
	}, "Put it where files stay, such as /var/lib/halley"},
	{note, "retain-count", when(func(s *settings) bool {
		return s.RetainCount == 0 && s.RetainBytes == 0 && s.RetainAge == 0
	}, "a channel keeps everything, so one that is busy takes the room of all others"),
		"Set one of retain-count, retain-bytes and retain-age"},

	{warning, "heartbeat", over("heartbeat", func(s *settings) time.Duration { return s.Heartbeat }, 55*time.Second, "and many proxies cut what was silent for 60s"),
		"Choose 25s"},
	{note, "heartbeat", when(func(s *settings) bool { return s.Heartbeat > 0 && s.Heartbeat < 5*time.Second },
		"heartbeat is short: each idle client is written to so often"),
		"Choose 25s, unless clients must know sooner that a stream is dead"},
	{warning, "poll-timeout", over("poll-timeout", func(s *settings) time.Duration { return s.PollTimeout }, 55*time.Second, "and many proxies cut what was silent for 60s"),
		"Choose 25s"},
	{warning, "drain-timeout", over("drain-timeout", func(s *settings) time.Duration { return s.DrainTimeout }, 80*time.Second, "and systemd kills a service after 90s unless it is told otherwise"),
		"Lower it, or raise TimeoutStopSec"},
	{warning, "drain-timeout", when(func(s *settings) bool { return s.DrainTimeout == 0 },
		"drain-timeout gives clients no time to take their leave: they come back all at once"),
		"Choose 10s"},
}

// decide is the advice where nobody has said who may do what.
const decide = "Set an auth- setting or anonymous rights; or open: true, if everybody may do everything"

// openBehindProxy tells of a server that starts only because it listens on
// loopback, though others get there: by a proxy, as some setting shows.
func (s *settings) openBehindProxy() bool {
	return !s.public() && !s.decided() && (s.namedForOthers() || len(s.TrustedProxies) > 0)
}

// namedForOthers tells whether hosts has a name that is not this machine's
// alone.
func (s *settings) namedForOthers() bool {
	return slices.ContainsFunc(s.Hosts, func(host string) bool {
		name := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			name = h
		}
		name = strings.ToLower(strings.Trim(name, "[]"))
		ip, err := netip.ParseAddr(name)
		return !(err == nil && ip.Unmap().IsLoopback() || name == "localhost" || strings.HasSuffix(name, ".localhost"))
	})
}

// own are the ranges of addresses that are nobody's on the internet.
var own = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"),
}

// wide tells of a range of addresses that is too large to be of one's own
// proxies. Those of the large content networks are narrower.
func wide(proxy string) bool {
	p, err := netip.ParsePrefix(proxy)
	if err != nil {
		return false // one address
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	for _, o := range own {
		if o.Contains(p.Addr()) && p.Bits() >= o.Bits() {
			return false
		}
	}
	if p.Addr().Is4() {
		return p.Bits() < 12
	}
	return p.Bits() < 24
}

// checkPolicies looks at the policies of channels, which are in no flag.
func (s *settings) checkPolicies() {
	for _, p := range s.policies {
		if !p.ActiveContent {
			continue
		}
		l := note
		if _, kind := engine.SplitPattern(p.Pattern); kind == engine.Below {
			l = warning
		}
		s.find(l, s.at("channels", p.at), "active-content lets HTML, SVG and XML of "+p.Pattern+" out as they were published, sandboxed, but in the server's origin",
			"Keep it to few channels, that only your own programs publish to")
	}
}

// authenticated tells whether the server asks who comes.
func (s *settings) authenticated() bool { return s.decided() && !s.Open }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// under tells whether a path is in a directory.
func under(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
