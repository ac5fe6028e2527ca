// Package nats is the engine for several machines. The log is a stream of NATS
// JetStream, which orders, replicates and elects; a [Log] is one node's view of
// it.
//
// # The log and its replica
//
// A message's position is its sequence in the stream, and the epoch is the
// stream's identity, so that every node answers every cursor. Each node follows
// the whole stream and keeps it on its own disk, by package disk, at the same
// positions: history, resuming and live delivery are answered there, and cost the
// NATS servers nothing. Retention by channel is the replica's. The stream keeps
// what its own bounds allow, so that a node can be away for a while, or begin.
//
// # What is promised
//
// A receipt means that a quorum of the stream's replicas has the batch, and that
// this node has it too. What that survives is the NATS servers' to say: a power
// cut of most of them may take what was acknowledged in their sync_interval.
// Nodes that have seen such messages notice, and give the log a new epoch, so
// that cursors from before are gaps.
//
// Batches are stored whole by atomic publishing, which NATS has since 2.12.
//
// # In the stream
//
// The stream's name begins each subject. Segments of a channel are tokens, and a
// full stop in one is written as "#": chat/room.7 in the stream halley is
// halley.chat.room#7. The data is the payload. Headers:
//
//	Content-Type     of the data; application/octet-stream where it is missing
//	Halley-Type      the message's type, percent-encoded
//	Halley-Headers   its headers, as a query string
//	Halley-Digest    of what has an idempotency key, base64
//	Nats-Msg-Id      "k." and a hash of the key, or "r." and what no other call has
//	Halley-Call      what no other call has, beside a key
//
// So any NATS client may publish to the channels. What cannot be a message of its
// channel is left out, and a gap on every node.
package nats
