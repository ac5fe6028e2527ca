package comet

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// A Publication is a message to be published.
type Publication struct {
	// Channel is a name, not a pattern.
	Channel string
	// Type is an optional event name, of 64 bytes at most.
	Type string
	// ContentType is the media type of Data. The server takes
	// application/json and anything that ends in +json for JSON, text/* for
	// UTF-8 text, and all else for bytes. Empty means
	// application/octet-stream.
	ContentType string
	Data        []byte
}

// Publish publishes messages, up to 1,000, all of them or, with an error, none,
// and returns their ids in the same order. It tries again after a fault of the connection
// or of the server, with one idempotency key, so that nothing is stored twice;
// after the last attempt of that kind it is not known whether the messages
// were stored. An error of the server is a [*Problem].
func (c *Client) Publish(ctx context.Context, p ...Publication) ([]string, error) {
	if len(p) == 0 {
		return nil, nil
	}
	body, contentType, query := encodePublications(p)
	key := rand.Text()
	b, err := c.call(ctx, func() (*http.Request, error) {
		r, err := c.request(ctx, "POST", "/publish", query, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Idempotency-Key", key)
		return r, nil
	})
	if err != nil {
		return nil, err
	}
	var answer struct {
		ID  string
		IDs []string
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		return nil, fmt.Errorf("comet: publish: answer %.80q: %w", b, err)
	}
	if answer.ID != "" {
		answer.IDs = []string{answer.ID}
	}
	if len(answer.IDs) != len(p) {
		return nil, fmt.Errorf("comet: publish: %d ids for %d messages", len(answer.IDs), len(p))
	}
	return answer.IDs, nil
}

func encodePublications(p []Publication) (body []byte, contentType string, query url.Values) {
	if len(p) == 1 {
		query = url.Values{"channel": {p[0].Channel}}
		if p[0].Type != "" {
			query.Set("type", p[0].Type)
		}
		contentType = p[0].ContentType
		if contentType == "" {
			contentType = "application/octet-stream"
		}
		return p[0].Data, contentType, query
	}
	for _, m := range p {
		body = append(append(body, encodeLine(m)...), '\n')
	}
	return body, "application/x-ndjson", nil
}

// encodeLine returns a line of a batch. What the line's data would not bring
// back as it is goes as data64.
func encodeLine(p Publication) []byte {
	line := Message{Channel: p.Channel, Type: p.Type}
	var compact bytes.Buffer
	switch {
	case strings.EqualFold(p.ContentType, "text/plain") && utf8.Valid(p.Data):
		line.Data = marshal(string(p.Data))
	case strings.EqualFold(p.ContentType, "application/json") &&
		json.Compact(&compact, p.Data) == nil && compact.Bytes()[0] != '"':
		line.Data = compact.Bytes()
	default:
		if line.ContentType = p.ContentType; line.ContentType == "" {
			line.ContentType = "application/octet-stream"
		}
		if line.Data64 = p.Data; line.Data64 == nil {
			line.Data64 = []byte{}
		}
	}
	return marshal(line)
}
