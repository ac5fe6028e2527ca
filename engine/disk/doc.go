// Package disk is the engine that keeps the log on disk, in a directory of its
// own. It is a layer over Pebble, which has the write-ahead log, the sorted
// tables, their checksums and their compaction.
//
// # What is promised
//
// A receipt means that the batch is on the disk, as [Options.Fsync] says. No
// reader sees a message before that, but of a replica ([Log.Follow]), whose last
// second may be in memory alone. [Fsync] tells what each mode survives.
// When a write or a sync fails, the log stops: publishers get
// engine.ErrUnavailable until it is opened again, and readers go on with what
// was acknowledged.
//
// Opening reads a few records and the newest messages, however much is stored.
// A write that a crash tore is cut off, whole batches at a time. Damage
// anywhere else is found by checksums, on opening or when it is read, and is
// an error that wraps ErrCorrupt, never another message. One thing cannot be
// told from a torn write: damage in the last 32 KiB of the write-ahead log,
// after a crash.
//
// # What is not there yet
//
// What Pebble's background work reports as an error stops the log for good,
// also where space is made again: it has to be opened again.
//
// # Goroutines
//
// One goroutine, the writer, does all writing: it gathers what publishers have
// queued into one batch, hands it to Pebble, and between batches removes what
// retention says, some at a time. Another waits until a batch is synced, makes
// it visible and answers; for a replica the writer does that itself. Pebble has
// goroutines of its own for flushing and compaction. Close ends them all.
//
// # Layout
//
// Numbers are big-endian unless they are uvarints (encoding/binary). A list is
// what a channel or a pattern finds its messages by, named by a kind of one
// byte (engine.PatternKind) and the name or the pattern's prefix, which hold
// no zero byte. A message of a channel with n segments is in n+1 of them; the
// list of all messages, of the pattern "**", is the messages themselves. The
// others have an entry for all that a group of messages added to them: see
// entry.go. The newest messages, which are no whole group yet, are in the lists
// of the writer and of the tail alone; Open makes an entry of them.
//
//	key                                    value
//	0x01 "format"                          version, 4 bytes
//	0x01 "epoch"                           the epoch
//	0x01 "session"                         ending 1, mode 1, boot id, 0x00,
//	                                       identity of the directory
//	0x01 "state"                           end 8, time 8, messages 8, bytes 8,
//	                                       oldest 8, floor 8, trims 8, keys 8,
//	                                       listed 8
//	0x01 "rules"                           a digest of the retention rules that
//	                                       all channels were last looked at for
//	0x01 "follow"                          in a replica: the mark of its newest
//	                                       message, 8
//	0x02 seq 8                             a message: see record.go
//	0x03 kind 1 name 0x00 seq 8            an entry of a list; seq is the last
//	                                       of its group
//	0x04 kind 1 name                       seq 8: the highest removed of a list
//	0x05 age 8 seq 8                       time 8: the queue of what is kept for
//	                                       so many milliseconds
//	0x06 hash of a key, 16                 digest 32, seq 8, count 4, time 8
//	0x07 time 8 seq 8                      the hash of the key stored then
//	0x08 channel                           nothing: it holds more than it may
//
// A channel's entry counts the channel's messages and their sizes up to and
// with itself. So what a channel holds is the difference between two entries,
// its first and its last, and needs no record that every publish would rewrite.
//
// All that one publish or one step of retention writes goes into one batch of
// Pebble's, which a crash leaves whole or not at all.
package disk
