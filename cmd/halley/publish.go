package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"unicode/utf8"

	"github.com/halley-comet/halley/comet"
)

// remote says which server a client command speaks to.
type remote struct {
	URL   string `default:"http://127.0.0.1:8080/comet" env:"HALLEY_URL" help:"Where the server's protocol is mounted (${default})."`
	Token string `env:"HALLEY_TOKEN" help:"Bearer token."`
}

func (r remote) client() *comet.Client { return &comet.Client{URL: r.URL, Token: r.Token} }

type publishCmd struct {
	remote
	Channel     string `required:"" help:"Channel to publish to." placeholder:"NAME"`
	Type        string `help:"Event name of the message."`
	ContentType string `help:"Media type of the data; without, JSON if it parses as that, and else text." placeholder:"TYPE"`
	Data        string `arg:"" help:"The message; - reads standard input, a message a line."`
}

// Run publishes and prints each message's id.
func (c *publishCmd) Run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if c.Data != "-" {
		return c.publish(ctx, []comet.Publication{c.publication([]byte(c.Data))})
	}
	lines := make(chan []byte, maxLines)
	read := make(chan error, 1)
	go func() { read <- readLines(os.Stdin, lines) }() // it ends with the program
	for {
		var first []byte
		select {
		case line, ok := <-lines:
			if !ok {
				return <-read
			}
			first = line
		case <-ctx.Done():
			return nil
		}
		// What is there already goes in one request.
		batch := []comet.Publication{c.publication(first)}
		for len(lines) > 0 && len(batch) < maxLines {
			batch = append(batch, c.publication(<-lines))
		}
		if err := c.publish(ctx, batch); err != nil {
			return err
		}
	}
}

// maxLines is how many lines go in one request: they may be long.
const maxLines = 100

func readLines(r io.Reader, lines chan<- []byte) error {
	defer close(lines)
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadBytes('\n')
		if n := len(line); n > 0 && line[n-1] == '\n' {
			line = line[:n-1]
		}
		if len(line) > 0 {
			lines <- line
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *publishCmd) publication(data []byte) comet.Publication {
	p := comet.Publication{Channel: c.Channel, Type: c.Type, ContentType: c.ContentType, Data: data}
	switch {
	case p.ContentType != "":
	case json.Valid(data):
		p.ContentType = "application/json"
	case utf8.Valid(data):
		p.ContentType = "text/plain; charset=utf-8"
	}
	return p
}

func (c *publishCmd) publish(ctx context.Context, batch []comet.Publication) error {
	ids, err := c.client().Publish(ctx, batch...)
	for _, id := range ids {
		fmt.Println(id)
	}
	return err
}
