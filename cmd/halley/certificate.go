package main

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A certificate is a pair of files that may be replaced while the server runs.
// A new pair is taken with the first handshake that comes a second later, or at
// once by reload. One that is no good leaves the old one in use.
type certificate struct {
	chain, key string
	pair       atomic.Pointer[tls.Certificate]

	mu     sync.Mutex
	seen   [2]fileState // guarded by mu: of the files when they were read last
	looked time.Time    // guarded by mu
}

// A fileState tells a file from what it was before.
type fileState struct {
	modified time.Time
	size     int64
}

// lookAgain is how long the files are not looked at again.
const lookAgain = time.Second

func loadCertificate(chain, key string) (*certificate, error) {
	c := &certificate{chain: chain, key: key, looked: time.Now()}
	c.seen = c.state()
	return c, c.read()
}

// state returns what is known of the files without reading them. One that is
// not there is as if it were of no size.
func (c *certificate) state() (s [2]fileState) {
	for i, name := range []string{c.chain, c.key} {
		if info, err := os.Stat(name); err == nil {
			s[i] = fileState{info.ModTime(), info.Size()}
		}
	}
	return s
}

func (c *certificate) read() error {
	pair, err := tls.LoadX509KeyPair(c.chain, c.key)
	if err == nil {
		c.pair.Store(&pair)
	}
	return err
}

// get returns the pair for a handshake. Who looks at the files keeps nobody
// waiting.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.mu.TryLock() {
		if now := time.Now(); now.Sub(c.looked) >= lookAgain {
			c.looked = now
			if s := c.state(); s != c.seen {
				c.reread(s)
			}
		}
		c.mu.Unlock()
	}
	return c.pair.Load(), nil
}

// reload reads the files, whether or not they seem to be others.
func (c *certificate) reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reread(c.state())
}

// reread reads the files, which are as s says. It is called with mu held.
func (c *certificate) reread(s [2]fileState) {
	c.seen = s
	if err := c.read(); err != nil {
		slog.Error("halley: the new certificate is no good: the old one stays in use", "error", err)
		return
	}
	slog.Info("halley: the certificate was read again", "file", c.chain, "expires", c.pair.Load().Leaf.NotAfter)
}
