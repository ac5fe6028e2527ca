// Package demo is the page that halley serve shows at its root: every
// transport side by side, live, each with a button that cuts it.
//
// The page is plain modules without a build step and fetches nothing from
// elsewhere. It expects the wire contract at /comet on its own server.
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

//go:embed index.html *.css *.js *.svg
var files embed.FS

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

// Handler serves the page at / and its files under /demo/, to GET and HEAD;
// every other path is 404. It is to be mounted at the server's root.
func Handler() http.Handler {
	assets := make(map[string]asset)
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		panic(err) // the files are part of the binary
	}
	for _, e := range entries {
		body, err := fs.ReadFile(files, e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(body)
		a := asset{
			contentType: contentTypes[path.Ext(e.Name())],
			etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`,
			body:        string(body),
		}
		if e.Name() == "index.html" {
			assets["/"] = a
		} else {
			assets["/demo/"+e.Name()] = a
		}
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
		h.Set("Content-Security-Policy", policy(r.Host))
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

// policy is the page's Content-Security-Policy. The page uses the server
// under its own name and, to get round the browsers' limit of six connections
// a host, under names of *.localhost: for fetch and WebSocket, but also for
// the frames, scripts and images that the older techniques are made of.
func policy(host string) string {
	const loopback = " http://*.localhost:*"
	connect := "connect-src 'self'" + loopback + " ws://*.localhost:*"
	if hostSource.MatchString(host) {
		// Not every engine lets 'self' stand for the WebSocket schemes.
		connect += " ws://" + host + " wss://" + host
	}
	return strings.Join([]string{
		"default-src 'none'",
		"script-src 'self'" + loopback,
		"style-src 'self'",
		"img-src 'self' blob:" + loopback,
		"frame-src 'self'" + loopback,
		connect,
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}
