package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/halley-comet/halley/bench/peers"
	"github.com/halley-comet/halley/bench/stores"
)

// The ways in which a node takes messages from a stream.
const (
	wholeStream    = "whole stream"
	replicaStream  = "whole stream into the replica"
	severalNodes   = "whole stream to eight nodes"
	filteredStream = "1 % of the channels by a filter"
	liveAll        = "all republished"
	liveFew        = "1 % of the channels republished"
)

const (
	interestChannels = 10_000
	interestNodes    = 8   // of severalNodes, in one process
	interestPart     = 100 // channels of which a node has readers, where it does not take all
)

// interest is what messages cost a node that has no readers of their channels,
// and what it costs the servers to give it them.
var interest = Scenario{
	Name: "interest",
	About: "a node takes in a stream of three replicas, or a part of it, at a steady rate; " +
		"200 bytes, 10,000 channels, nobody reads from the node",
	Cases: sizes(1000, 10_000),
	Stores: &Stores{
		Kinds: func(Case) []stores.Kind {
			var kinds []stores.Kind
			for _, name := range []string{wholeStream, replicaStream, severalNodes, filteredStream, liveAll, liveFew} {
				kinds = append(kinds, stores.Kind{Name: name, Version: stores.NewCluster("", true, false, false).Version})
			}
			return kinds
		},
		Run:  runInterest,
		Feed: feedInterest,
	},
	Compares: "what the node takes",
	Columns: []Column{
		{Key: "share", Title: "% of the messages that came", Digits: 1},
		{Key: "cpu", Title: "node: CPU-s a million published", Digits: 2},
		{Key: "each", Title: "CPU µs a message that came", Digits: 2},
		{Key: "bytes", Title: "bytes read for it"},
		{Key: "servers", Title: "NATS servers: CPU-s a million published", Digits: 1},
		{Key: "without", Title: "with no node", Digits: 1},
		{Key: "send", Title: "for each node", Digits: 1},
		{Key: "lost", Title: "lost"},
	},
	Sizes:   "messages/s",
	Against: []string{wholeStream},
}

const (
	interestStream = "chat"
	livePrefix     = "live."
)

func chat(i int) string { return "chat.room." + strconv.Itoa(i) }

// runInterest is the node, in whose process nothing else happens.
func runInterest(k stores.Kind, c Case, config Config) ([]Measure, error) {
	servers, err := peers.StartNATS(filepath.Join(config.Dir, "nats"), stores.Replicas)
	defer servers.Stop()
	if err != nil {
		return nil, err
	}
	config.URL = servers.URL()
	ctx, cancel := context.WithTimeout(context.Background(), 10*config.Time+patience)
	defer cancel()
	conn, err := nats.Connect(config.URL)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stream, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	_, err = stream.CreateStream(ctx, jetstream.StreamConfig{
		Name: interestStream, AllowAtomicPublish: true, Subjects: []string{"chat.>"}, Storage: jetstream.FileStorage, Replicas: stores.Replicas,
		RePublish: &jetstream.RePublish{Source: "chat.>", Destination: livePrefix + "chat.>"},
	})
	if err != nil {
		return nil, err
	}
	values := Values{}
	total, read := 0.0, 0.0
	fed := func(config Config) (published, serverCPU float64, err error) {
		before, err := servers.Usage()
		if err != nil {
			return 0, 0, err
		}
		was, err := inputs()
		if err != nil {
			return 0, 0, err
		}
		o, err := spawn(task{"interest", k.Name, feedStep, c, config}, false)
		if err != nil {
			return 0, 0, err
		}
		is, err := inputs()
		if err != nil {
			return 0, 0, err
		}
		total += o.Prepared["published"]
		read += is.calls - was.calls
		after, err := servers.Usage()
		return o.Prepared["published"], (after.CPU - before.CPU).Seconds(), err
	}
	warming := config
	warming.Time /= 3
	if _, _, err := fed(warming); err != nil {
		return nil, err
	}
	// First nobody takes anything, so that what the node adds can be told, and
	// what its process takes without.
	rest()
	before := used()
	read = 0
	published, cpu, err := fed(config)
	idle := used() - before
	if err != nil {
		return nil, err
	}
	values["without"] = cpu / published * 1e6
	var wanted []string
	if k.Name == filteredStream || k.Name == liveFew {
		random := rand.New(rand.NewPCG(3, 4))
		for _, i := range random.Perm(interestChannels)[:interestPart] {
			wanted = append(wanted, chat(i))
		}
	}
	var came atomic.Int64
	arrived := func() float64 { return float64(came.Load()) }
	nodes := 1
	if k.Name == severalNodes {
		nodes = interestNodes
	}
	if k.Name == replicaStream {
		nodes = 0
		log, err := stores.OpenNode(config.Dir, config.URL, interestStream)
		if err != nil {
			return nil, err
		}
		defer log.Close()
		// It has taken in all that was published before.
		first := log.End().Seq
		arrived = func() float64 { return float64(log.End().Seq - first) }
	}
	for range nodes {
		if err := takeIn(ctx, k.Name, config.URL, uint64(total)+1, wanted, &came); err != nil {
			return nil, err
		}
	}
	nodes = max(nodes, 1)
	rest()
	before = used()
	silent := read // of the process that has published, which counts here once it ends
	read = 0
	if published, cpu, err = fed(config); err != nil {
		return nil, err
	}
	values["servers"] = cpu / published * 1e6
	values["send"] = (values["servers"] - values["without"]) / float64(nodes)
	expected := published
	if wanted != nil {
		expected = 0
		for i := range int(published) {
			if slices.Contains(wanted, chat(i%interestChannels)) {
				expected++
			}
		}
	}
	expected *= float64(nodes)
	for end := time.Now().Add(patience); arrived() < expected && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	got := arrived()
	values["bytes"] = (read - silent) / max(got, 1)
	values["cpu"] = (used() - before - idle).Seconds() / published / float64(nodes) * 1e6
	values["each"] = values["cpu"] * published * float64(nodes) / max(got, 1)
	values["share"] = got / float64(nodes) / published * 100
	values["lost"] = max(0, expected-got)
	return []Measure{{Values: values}}, nil
}

