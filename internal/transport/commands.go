package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// Commands serves what WebSocket clients ask for. All functions may be called
// from any goroutine.
type Commands struct {
	// Publish stores the message in a publish frame's member, which is a JSON
	// object, and returns its position.
	Publish func(ctx context.Context, message json.RawMessage) (engine.Cursor, *wire.Problem)
	// MaxChannels is how many channels a connection may have.
	MaxChannels int
}

// A command is a client's frame: an object with one of three members.
type command struct {
	Subscribe   *[]string       `json:"subscribe"`
	Unsubscribe *[]string       `json:"unsubscribe"`
	Publish     json.RawMessage `json:"publish"`
	Ref         json.RawMessage `json:"ref"`
}

// serve does what a client's frame asks for. It returns an error when the
// connection is over.
func (d *webSocketReader) serve(ctx context.Context, frame []byte) error {
	cmd, p := parseCommand(frame)
	if p != nil {
		return d.refuse(ctx, cmd.Ref, p)
	}
	switch {
	case cmd.Publish != nil:
		id, p := d.server.Commands.Publish(ctx, cmd.Publish)
		if p != nil {
			return d.refuse(ctx, cmd.Ref, p)
		}
		if cmd.Ref == nil {
			return nil
		}
		return d.conn.Send(ctx, &wire.Control{Kind: wire.Ack, Ref: cmd.Ref, ID: id})
	case cmd.Subscribe != nil:
		add, p := d.grown(*cmd.Subscribe)
		if p != nil {
			return d.refuse(ctx, cmd.Ref, p)
		}
		for _, name := range add {
			d.channels[name] = true
		}
		return d.conn.Change(ctx, add, nil, cmd.Ref)
	default:
		for _, name := range *cmd.Unsubscribe {
			delete(d.channels, name)
		}
		return d.conn.Change(ctx, nil, *cmd.Unsubscribe, cmd.Ref)
	}
}

func (d *webSocketReader) refuse(ctx context.Context, ref []byte, p *wire.Problem) error {
	return d.conn.Send(ctx, &wire.Control{Kind: wire.Error, Ref: ref, Problem: p})
}

// grown checks the channels that a client wants in addition.
func (d *webSocketReader) grown(names []string) ([]string, *wire.Problem) {
	max := d.server.Commands.MaxChannels
	add, p := Channels(names, max)
	if p != nil {
		return nil, p
	}
	n := len(d.channels)
	for _, name := range add {
		if !d.channels[name] {
			n++
		}
	}
	if n > max {
		return nil, wire.NewProblem(wire.InvalidChannel, "the connection would have too many channels: a pattern may say it in one")
	}
	return add, nil
}

func parseCommand(frame []byte) (command, *wire.Problem) {
	var cmd command
	invalid := func(detail string) (command, *wire.Problem) {
		return cmd, wire.NewProblem(wire.InvalidFrame, detail)
	}
	if t := bytes.TrimLeft(frame, " \t\r\n"); !json.Valid(frame) || t[0] != '{' {
		return invalid("a frame is a JSON object")
	}
	err := json.Unmarshal(frame, &cmd)
	// The ref first, so that what else is wrong is told under it.
	if r := cmd.Ref; r != nil && r[0] != '"' && r[0] != '-' && (r[0] < '0' || r[0] > '9') {
		cmd.Ref = nil
		if string(r) != "null" {
			return invalid("ref is a string or a number")
		}
	}
	if len(cmd.Ref) > maxRef {
		cmd.Ref = nil
		return invalid("ref is too long")
	}
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		return invalid(typ.Field + " is not what it should be: subscribe and unsubscribe are arrays of strings")
	}
	if err != nil {
		return invalid(err.Error())
	}
	n := 0
	for _, there := range []bool{cmd.Subscribe != nil, cmd.Unsubscribe != nil, cmd.Publish != nil} {
		if there {
			n++
		}
	}
	if n != 1 {
		return invalid("a frame has one of subscribe, unsubscribe and publish")
	}
	return cmd, nil
}

// maxRef is the length of a ref at most, in bytes of JSON.
const maxRef = 256
