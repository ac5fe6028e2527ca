package stores

import (
	"context"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/halley-comet/halley/bench/peers"
)

// Replicas is how many servers of a cluster have each message.
const Replicas = 3

// A Clustered store has its messages on servers in other processes.
type Clustered interface {
	// Servers returns them.
	Servers() *peers.NATS
}

// A Cluster is JetStream on three NATS servers, each in a process of its own,
// with a stream of which each has a replica in files. They sync as is their
// default: every two minutes. All are connected to the server that leads the
// stream.
type Cluster struct {
	nats   *peers.NATS
	shared bool // by all publishers, the connection is
	read   bool // the stream is by this process, as a node does
	ids    bool // messages have, as those of a node
	conns  []*nats.Conn
	stream jetstream.JetStream
}

// NewCluster returns the kind. Publishers have a connection each, or share one
// as those of one server do. With read all messages come back to the process,
// by a consumer on the leader, and are forgotten. With ids each is published under an
// id, so that it may be repeated, and with its content type.
func NewCluster(name string, shared, read, ids bool) Kind {
	open := func(dir string) (Store, error) {
		servers, err := peers.StartNATS(filepath.Join(dir, "nats"), Replicas)
		c := &Cluster{nats: servers, shared: shared, read: read, ids: ids}
		if err == nil {
			err = c.open()
		}
		if err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}
	return Kind{
		Name:       name,
		Version:    func() string { return "nats-server " + module("github.com/nats-io/nats-server/v2")() },
		Open:       open,
		OpenToFill: open,
	}
}

func (c *Cluster) open() error {
	var err error
	if c.stream, err = c.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := c.stream.CreateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{"chat.>"}, Storage: jetstream.FileStorage, Replicas: Replicas,
	})
	if err != nil {
		return err
	}
	if err := c.nats.Lead(streamName); err != nil || !c.read {
		return err
	}
	// NATS gives it to any server, and a node makes one until the leader has it.
	for {
		consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
			AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
		})
		if err != nil {
			return err
		}
		if consumer.CachedInfo().Cluster.Leader == c.conns[0].ConnectedServerName() {
			_, err = consumer.Consume(func(jetstream.Msg) {}, jetstream.PullMaxMessages(1000))
			return err
		}
		if err := stream.DeleteConsumer(ctx, consumer.CachedInfo().Name); err != nil {
			return err
		}
	}
}

func (c *Cluster) connect() (jetstream.JetStream, error) {
	conn, err := nats.Connect(c.nats.First())
	if err != nil {
		return nil, err
	}
	c.conns = append(c.conns, conn)
	return jetstream.New(conn)
}

// Servers implements [Clustered].
func (c *Cluster) Servers() *peers.NATS { return c.nats }

// Publisher implements [Store].
func (c *Cluster) Publisher() (func(Message) error, error) {
	stream, err := c.stream, error(nil)
	if !c.shared {
		stream, err = c.connect()
	}
	prefix, n := nuid.Next()+".", 0
	return func(m Message) error {
		published := &nats.Msg{Subject: subject(m.Channel), Data: m.Data}
		if c.ids {
			n++
			published.Header = nats.Header{"Content-Type": {"text/plain"}, jetstream.MsgIDHeader: {prefix + strconv.Itoa(n)}}
		}
		_, err := stream.PublishMsg(context.Background(), published)
		return err
	}, err
}

// Fill implements [Store].
func (c *Cluster) Fill(messages []Message) error { return fillStream(c.stream, messages) }

// Stored implements [Store].
func (c *Cluster) Stored() (uint64, error) { return storedIn(c.stream) }

// Close implements [Store].
func (c *Cluster) Close() error {
	for _, conn := range c.conns {
		conn.Close()
	}
	c.nats.Stop()
	return nil
}
