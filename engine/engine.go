package engine

import (
	"context"
	"errors"
)

// Errors that callers branch on. Engines return them wrapped or bare.
var (
	// ErrClosed is returned by every method after Close. The caller stops.
	ErrClosed = errors.New("engine: closed")
	// ErrKeyReused means that a batch's key was seen within the engine's
	// idempotency window with another digest. Nothing was stored; the caller
	// tells its client, and does not retry.
	ErrKeyReused = errors.New("engine: idempotency key was used for other content")
	// ErrUnavailable means that the engine cannot take or give messages now
	// (its disk is full, its quorum is away). A publisher retries later, with
	// the same key, since the batch may have been stored; readers go on.
	ErrUnavailable = errors.New("engine: unavailable")
	// ErrTooLarge means that the batch can never be stored, whatever is
	// dropped to make room for it. The caller does not retry.
	ErrTooLarge = errors.New("engine: batch is larger than the log may hold")
	// ErrInvalid means that a batch or a query breaks this contract: an
	// invalid channel, an empty batch, a message over its limits.
	ErrInvalid = errors.New("engine: invalid argument")
)

// An Engine is one totally ordered, bounded log of messages.
//
// All methods may be called from any number of goroutines. The messages that
// Read returns are shared by all readers and never change: callers must not
// write to them or to anything they point at. An Engine keeps nothing of the
// arguments it is given after a call returns, but for the Data, Headers and
// strings of appended messages, which the caller hands over for good.
type Engine interface {
	// Append stores a batch whole or not at all, and returns when it is as
	// safe as the engine promises and End has come to it. Sequences count
	// messages without a hole; those of a batch follow each other, in their
	// order. They get one time, which is never below that of an earlier
	// message. A batch whose Key and Digest were seen within the engine's
	// idempotency window is not stored again: the first receipt is returned
	// with Repeated set. While a batch with the same Key is being stored,
	// Append waits for its outcome.
	//
	// Errors: ErrInvalid, ErrKeyReused, ErrTooLarge, ErrUnavailable, ErrClosed,
	// or ctx's. After ErrUnavailable and after ctx ended, the batch may or may
	// not have been stored: only a repeat with the same Key tells.
	Append(ctx context.Context, b Batch) (Receipt, error)

	// Read returns messages of the channels in q, in log order, each once.
	// Its cost follows what it returns, not what is stored: a seek for each
	// channel and pattern, and a merge. Reading what follows a position among
	// the Recent newest messages does not block on a disk or a network.
	//
	// Errors: ErrInvalid, ErrUnavailable, ErrClosed, or ctx's. A cursor that
	// the log cannot honour is not an error: see [Page.Gap].
	Read(ctx context.Context, q Query) (Page, error)

	// Tail appends to buf the messages that follow after without a hole, of all
	// channels and in log order, as many as fit into its capacity, and returns
	// it. It serves live delivery: it reads from memory, never blocks, and
	// holds the newest messages whether or not retention has removed them
	// meanwhile: at least Recent of them, fewer only where that much memory
	// would be more than it may use. ok is false, and buf unchanged,
	// if it cannot go on from after: the position is of another epoch, beyond
	// End, or older than what is held. The caller then reads with Read, which
	// tells of gaps. Tail returns nothing beyond End.
	Tail(after Cursor, buf []*Message) (tail []*Message, ok bool)

	// End returns the position of the newest message that readers may see:
	// one that is as safe as its acknowledgement says. Its sequence is 0 while
	// nothing was ever stored; retention does not move it. It never goes back
	// within an epoch, and never blocks.
	End() Cursor

	// Wait blocks until End is no longer at after. It returns nil then (at
	// once, if it never was there), ctx's error when ctx ends first, and
	// ErrClosed once the engine is closed.
	Wait(ctx context.Context, after Cursor) error

	// Close ends all calls in progress with ErrClosed, waits for the engine's
	// own goroutines and releases what it holds. A second Close returns nil.
	Close() error
}

// An Immediate engine can store without waiting for a disk, a network or
// another call. It is a second interface that an Engine may have.
type Immediate interface {
	// AppendNow is Append for callers that must not wait. Where it returns an
	// error, nothing was stored.
	AppendNow(b Batch) (Receipt, error)
}

