package comet_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/halley-comet/halley"
	"github.com/halley-comet/halley/comet"
	"github.com/halley-comet/halley/engine/memory"
)

func Example() {
	url, stop := exampleServer()
	defer stop()

	ctx := context.Background()
	client := &comet.Client{URL: url}
	if _, err := client.Publish(ctx,
		comet.Publication{Channel: "chat/room/7", Type: "said", ContentType: "application/json", Data: []byte(`{"text":"hello"}`)},
		comet.Publication{Channel: "chat/room/8", ContentType: "text/plain", Data: []byte("over there")},
	); err != nil {
		log.Fatal(err)
	}

	// Where to start; a program that goes on after a restart keeps it somewhere.
	cursor := "earliest"
	n := 0
	for event, err := range client.Subscribe(ctx, comet.Options{Channels: []string{"chat/**"}, Cursor: cursor}) {
		var problem *comet.Problem
		switch {
		case errors.As(err, &problem):
			log.Fatalf("refused: %s", problem.Detail)
		case err != nil:
			log.Fatal(err)
		case event.Control == comet.Gap:
			fmt.Println("messages may be missing: load the rooms again")
		case event.Control == "":
			fmt.Println(event.Message.Channel, event.Message.Type, event.Message.Text())
			n++
		}
		if cursor = event.Cursor; n == 2 {
			break
		}
	}
	// Output:
	// chat/room/7 said {"text":"hello"}
	// chat/room/8  over there
}

func exampleServer() (url string, stop func()) {
	engine, err := memory.New(memory.Options{})
	if err != nil {
		log.Fatal(err)
	}
	hub, err := halley.New(engine, nil)
	if err != nil {
		log.Fatal(err)
	}
	server := httptest.NewServer(http.StripPrefix("/comet", hub))
	return server.URL + "/comet", func() {
		hub.Close()
		server.Close()
		engine.Close()
	}
}
