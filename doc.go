// Package halley is a Comet server: it pushes messages to browsers over plain
// HTTP held open, and over WebSocket where that passes.
//
// A [Hub] stands on an [Engine], which orders messages into one log. It is an
// [http.Handler] that serves the native protocol (docs/protocol.md) wherever it
// is mounted:
//
//	log, err := memory.New(memory.Options{})
//	…
//	hub, err := halley.New(log, nil)
//	…
//	http.Handle("/comet/", hub)
//
// A program publishes with [Hub.Publish] and reads with [Hub.Subscribe], in the
// same log and order as clients over HTTP.
package halley
