// The command bayeux serves a page on which a CometD client, a Faye client and
// Halley's own speak on one channel. The first two are as npm has them:
//
//	cd examples/bayeux
//	npm ci --ignore-scripts
//	go run .
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/bayeux"
	"github.com/halley-comet/halley/engine/memory"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address; port 0 picks one")
	flag.Parse()

	messages, err := memory.New(memory.Options{})
	if err != nil {
		log.Fatal(err)
	}
	hub, err := halley.New(messages, nil)
	if err != nil {
		log.Fatal(err)
	}
	// One page holds two Bayeux clients here, and a browser's first would make
	// the other one poll.
	front, err := bayeux.New(hub, &bayeux.Options{MaxSessionsPerBrowser: 4})
	if err != nil {
		log.Fatal(err)
	}
	front.HandleService("/service/count", func(c *bayeux.Call) {
		if err := c.Reply(map[string]uint64{"messages": hub.End().Seq}); err != nil {
			log.Print(err)
		}
	})

	mux := http.NewServeMux()
	mux.Handle("/comet/", hub)
	mux.Handle("/bayeux", front)
	mux.Handle("/bayeux/", front) // Faye's EventSource
	mux.Handle("/npm/", http.StripPrefix("/npm/", http.FileServer(http.Dir("node_modules"))))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "index.html") })

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("open http://%s/\n", listener.Addr())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.Serve(hub.Front(server, listener)))
}
