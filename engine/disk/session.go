package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

// A session is one time that the log is open. Its record tells the next one
// whether sequences may be given out twice.
type session struct {
	ended ending
	fsync Fsync
	boot  string
	place string // see dirIdentity
}

// An ending is how a session ended.
type ending uint8

const (
	notEnded ending = iota // it goes on, or was killed
	closed
	copied // the log is a backup that was not opened yet: not in a record, see copyMark
)

func (s session) encode() []byte {
	b := append([]byte{byte(s.ended), byte(s.fsync)}, s.boot...)
	return append(append(b, 0), s.place...)
}

func (s *session) decode(b []byte) bool {
	if len(b) < 2 || b[0] > byte(closed) || int(b[1]) >= len(fsyncNames) {
		return false
	}
	boot, place, ok := strings.Cut(string(b[2:]), "\x00")
	*s = session{ending(b[0]), Fsync(b[1]), boot, place}
	return ok
}

// lost tells whether what the session had acknowledged may be lost, at a boot of
// the machine. Without a boot id there is no telling whether that went down.
func (s *session) lost(boot string) bool {
	return s.fsync == Never && s.ended == notEnded && (boot == "" || s.boot != boot)
}

// Opened tells what Open found in the directory.
type Opened struct {
	// New is set where there was no log.
	New bool
	// Unclean is set where the log had not been closed: its process or its
	// machine went down.
	Unclean bool
	// Cut is how many bytes were cut from the end of the write-ahead log: of a
	// write that a crash tore, and that nobody had been told of, but by a
	// replica; after Never and a crash of the machine, all from the first hole
	// on.
	Cut int64
	// NewEpoch tells why the log began a new epoch, "" if it did not. All
	// cursors from before are gaps then.
	NewEpoch string
}

// Opened tells what Open found.
func (l *Log) Opened() Opened { return l.opened }

// recall reads what the last session left, if there was one.
func (l *Log) recall() error {
	version, err := l.get(formatKey)
	if err != nil {
		return err
	}
	if version == nil {
		return l.wantEmpty()
	}
	v := binary.BigEndian.Uint32(append(version, 0, 0, 0, 0))
	if len(version) != 4 || v < 1 || v > formatVersion {
		return fmt.Errorf("%w: version %d, this is version %d", ErrFormat, v, formatVersion)
	}
	l.format = int(v)
	epoch, err1 := l.get(epochKey)
	last, err2 := l.get(sessionKey)
	counts, err3 := l.get(stateKey)
	mark, err4 := l.get(followKey)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	if mark != nil && len(mark) != 8 {
		return corrupt("follow %x", mark)
	}
	if l.replica = mark != nil; l.replica {
		l.writer.mark = binary.BigEndian.Uint64(mark)
		l.mark.Store(l.writer.mark)
	}
	if l.opts.Follow != "" && !l.replica {
		return ErrNotReplica
	}
	if l.opts.Follow == AsBefore {
		l.opts.Follow = string(epoch)
	}
	if !engine.ValidEpoch(string(epoch)) || !l.last.decode(last) || !l.writer.state.decode(counts) {
		return corrupt("epoch %q, session %q, state %q", epoch, last, counts)
	}
	l.epoch = string(epoch)
	if copy, err := isCopy(l.opts.fs, l.dir); err != nil {
		return err
	} else if copy {
		l.last.ended = copied
	}
	l.opened.New, l.opened.Unclean = false, l.last.ended == notEnded
	return nil
}

// wantEmpty makes sure that a store without a version is a new one.
func (l *Log) wantEmpty() error {
	it, err := l.db.NewIter(nil)
	if err != nil {
		return damage(err)
	}
	defer it.Close()
	if it.First() {
		return fmt.Errorf("%w: a Pebble store that is no log", ErrFormat)
	}
	return damage(it.Error())
}

