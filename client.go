package halley

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

// clientFiles are built from client/src; script/client compares them.
//
//go:embed client/served/client.js client/served/client.mjs
var clientFiles embed.FS

// serveClient returns what serves one file of the browser client.
func serveClient(name string) func(*Hub, http.ResponseWriter, *http.Request) {
	b, err := clientFiles.ReadFile("client/served/" + name)
	if err != nil {
		panic(err) // the files are part of the program
	}
	body := string(b)
	sum := sha256.Sum256(b)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return func(_ *Hub, w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Type", "text/javascript; charset=utf-8")
		// The URL has no version: browsers keep the file, but ask each time.
		header.Set("Cache-Control", "no-cache")
		header.Set("ETag", etag)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
	}
}
