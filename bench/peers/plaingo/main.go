// Command plaingo is the SSE server that one writes without a library.
//
//	plaingo ADDR [CERT KEY]
//
//	GET /sub?channel=K    an SSE stream
//	POST /pub?channel=K   publishes the body
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

// queue is how many messages a subscriber may be behind. It loses those that
// come when its queue is full.
const queue = 16

type broker struct {
	mu       sync.RWMutex
	channels map[string]map[chan []byte]struct{}
	last     int
}

func (b *broker) subscribe(w http.ResponseWriter, r *http.Request) {
	name, messages := r.URL.Query().Get("channel"), make(chan []byte, queue)
	b.mu.Lock()
	if b.channels[name] == nil {
		b.channels[name] = make(map[chan []byte]struct{})
	}
	b.channels[name][messages] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.channels[name], messages)
		b.mu.Unlock()
	}()

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	io.WriteString(w, ":\n\n")
	flusher := w.(http.Flusher)
	flusher.Flush()
	for {
		select {
		case message := <-messages:
			w.Write(message)
			// What is there already goes out with it.
			for range len(messages) {
				w.Write(<-messages)
			}
			flusher.Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func (b *broker) publish(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.mu.Lock()
	b.last++
	event := fmt.Appendf(nil, "data: %s\nid: plaingo000000-%d\n\n", body, b.last)
	subscribers := b.channels[r.URL.Query().Get("channel")]
	for messages := range subscribers {
		select {
		case messages <- event:
		default:
		}
	}
	b.mu.Unlock()
	io.WriteString(w, "{}")
}

func main() {
	b := broker{channels: make(map[string]map[chan []byte]struct{})}
	http.HandleFunc("GET /sub", b.subscribe)
	http.HandleFunc("POST /pub", b.publish)
	if len(os.Args) == 4 {
		log.Fatal(http.ListenAndServeTLS(os.Args[1], os.Args[2], os.Args[3], nil))
	}
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