// A Stopper is an engine that may stop taking messages: for good, as a disk may
// fail, or until others are there again that it stands on. It is a further
// interface that an Engine may have.
type Stopper interface {
	// Err returns why no messages are taken now, nil while they are.
	Err() error
}

// A Follower is an engine that may be behind others of the same log, whose clients
// come to it. It is a further interface that an Engine may have.
type Follower interface {
	// Ahead tells whether a position beyond End may be one that the engine has not
	// come to yet. It never blocks: while it does not know the answer is true, and
	// known, unless it is nil, is called once from another goroutine, when it is
	// time to ask again. For such a position Read waits a while, and then returns
	// ErrUnavailable.
	Ahead(c Cursor, known func()) bool
}

// A Batch is a list of messages that are stored together.
type Batch struct {
	// Messages to store, at least one and at most MaxBatch. The engine sets
	// their ID and Time; values given there are ignored.
	Messages []Message
	// Key makes the batch safe to repeat; empty means that it is not. At most
	// MaxKey bytes of any content. Its scope (a user, say) is part of it.
	Key string
	// Digest tells batches under one Key apart. Any fixed-size summary of the
	// content will do: engines only compare it.
	Digest [32]byte
}

// A Receipt tells where a batch was stored.
type Receipt struct {
	// First is the position of the batch's first message; the others follow
	// without a hole.
	First Cursor
	// Count is the number of messages.
	Count int
	// Time is what the messages carry, in Unix milliseconds.
	Time int64
	// Repeated is set when the batch had been stored before, under its Key.
	Repeated bool
}

// ID returns the position of the batch's message i, from 0.
func (r Receipt) ID(i int) Cursor {
	return Cursor{Epoch: r.First.Epoch, Seq: r.First.Seq + uint64(i)}
}

// A Query asks for a part of the log.
type Query struct {
	// Channels lists names and patterns, at least one. A message that matches
	// several comes once. The single pattern "**" asks for the whole log.
	Channels []string
	// After is where to start, exclusive. The zero Cursor starts at the oldest
	// message retained, and is never a gap.
	After Cursor
	// From, if not nil, has an entry for each of Channels: a sequence in the
	// log's present epoch below which (inclusive) that channel's messages are
	// left out, and before which its missing messages make no gap. The later
	// of After and From holds.
	From []uint64
	// Until, if not 0, is the last sequence wanted, inclusive.
	Until uint64
	// Backward asks for the newest messages of the range instead of the
	// oldest. They are still returned in log order.
	Backward bool
	// Limit is the number of messages at most; 0 means DefaultLimit.
	Limit int
	// Bytes stops the page after the message whose Data brings their sum to
	// this many bytes or more; 0 means no such bound. At least one message is
	// returned where there is one.
	Bytes int
}

// Recent is how many of the log's newest messages an engine has at hand.
const Recent = 2048

// DefaultLimit is the number of messages in a page whose Query has no Limit.
const DefaultLimit = 1000

// A Page is what Read returns.
type Page struct {
	// Messages in log order.
	Messages []*Message
	// Gap is set when messages of the asked channels after Query.After may be
	// missing: the cursor is of another epoch, lies beyond End, or retention
	// removed a message after it that one of the channels had, or may have
	// had. It may be set wrongly, where the log forgot which channels had the
	// messages it removed; it is never absent when due. Query.Until does not
	// change it.
	Gap bool
	// Start is the position, in the log's present epoch, from which the page
	// is complete: no retained message of the channels lies between
	// Query.After and Start. It equals Query.After unless that was the zero
	// Cursor or Gap is set. Then it is the highest position that retention
	// removed from the channels, or the one before the first message retained
	// where that is lower: sequence 0 where nothing was ever removed.
	Start Cursor
	// End is the position up to which the page is complete: that of its last
	// message when there are More, else Query.Until or the log's end, whichever
	// is lower (never below Start). Reading on from End misses nothing.
	// With Query.Backward it is the upper end of the range read.
	End Cursor
	// More tells that the range holds other messages, after the last of the
	// page or, with Query.Backward, before its first.
	More bool
}