// takeIn begins to take messages in by a connection of its own, until ctx ends.
// They are decoded and forgotten.
func takeIn(ctx context.Context, way, url string, from uint64, wanted []string, came *atomic.Int64) error {
	conn, err := nats.Connect(url)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, conn.Close)
	stream, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	switch way {
	case wholeStream, severalNodes, filteredStream:
		consumer, err := stream.OrderedConsumer(ctx, interestStream, jetstream.OrderedConsumerConfig{
			DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from, FilterSubjects: wanted,
		})
		if err != nil {
			return err
		}
		_, err = consumer.Consume(func(m jetstream.Msg) {
			if at, err := m.Metadata(); err == nil && at.Sequence.Stream >= from && len(m.Data()) > 0 {
				came.Add(1)
			}
		}, jetstream.PullMaxMessages(1000))
		return err
	}
	if wanted == nil {
		wanted = []string{"chat.>"}
	}
	for _, subject := range wanted {
		subscription, err := conn.Subscribe(livePrefix+subject, func(m *nats.Msg) {
			at, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
			if err == nil && at >= from && len(m.Data) > 0 {
				came.Add(1)
			}
		})
		if err != nil {
			return err
		}
		if err := subscription.SetPendingLimits(-1, -1); err != nil {
			return err
		}
	}
	return conn.Flush()
}

// feedInterest publishes at the rate of the case to all channels in turn.
func feedInterest(_ stores.Kind, c Case, config Config) (Values, error) {
	conn, err := nats.Connect(config.URL)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stream, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		return nil, err
	}
	length := 3 * config.Time
	published := 0
	var acks []jetstream.PubAckFuture
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		elapsed := min(time.Since(begin), length)
		for due := int(elapsed.Seconds() * float64(c.Connections)); published < due; published++ {
			ack, err := stream.PublishAsync(chat(published%interestChannels), payload(uint64(published)))
			if err != nil {
				return nil, err
			}
			acks = append(acks, ack)
		}
		if elapsed == length {
			break
		}
	}
	select {
	case <-stream.PublishAsyncComplete():
	case <-time.After(patience):
		return nil, errors.New("not all was acknowledged")
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return nil, fmt.Errorf("publish: %w", err)
		}
	}
	return Values{"published": float64(published)}, nil
}
