package comet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// A Query asks for a part of the retained messages of some channels.
type Query struct {
	// Channels are names and patterns, at least one.
	Channels []string
	// Cursor is where to start, exclusive; empty means with the oldest.
	Cursor string
	// Until is where to stop, inclusive; empty means the log's end.
	Until string
	// Before, if not empty, asks for the newest messages before it, exclusive,
	// still in ascending order.
	Before string
	// Limit is the number of messages at most, up to 1,000; 0 means 100.
	Limit int
}

// A Page is a part of the retained messages, in log order.
type Page struct {
	Messages []Message
	// Cursor is the next Query.Cursor or, for a page before a cursor, the next
	// Query.Before.
	Cursor string
	// More tells whether there are others in the direction asked for.
	More bool
	// Gap is set when messages after Query.Cursor may be missing.
	Gap bool
}

// History returns a page of the messages that the server has retained.
func (c *Client) History(ctx context.Context, q Query) (*Page, error) {
	query := url.Values{"channel": q.Channels}
	for name, value := range map[string]string{"cursor": q.Cursor, "until": q.Until, "before": q.Before} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	var a answer
	if err := c.get(ctx, "/history", query, &a); err != nil {
		return nil, err
	}
	return &Page{Messages: a.Messages, Cursor: a.Cursor, More: a.More, Gap: a.Gap}, nil
}

// ServerInfo is what a server tells about itself.
type ServerInfo struct {
	// Protocol is the version of the wire contract.
	Protocol int
	// Version is the server's own.
	Version    string
	Transports []Transport
	// Heartbeat is the interval in which a stream sends something.
	Heartbeat time.Duration
	// Hosts are names that reach the same server.
	Hosts []string
	// Cursor is the log's end now: for a snapshot that is read before
	// subscribing from there.
	Cursor string
}

// Info asks a server about itself.
func (c *Client) Info(ctx context.Context) (*ServerInfo, error) {
	var a struct {
		ServerInfo
		Heartbeat float64 // seconds
	}
	if err := c.get(ctx, "/info", nil, &a); err != nil {
		return nil, err
	}
	a.ServerInfo.Heartbeat = duration(a.Heartbeat, time.Second)
	return &a.ServerInfo, nil
}

// infoOnce is Info for callers that try again themselves.
func (c *Client) infoOnce(ctx context.Context) (*ServerInfo, error) {
	once := *c
	once.Attempts = 1
	return once.Info(ctx)
}

func (c *Client) get(ctx context.Context, path string, query url.Values, v any) error {
	b, err := c.call(ctx, func() (*http.Request, error) {
		return c.request(ctx, "GET", path, query, nil)
	})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("comet: answer %.80q: %w", b, err)
	}
	return nil
}
