package halley_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/engine/memory"
)

// A program that serves the protocol beside its own pages, and publishes.
func Example() {
	messages, err := memory.New(memory.Options{})
	if err != nil {
		log.Fatal(err)
	}
	hub, err := halley.New(messages, nil)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for now := range time.Tick(time.Second) {
			_, err := hub.Publish(context.Background(), halley.Message{
				Channel:     "clock",
				ContentType: "text/plain; charset=utf-8",
				Data:        []byte(now.Format(time.TimeOnly)),
			})
			if err != nil {
				log.Print(err)
			}
		}
	}()
	http.Handle("/comet/", hub)
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", nil))
}

// What a program publishes and what HTTP clients publish stand in one log.
func ExampleHub_Subscribe() {
	messages, err := memory.New(memory.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer messages.Close()
	hub, err := halley.New(messages, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close()
	server := httptest.NewServer(hub)
	defer server.Close()

	ctx := context.Background()
	subscription, err := hub.Subscribe(ctx, halley.SubscribeOptions{Channels: []string{"chat/**"}})
	if err != nil {
		log.Fatal(err)
	}
	defer subscription.Close()

	if _, err := hub.Publish(ctx, halley.Message{Channel: "chat/1", Type: "said", Data: []byte("from Go")}); err != nil {
		log.Fatal(err)
	}
	r, err := http.Post(server.URL+"/publish?channel=chat/2", "text/plain", strings.NewReader("over HTTP"))
	if err != nil {
		log.Fatal(err)
	}
	r.Body.Close()

	for range 2 {
		e, err := subscription.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if e.Gap {
			fmt.Println("messages may be missing")
			continue
		}
		fmt.Println(e.Message.Channel, string(e.Message.Data))
	}
	// Output:
	// chat/1 from Go
	// chat/2 over HTTP
}

// A page that shows a state is rendered with the position from which it is to
// subscribe. What is published between the two is not lost.
func ExampleHub_End() {
	messages, err := memory.New(memory.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer messages.Close()
	hub, err := halley.New(messages, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer hub.Close()
	server := httptest.NewServer(hub)
	defer server.Close()

	cursor := hub.End() // first the position, then the state
	if _, err := hub.Publish(context.Background(), halley.Message{Channel: "score", ContentType: "application/json", Data: []byte(`{"home":1}`)}); err != nil {
		log.Fatal(err)
	}
	r, err := http.Get(server.URL + "/subscribe?channel=score&timeout=0&cursor=" + cursor.String())
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(string(body), `"data":{"home":1}`))
	// Output:
	// true
}
