package nats

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	natsgo "github.com/nats-io/nats.go"

	"github.com/halley-comet/halley/engine"
)

const (
	contentTypeHeader = "Content-Type"
	typeHeader        = "Halley-Type"
	headersHeader     = "Halley-Headers"
	digestHeader      = "Halley-Digest"
	callHeader        = "Halley-Call"
	idHeader          = natsgo.MsgIdHdr
	// JetStream's, of atomic publishing.
	batchHeader    = "Nats-Batch-Id"
	sequenceHeader = "Nats-Batch-Sequence"
	commitHeader   = "Nats-Batch-Commit"
)

// keyID is the id of what has a key, under which the servers store it once. The
// replica knows keys by their ids.
func keyID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "k." + base64.RawURLEncoding.EncodeToString(sum[:16])
}

const octets = "application/octet-stream"

// toSlash and toDot change the sign that separates segments: neither "#" nor "."
// is in the other's names.
var (
	toDot   = strings.NewReplacer("/", ".", ".", "#")
	toSlash = strings.NewReplacer(".", "/", "#", ".")
)

// encode returns a batch as it is published to a stream by a call of Append. The
// call's id is the batch's, unless that has one by its key.
func encode(stream string, b *engine.Batch, key, call string) []*natsgo.Msg {
	out := make([]*natsgo.Msg, len(b.Messages))
	for i := range b.Messages {
		m := &b.Messages[i]
		h := make(natsgo.Header, 4)
		if m.ContentType != "" && m.ContentType != octets {
			h[contentTypeHeader] = []string{m.ContentType}
		}
		if m.Type != "" {
			h[typeHeader] = []string{url.QueryEscape(m.Type)}
		}
		if len(m.Headers) > 0 {
			q := make(url.Values, len(m.Headers))
			for k, v := range m.Headers {
				q.Set(k, v)
			}
			h[headersHeader] = []string{q.Encode()}
		}
		if i == 0 {
			h[idHeader] = []string{call}
			if key != "" {
				h[idHeader], h[callHeader] = []string{key}, []string{call}
				h[digestHeader] = []string{base64.RawStdEncoding.EncodeToString(b.Digest[:])}
			}
		}
		out[i] = &natsgo.Msg{Subject: stream + "." + toDot.Replace(m.Channel), Header: h, Data: m.Data}
	}
	return out
}

// number makes one batch of messages, which the servers store whole.
func number(batch []*natsgo.Msg, id string) {
	for i, m := range batch {
		m.Header[batchHeader] = []string{id}
		m.Header[sequenceHeader] = []string{strconv.Itoa(i + 1)}
	}
	batch[len(batch)-1].Header[commitHeader] = []string{"1"}
}

// decode returns a message of a stream. It takes what any NATS client may have
// published, and returns an error for what cannot be a message of its channel.
func decode(stream, subject string, h natsgo.Header, data []byte) (m engine.Message, err error) {
	channel, ok := strings.CutPrefix(subject, stream+".")
	if !ok {
		return m, fmt.Errorf("subject %q is none of the stream %s", subject, stream)
	}
	m = engine.Message{Channel: toSlash.Replace(channel), Data: data, ContentType: h.Get(contentTypeHeader)}
	if t := h.Get(typeHeader); t != "" {
		if m.Type, err = url.QueryUnescape(t); err != nil {
			return m, fmt.Errorf("%s: %w", typeHeader, err)
		}
	}
	if s := h.Get(headersHeader); s != "" {
		q, err := url.ParseQuery(s)
		if err != nil {
			return m, fmt.Errorf("%s: %w", headersHeader, err)
		}
		m.Headers = make(map[string]string, len(q))
		for k, v := range q {
			m.Headers[strings.Clone(k)] = strings.Clone(v[0])
		}
	}
	if err := m.Check(); err != nil {
		return m, err
	}
	// Front ends have looked at what is ours.
	if engine.KindOf(m.ContentType) == engine.JSON && !isOurs(h) && (!json.Valid(data) || !utf8.Valid(data)) {
		return m, fmt.Errorf("%w: data of type %s does not parse", engine.ErrInvalid, m.ContentType)
	}
	return m, nil
}

// isOurs tells of what a node has published: only the first of a batch has an
// id.
func isOurs(h natsgo.Header) bool {
	id := h.Get(idHeader)
	if id == "" {
		id = h.Get(batchHeader)
	}
	return strings.HasPrefix(id, "k.") || strings.HasPrefix(id, "r.")
}

// callOf returns the id of the call that has published a message, if it was one
// of a node's.
func callOf(h natsgo.Header) string {
	if call := h.Get(callHeader); call != "" {
		return call
	}
	return h.Get(idHeader)
}

// keyOf returns the idempotency key's id and the digest, empty if there is none.
func keyOf(h natsgo.Header) (id string, digest [32]byte) {
	id = h.Get(idHeader)
	sum, err := base64.RawStdEncoding.DecodeString(h.Get(digestHeader))
	if !strings.HasPrefix(id, "k.") || err != nil || len(sum) != len(digest) {
		return "", digest
	}
	return id, [32]byte(sum)
}
