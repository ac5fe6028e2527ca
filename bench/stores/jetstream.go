package stores

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// JetStream is a NATS server in the process, spoken to without sockets, with
// one stream of one replica in files.
type JetStream struct {
	server *server.Server
	conn   *nats.Conn
	stream jetstream.JetStream
}

const streamName = "log"

// NewJetStream returns the kind. Unless it syncs each message, it syncs every
// two minutes, which is its default.
func NewJetStream(name string, sync bool) Kind {
	open := func(dir string, sync bool) (Store, error) {
		s, err := server.NewServer(&server.Options{
			JetStream: true, StoreDir: dir, SyncAlways: sync, DontListen: true, NoLog: true, NoSigs: true,
		})
		if err != nil {
			return nil, err
		}
		s.Start()
		j := &JetStream{server: s}
		if err := j.open(); err != nil {
			return nil, errors.Join(err, j.Close())
		}
		return j, nil
	}
	return Kind{
		Name:       name,
		Version:    func() string { return "nats-server " + module("github.com/nats-io/nats-server/v2")() },
		Open:       func(dir string) (Store, error) { return open(dir, sync) },
		OpenToFill: func(dir string) (Store, error) { return open(dir, false) },
	}
}

func (j *JetStream) open() error {
	if !j.server.ReadyForConnections(time.Minute) {
		return errors.New("the NATS server does not become ready")
	}
	var err error
	if j.conn, j.stream, err = j.connect(); err != nil {
		return err
	}
	_, err = j.stream.CreateOrUpdateStream(context.Background(), jetstream.StreamConfig{
		Name: streamName, Subjects: []string{"chat.>"}, Storage: jetstream.FileStorage, Replicas: 1,
	})
	return err
}

func (j *JetStream) connect() (*nats.Conn, jetstream.JetStream, error) {
	conn, err := nats.Connect("", nats.InProcessServer(j.server), nats.NoReconnect())
	if err != nil {
		return nil, nil, err
	}
	stream, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096))
	return conn, stream, err
}

// subject is a channel or a pattern as NATS has it.
func subject(channel string) string { return strings.ReplaceAll(channel, "/", ".") }

// Publisher implements [Store]. Each has a connection, which lasts as long as
// the server.
func (j *JetStream) Publisher() (func(Message) error, error) {
	_, stream, err := j.connect()
	return func(m Message) error {
		_, err := stream.Publish(context.Background(), subject(m.Channel), m.Data)
		return err
	}, err
}

// Fill implements [Store].
func (j *JetStream) Fill(messages []Message) error { return fillStream(j.stream, messages) }

func fillStream(stream jetstream.JetStream, messages []Message) error {
	acks := make([]jetstream.PubAckFuture, len(messages))
	for i, m := range messages {
		var err error
		if acks[i], err = stream.PublishAsync(subject(m.Channel), m.Data); err != nil {
			return err
		}
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-time.After(time.Minute):
			return errors.New("JetStream does not acknowledge")
		}
	}
	return nil
}

// Stored implements [Store].
func (j *JetStream) Stored() (uint64, error) { return storedIn(j.stream) }

func storedIn(js jetstream.JetStream) (uint64, error) {
	stream, err := js.Stream(context.Background(), streamName)
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().State.LastSeq, nil
}

// Close implements [Store].
func (j *JetStream) Close() error {
	if j.conn != nil {
		j.conn.Close()
	}
	j.server.Shutdown()
	j.server.WaitForShutdown()
	return nil
}

// Read implements [Reader], by an ordered consumer. The library asks for as
// many messages at a time as it sees fit.
func (j *JetStream) Read(channels []string, page int) (messages, bytes int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	config := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy}
	if len(channels) != 1 || channels[0] != "**" {
		for _, channel := range channels {
			config.FilterSubjects = append(config.FilterSubjects, subject(channel))
		}
	}
	consumer, err := j.stream.OrderedConsumer(ctx, streamName, config)
	if err != nil {
		return 0, 0, err
	}
	left := consumer.CachedInfo().NumPending
	next, err := consumer.Messages(jetstream.PullMaxMessages(page))
	if err != nil {
		return 0, 0, err
	}
	defer next.Stop()
	for ; left > 0; left-- {
		m, err := next.Next(jetstream.NextContext(ctx))
		if err != nil {
			return messages, bytes, fmt.Errorf("after %d messages: %w", messages, err)
		}
		messages++
		bytes += len(m.Data())
	}
	return messages, bytes, nil
}