// begin finds the epoch, and records that the log is open.
func (l *Log) begin() error {
	s := session{fsync: l.opts.Fsync, boot: l.opts.bootID(), place: l.opts.identity(l.dir)}
	fresh := l.opened.New
	switch {
	case l.opts.Follow == AsBefore:
		return fmt.Errorf("there is no replica: %w", fs.ErrNotExist)
	case l.opts.Follow != "":
		if l.opts.Follow == l.epoch {
			break
		}
		if !fresh {
			l.opened.NewEpoch = "the log that it follows has another"
		}
		l.epoch, l.writer.state, l.writer.mark, fresh = l.opts.Follow, state{}, 0, true
		l.mark.Store(0)
	case fresh:
		l.epoch = engine.NewEpoch()
	default:
		if why := l.newEpoch(s); why != "" {
			l.epoch, l.opened.NewEpoch = engine.NewEpoch(), why
		}
	}
	if err := l.record(s, fresh); err != nil || l.last.ended != copied {
		return err
	}
	return unmarkCopy(l.opts.fs, l.dir)
}

// newEpoch tells why sequences might be given out twice if the epoch stayed, ""
// if they cannot.
func (l *Log) newEpoch(now session) string {
	switch {
	case l.opts.NewEpoch:
		return "asked for"
	case l.replica:
		return "a replica that follows no more"
	case l.last.ended == copied:
		return "a backup"
	case now.place != l.last.place && now.place != "" && l.last.place != "":
		return "a copy of the directory"
	case l.last.lost(now.boot):
		return "the machine went down, and what it had was not synced"
	}
	return ""
}

// record writes what begin has found, and syncs it. A fresh log has nothing of
// what was there before.
func (l *Log) record(s session, fresh bool) error {
	l.format = formatVersion
	b := l.db.NewBatch()
	if fresh {
		b.DeleteRange([]byte{messageKeys}, []byte{fullKeys + 1}, nil)
	}
	if l.opts.Follow != "" {
		b.Set(followKey, appendUint64(nil, l.writer.mark), nil)
	} else {
		b.Delete(followKey, nil)
	}
	b.Set(formatKey, binary.BigEndian.AppendUint32(nil, formatVersion), nil)
	b.Set(epochKey, []byte(l.epoch), nil)
	b.Set(sessionKey, s.encode(), nil)
	b.Set(stateKey, l.writer.state.append(nil), nil)
	switch rules, err := l.get(rulesKey); {
	case err != nil:
		return err
	case fresh:
		b.Set(rulesKey, rulesOf(&l.opts), nil)
	case string(rules) != string(rulesOf(&l.opts)):
		// The session may end before its sweep, and the next one have the
		// rules of the one before.
		b.Delete(rulesKey, nil)
	}
	if err := l.commit(b, pebble.Sync); err != nil || !fresh && s.fsync != Never {
		return err
	}
	// Never syncs no commit, but the next session must not take the one before
	// this for the last. And Pebble begins a new store with a write-ahead log of
	// its oldest format, in which damage cannot be told from a torn end. A flush
	// ends that log, and is synced.
	flushed, err := l.db.AsyncFlush()
	if err != nil {
		return damage(err)
	}
	select {
	case <-flushed:
		return nil
	case <-l.fault.stopped: // Pebble goes on trying.
		return l.fault.get()
	}
}

// endSession records that the log was closed with all that it acknowledged.
func (l *Log) endSession() error {
	if l.fault.get() != nil {
		return nil
	}
	b := l.db.NewBatch()
	l.list(b, l.writer.end)
	b.Set(sessionKey, session{closed, l.opts.Fsync, l.opts.bootID(), l.opts.identity(l.dir)}.encode(), nil)
	b.Set(stateKey, l.writer.state.append(nil), nil)
	return l.commit(b, pebble.Sync)
}

// get returns a copy of a value, nil if there is none.
func (l *Log) get(key []byte) ([]byte, error) {
	v, closer, err := l.db.Get(key)
	if err == pebble.ErrNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, damage(err)
	}
	defer closer.Close()
	return append([]byte{}, v...), nil
}

// kernelBootID returns what changes with every start of the machine, "" where
// there is no such thing.
func kernelBootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
