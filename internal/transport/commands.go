package transport

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/gobwas/ws/wsutil"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/pump"
	"github.com/halley-comet/halley/internal/wire"
)

// Commands serves what WebSocket clients ask for. All functions may be called
// from any goroutine.
type Commands struct {
	// Publish stores the message in a publish frame's member, which is a JSON
	// object, and returns its position. The connection is held by the lease,
	// here and below.
	Publish func(ctx context.Context, l *pump.Lease, message json.RawMessage) (engine.Cursor, *wire.Problem)
	// Subscribe tells why a connection may not have more channels.
	Subscribe func(l *pump.Lease, channels []string) *wire.Problem
	// Renew has the connection held by what another token gives, and returns it.
	Renew func(c *pump.Conn, l *pump.Lease, token string) (*pump.Lease, *wire.Problem)
	// MaxChannels is how many channels a connection may have.
	MaxChannels int
}

// A command is a client's frame: an object with one of four members.
type command struct {
	Subscribe   *[]string
	Unsubscribe *[]string
	Publish     json.RawMessage
	Renew       *string
	Ref         json.RawMessage // nil if there is none
}

// serve does what a client's frame asks for. It returns an error when the
// connection is over.
func (d *webSocketClient) serve(ctx context.Context, frame []byte) error {
	cmd, p := parseCommand(frame)
	if p != nil {
		return d.refuse(ctx, cmd.Ref, p)
	}
	switch {
	case cmd.Publish != nil:
		id, p := d.server.Commands.Publish(ctx, d.lease, cmd.Publish)
		if p != nil && p.Code == wire.TooLarge {
			// As a frame that is too large, but the client learns which.
			if err := d.refuse(ctx, cmd.Ref, p); err != nil {
				return err
			}
			return wsutil.ErrFrameTooLarge
		}
		if p != nil {
			return d.refuse(ctx, cmd.Ref, p)
		}
		return d.ack(ctx, cmd.Ref, id)
	case cmd.Renew != nil:
		l, p := d.server.Commands.Renew(d.conn, d.lease, *cmd.Renew)
		if p != nil {
			return d.refuse(ctx, cmd.Ref, p)
		}
		d.lease = l
		return d.ack(ctx, cmd.Ref, engine.Cursor{})
	case cmd.Subscribe != nil:
		add, p := Channels(*cmd.Subscribe, d.server.Commands.MaxChannels)
		if p != nil {
			return d.refuse(ctx, cmd.Ref, p)
		}
		if p := d.server.Commands.Subscribe(d.lease, add); p != nil {
			return d.refuse(ctx, cmd.Ref, p)
		}
		return d.change(ctx, add, nil, cmd.Ref)
	default:
		return d.change(ctx, nil, *cmd.Unsubscribe, cmd.Ref)
	}
}

// ack answers a frame that has a ref.
func (d *webSocketClient) ack(ctx context.Context, ref []byte, id engine.Cursor) error {
	if ref == nil {
		return nil
	}
	return d.conn.Send(ctx, &wire.Control{Kind: wire.Ack, Ref: ref, ID: id})
}

func (d *webSocketClient) change(ctx context.Context, add, remove []string, ref []byte) error {
	err := d.conn.Change(ctx, d.server.Commands.MaxChannels, add, remove, ref)
	if errors.Is(err, pump.ErrTooMany) {
		return d.refuse(ctx, ref, wire.NewProblem(wire.InvalidChannel, "the connection would have too many channels: a pattern may say it in one"))
	}
	return err
}

func (d *webSocketClient) refuse(ctx context.Context, ref []byte, p *wire.Problem) error {
	d.server.refused(p)
	return d.conn.Send(ctx, &wire.Control{Kind: wire.Error, Ref: ref, Problem: p})
}

func parseCommand(frame []byte) (cmd command, p *wire.Problem) {
	invalid := func(detail string) (command, *wire.Problem) {
		return cmd, wire.NewProblem(wire.InvalidFrame, detail)
	}
	members, err := wire.Members(frame)
	if err != nil {
		return invalid(err.Error())
	}
	// The ref first, so that what else is wrong is told under it.
	if ref := members["ref"]; ref != nil && string(ref) != "null" {
		switch {
		case ref[0] != '"' && ref[0] != '-' && (ref[0] < '0' || ref[0] > '9'):
			return invalid("ref is a string or a number")
		case len(ref) > maxRef:
			return invalid("ref is too long")
		}
		cmd.Ref = ref
	}
	n := 0
	for name, list := range map[string]**[]string{"subscribe": &cmd.Subscribe, "unsubscribe": &cmd.Unsubscribe} {
		raw, ok := members[name]
		if !ok {
			continue
		}
		n++
		if err := json.Unmarshal(raw, list); err != nil || *list == nil {
			return invalid(name + " is an array of strings")
		}
	}
	if cmd.Publish = members["publish"]; cmd.Publish != nil {
		n++
	}
	if raw, ok := members["renew"]; ok {
		n++
		if err := json.Unmarshal(raw, &cmd.Renew); err != nil || cmd.Renew == nil {
			return invalid("renew is a string: a token")
		}
	}
	if n != 1 {
		return invalid("a frame has one of subscribe, unsubscribe, publish and renew")
	}
	return cmd, nil
}

// maxRef is the length of a ref at most, in bytes of JSON.
const maxRef = 256
