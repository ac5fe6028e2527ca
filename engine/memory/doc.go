// Package memory is the engine that keeps its log in memory alone.
//
// It is for development, for tests and for messages that nobody needs after a
// restart: each [New] begins another epoch, so cursors of an earlier process
// are told as gaps. In return it never waits for a disk or a network.
//
// # Structure
//
// A message is stored once and listed several times: in the list of its
// channel and in one list for each pattern that matches the channel ("a/b/c"
// is under "a/b/*", "a/b/**", "a/**" and "**"). Reading a channel or a pattern
// is therefore a binary search in one list, and a subscription is a merge of
// its lists. Each list remembers the highest position that retention removed
// from it, which is what tells a gap.
//
// A channel whose messages are all gone is kept for that position, until its
// memory is needed. Then it is forgotten, and its position goes into one floor
// which holds for all channels and patterns without a list.
package memory
