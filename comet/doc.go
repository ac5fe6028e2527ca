// Package comet is a client of Halley's native protocol.
//
// A [Client] publishes messages, reads history and subscribes. A subscription
// is an iterator that never ends by itself: it keeps the cursor of what it has
// yielded and comes back from there after every fault, over whichever of the
// protocol's seven transports it was told to use, so that each message is
// yielded once and in order, or preceded by a [Gap].
//
//	client := &comet.Client{URL: "http://127.0.0.1:8080/comet"}
//	for event, err := range client.Subscribe(ctx, comet.Options{Channels: []string{"chat/**"}}) {
//		if err != nil {
//			return err // ctx ended, or the server refused for good: a *comet.Problem
//		}
//		if event.Control == "" {
//			fmt.Println(event.Message.Channel, event.Message.Text())
//		}
//	}
package comet
