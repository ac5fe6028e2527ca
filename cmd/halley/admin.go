package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/disk"
	"github.com/halley-comet/halley/engine/memory"
	"github.com/halley-comet/halley/engine/nats"
	"github.com/halley-comet/halley/metrics"
)

// An admin serves operators: metrics, profiles, and how the server is. It is
// there before the log is open, which may take a while.
type admin struct {
	server   *http.Server
	addr     net.Addr
	served   chan struct{} // closed when server has ended
	registry *prometheus.Registry
	hub      atomic.Pointer[halley.Hub] // nil while the log is being opened
	loopback bool                       // the address is
	began    time.Time
}

// startAdmin listens on an address for operators, and warns if others may reach
// it.
func startAdmin(addr string) (*admin, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--admin-listen: %w", err)
	}
	a := &admin{addr: listener.Addr(), served: make(chan struct{}), registry: prometheus.NewRegistry(), began: time.Now()}
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok {
		a.loopback = tcp.IP.IsLoopback()
	}
	if !a.loopback {
		slog.Warn("halley: THE ADMIN ADDRESS IS NOT ON LOOPBACK: who reaches it may read the memory of this process, messages and keys included", "address", listener.Addr())
	}
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	errorLog := slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{ErrorLog: errorLog, MaxRequestsInFlight: 10}))
	mux.HandleFunc("GET /healthz", a.serveHealth)
	mux.HandleFunc("GET /readyz", a.serveReady)
	// Importing pprof puts it on http.DefaultServeMux as well, which nobody
	// serves.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	a.server = &http.Server{Handler: a.guard(mux), ReadHeaderTimeout: 10 * time.Second, ErrorLog: errorLog}
	go func() {
		defer close(a.served)
		_ = a.server.Serve(listener) // until it is closed
	}()
	slog.Info("halley: metrics, health and profiles", "url", "http://"+listener.Addr().String())
	return a, nil
}

// show has the metrics of a hub and its log from now on.
func (a *admin) show(hub *halley.Hub, log engine.Engine) {
	a.registry.MustRegister(metrics.New(hub))
	if stats := logStats(log); stats != nil {
		a.registry.MustRegister(metrics.NewLog(stats))
	}
	a.hub.Store(hub)
}

func (a *admin) close() {
	_ = a.server.Close() // what is in progress ends with it
	<-a.served
}

// logStats returns what tells of a log, nil if nothing does.
func logStats(log engine.Engine) func() metrics.LogStats {
	switch log := log.(type) {
	case *disk.Log:
		return func() metrics.LogStats {
			s := log.Stats()
			return metrics.LogStats{Messages: s.Messages, Bytes: s.Bytes, Stopped: log.Err(), Disk: &metrics.DiskStats{Bytes: s.Disk, CompactionDebt: s.CompactionDebt}}
		}
	case *nats.Log:
		return func() metrics.LogStats {
			s := log.Stats()
			r := &s.Replica
			return metrics.LogStats{
				Messages: r.Messages, Bytes: r.Bytes, Stopped: log.Replica().Err(),
				Disk: &metrics.DiskStats{Bytes: r.Disk, CompactionDebt: r.CompactionDebt},
				Stream: &metrics.StreamStats{
					Away: log.Err(), Behind: max(s.Last, r.Newest) - r.Newest, Followed: s.Followed,
					Received: s.Received, Holes: s.Holes, Skipped: s.Skipped, Retries: s.Retries,
				},
			}
		}
	case *memory.Log:
		return func() metrics.LogStats {
			s := log.Stats()
			return metrics.LogStats{Messages: uint64(s.Messages), Bytes: s.Bytes}
		}
	}
	return nil
}

// guard refuses what a browser sends for a page of a stranger, which may be
// open on the operator's machine. Such a page could make the server work, or
// read everything under a name of its own for a loopback address.
func (a *admin) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case site != "" && site != "none" && site != "same-origin":
			http.Error(w, "not for pages of other sites", http.StatusForbidden)
		case a.loopback && !isLoopback(r.Host):
			http.Error(w, "the address is a loopback one, the host is not", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isLoopback tells whether a Host names this machine.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ip.Unmap().IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func (a *admin) serveHealth(w http.ResponseWriter, _ *http.Request) {
	health := struct {
		Version     string  `json:"version"`
		Uptime      float64 `json:"uptime"` // seconds
		Connections int     `json:"connections"`
	}{Version: version(), Uptime: time.Since(a.began).Seconds()}
	if hub := a.hub.Load(); hub != nil {
		health.Connections = hub.Connections()
	}
	writeJSON(w, http.StatusOK, health)
}

var errOpening = errors.New("halley: the log is being opened")

func (a *admin) serveReady(w http.ResponseWriter, _ *http.Request) {
	err := errOpening
	if hub := a.hub.Load(); hub != nil {
		err = hub.Ready()
	}
	if err != nil {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "reason": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"ready": true})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // or the client is gone
}

// handleHealth serves on the server's own address what a load balancer asks
// for, and no reasons.
func handleHealth(mux *http.ServeMux, hub *halley.Hub) {
	answer := func(path string, ready func() error) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if ready() != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				_, _ = w.Write([]byte("not ready\n")) // or the client is gone
				return
			}
			_, _ = w.Write([]byte("ok\n"))
		})
	}
	answer("/healthz", func() error { return nil })
	answer("/readyz", hub.Ready)
}

// tellRefused sums up what clients were refused, where there was anything,
// until ctx ends: a line for each request would be a stranger's to write.
func tellRefused(ctx context.Context, logger *slog.Logger, refused func() map[string]uint64) {
	last := refused()
	for ticker := time.NewTicker(refusedEvery); ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			ticker.Stop()
			return
		}
		now := refused()
		var counts []any
		for _, code := range slices.Sorted(maps.Keys(now)) {
			if n := now[code] - last[code]; n > 0 {
				counts = append(counts, code, n)
			}
		}
		if last = now; len(counts) > 0 {
			logger.Info("halley: clients were refused in the last minute, by code", counts...)
		}
	}
}

const refusedEvery = time.Minute
