package stores

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/halley-comet/halley/bench/peers"
	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/nats"
)

// HalleyCluster is one node of Halley's log on the servers of [Cluster], with
// its replica.
type HalleyCluster struct {
	log  *nats.Log
	nats *peers.NATS
}

// NewHalleyCluster returns the kind.
func NewHalleyCluster(name string) Kind {
	open := func(dir string) (Store, error) {
		servers, err := peers.StartNATS(filepath.Join(dir, "nats"), Replicas)
		h := &HalleyCluster{nats: servers}
		if err == nil {
			err = h.open(dir)
		}
		if err != nil {
			h.Close()
			return nil, err
		}
		return h, nil
	}
	return Kind{
		Name: name,
		Version: func() string {
			return (&peers.Halley{}).Version() + ", nats-server " + module("github.com/nats-io/nats-server/v2")()
		},
		Open:       open,
		OpenToFill: open,
	}
}

func (h *HalleyCluster) open(dir string) error {
	made, err := OpenNode(dir, h.nats.First(), streamName)
	if err != nil {
		return err
	}
	if err := errors.Join(made.Close(), h.nats.Lead(streamName)); err != nil {
		return err
	}
	h.log, err = OpenNode(dir, h.nats.First(), streamName)
	return err
}

// OpenNode opens a log on NATS servers, with its replica in a folder of dir.
func OpenNode(dir, url, stream string) (*nats.Log, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return nats.Open(ctx, filepath.Join(dir, "replica"), nats.Options{
		URL: url, Stream: stream, Replicas: Replicas, Logger: slog.New(slog.DiscardHandler),
	})
}

// Servers implements [Clustered].
func (h *HalleyCluster) Servers() *peers.NATS { return h.nats }

// Publisher implements [Store].
func (h *HalleyCluster) Publisher() (func(Message) error, error) {
	return func(m Message) error { return h.Fill([]Message{m}) }, nil
}

// Fill implements [Store].
func (h *HalleyCluster) Fill(messages []Message) error {
	_, err := h.log.Append(context.Background(), batch(messages))
	return err
}

// Stored implements [Store].
func (h *HalleyCluster) Stored() (uint64, error) { return h.log.End().Seq, nil }

// Close implements [Store].
func (h *HalleyCluster) Close() error {
	var err error
	if h.log != nil {
		err = h.log.Close()
	}
	h.nats.Stop()
	return err
}

func batch(messages []Message) engine.Batch {
	b := engine.Batch{Messages: make([]engine.Message, len(messages))}
	for i, m := range messages {
		b.Messages[i] = engine.Message{Channel: m.Channel, ContentType: "text/plain", Data: m.Data}
	}
	return b
}
