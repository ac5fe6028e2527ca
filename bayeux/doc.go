// Package bayeux serves the Bayeux protocol, which CometD and Faye clients
// speak, from a hub's log. What a client publishes to /chat/room is in the
// native protocol's channel chat/room, and the other way round.
//
//	handler, err := bayeux.New(hub, nil)
//	…
//	http.Handle("/comet/", hub)
//	http.Handle("/bayeux/", handler)
//
// A session is a client ID, a set of channels, and the position up to which the
// client has had their messages. It holds no messages: they are in the log. A
// reply that may not have arrived is made again from where the client stood
// before.
//
// Sections are those of "The Bayeux Protocol Specification 1.0".
package bayeux
