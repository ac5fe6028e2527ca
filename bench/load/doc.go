// Package load is the client side of the benchmarks: up to 15,000 connections
// in one thread, over epoll and receives that do not block.
//
// It understands no transport. Every message carries a marker with its sequence
// and the time it was sent at, and a connection counts the markers in whatever
// comes: SSE, lines of JSON, scripts, parts or WebSocket frames. So it costs
// little next to the server that it measures, and the same for every server.
package load
