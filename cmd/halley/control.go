package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/nats"
)

// controlName is that of the socket in the data directory by which other
// commands reach the server that has the log open.
const controlName = "control.sock"

// A control serves the socket. Whoever may open it may do what is here.
type control struct {
	log     func() *disk.Log
	revoked *revokedFile
	server  *http.Server
	path    string
	free    func()
	served  chan struct{} // closed when server has ended
}

// diskLog returns what returns the log that is in the data directory, nil if
// there is none. One that is a replica may come to be another.
func diskLog(log engine.Engine) func() *disk.Log {
	switch log := log.(type) {
	case *disk.Log:
		return func() *disk.Log { return log }
	case *nats.Log:
		return log.Replica
	}
	return nil
}

// startControl listens on the socket. The log is open, and so there is no other
// server whose socket it could be.
func startControl(dir string, log func() *disk.Log, revoked *revokedFile) (*control, error) {
	c := &control{log: log, revoked: revoked, path: filepath.Join(dir, controlName), served: make(chan struct{})}
	if info, err := os.Lstat(c.path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(c.path); err != nil {
			return nil, err
		}
	}
	path, free, err := socketPath(dir, controlName)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		free()
		return nil, err
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	c.free = free
	if err := os.Chmod(c.path, 0o600); err != nil {
		listener.Close()
		c.remove()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", c.serveStats)
	mux.HandleFunc("POST /backup", c.serveBackup)
	c.server = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
	go func() {
		defer close(c.served)
		_ = c.server.Serve(listener) // until it is closed
	}()
	return c, nil
}

// close ends what is in progress.
func (c *control) close() {
	c.server.Close()
	<-c.served
	c.remove()
}

func (c *control) remove() {
	_ = os.Remove(c.path)
	c.free()
}

func (c *control) serveStats(w http.ResponseWriter, r *http.Request) {
	s, err := statsOf(r.Context(), c.log())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s) // or the client is gone
}

func (c *control) serveBackup(w http.ResponseWriter, r *http.Request) {
	to := r.URL.Query().Get("to")
	if !filepath.IsAbs(to) {
		http.Error(w, fmt.Sprintf("to is %q, not an absolute path", to), http.StatusBadRequest)
		return
	}
	began := time.Now()
	err := c.log().Backup(r.Context(), to)
	if err == nil {
		err = c.revoked.copyTo(to)
	}
	if err != nil {
		slog.Warn("halley: a backup failed", "error", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	slog.Info("halley: the log was backed up", "to", to, "seconds", time.Since(began).Seconds())
}

// errNoServer means that no server has the log open, or that it has no socket.
var errNoServer = errors.New("no server")

// askServer asks the server that has the log open, and decodes its answer if
// one is wanted.
func (d dataDir) askServer(ctx context.Context, method, path string, answer any) error {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			path, free, err := socketPath(d.DataDir, controlName)
			if err != nil {
				return nil, err
			}
			defer free()
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, method, "http://halley"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(r)
	// A socket on which nobody listens is left of a server that was killed.
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return errNoServer
	}
	if err != nil {
		return fmt.Errorf("the server of %s: %w", absolute(d.DataDir), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("the server of %s: %w", absolute(d.DataDir), err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server of %s: %s", absolute(d.DataDir), strings.TrimSpace(string(body)))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}
