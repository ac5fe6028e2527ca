// Package demo is what halley serve shows to browsers. At its root is a chat,
// by the browser client, with what the client does beside it and a gate before
// the server that blocks transports. At /transports is every transport side by
// side, by hand and live, each with a button that cuts it.
//
// The pages are plain modules without a build step and fetch nothing from
// elsewhere. They expect the wire contract at /comet on their own server.
package demo

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"
	"time"
)

//go:embed *.html *.css *.js *.svg
var embedded embed.FS

// contentTypes are stated here, since the system's own table may lack one, and
// nosniff then leaves the page without its modules.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

type asset struct {
	contentType string
	etag        string
	body        string
}

// pages are the files that are not below /demo/.
var pages = map[string]string{
	"index.html":      "/",
	"transports.html": "/transports",
}

// Handler serves the pages and their files, to GET and HEAD, and the gates
// before hub, which is to be mounted at /comet; every other path is 404. It is
// to be mounted at the server's root. Hosts are the names that the hub tells
// clients of, with or without a port.
func Handler(hub http.Handler, hosts []string) http.Handler {
	mux := http.NewServeMux()
	newGates(hub).route(mux)
	mux.Handle("/", files(aliases(hosts)))
	return mux
}

func files(aliases []string) http.Handler {
	assets := make(map[string]asset)
	entries, err := fs.ReadDir(embedded, ".")
	if err != nil {
		panic(err) // the files are part of the binary
	}
	for _, e := range entries {
		body, err := fs.ReadFile(embedded, e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(body)
		a := asset{
			contentType: contentTypes[path.Ext(e.Name())],
			etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
			body:        string(body),
		}
		target := "/demo/" + e.Name()
		if page, ok := pages[e.Name()]; ok {
			target = page
		}
		assets[target] = a
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		a, ok := assets[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		h.Set("Content-Type", a.contentType)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", a.etag)
		h.Set("Content-Security-Policy", policy(r.Host, aliases))
		// Scripts, frames and images of the page carry no Origin: the server
		// tells by the referrer that they are not a stranger's.
		h.Set("Referrer-Policy", "origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(a.body))
	})
}

// hostSource matches a Host header that may stand in a policy as it is. IPv6
// literals may not: the syntax of source lists has no place for them.
var hostSource = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]{1,5})?$`)

// aliases returns hosts as they may stand in a policy.
func aliases(hosts []string) (sources []string) {
	for _, host := range hosts {
		if !hostSource.MatchString(host) {
			continue
		}
		if !strings.Contains(host, ":") {
			host += ":*" // the client keeps the page's
		}
		sources = append(sources, host)
	}
	return sources
}

// policy is the pages' Content-Security-Policy. They use the server under its
// own name and, to get round the browsers' limit of six connections a host,
// under its other names and those of *.localhost: for fetch and WebSocket, but
// also for the frames, scripts and images that the older techniques are made
// of. In a policy http stands for https too, and ws for wss.
func policy(host string, aliases []string) string {
	others, sockets := "", ""
	for _, alias := range append([]string{"*.localhost:*"}, aliases...) {
		others += " http://" + alias
		sockets += " ws://" + alias
	}
	connect := "connect-src 'self'" + others + sockets
	if hostSource.MatchString(host) {
		// Not every engine lets 'self' stand for the WebSocket schemes.
		connect += " ws://" + host + " wss://" + host
	}
	return strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'" + others,
		"style-src 'self'",
		"img-src 'self' blob:" + others,
		"frame-src 'self'" + others,
		connect,
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}
