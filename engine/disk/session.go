package disk

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

// A session is one time that the log is open. Its record tells the next one
// whether anything acknowledged may be lost.
type session struct {
	clean bool
	fsync Fsync
	boot  string
}

func (s session) encode() []byte {
	b := []byte{0, byte(s.fsync)}
	if s.clean {
		b[0] = 1
	}
	return append(b, s.boot...)
}

// begin checks what the directory holds, finds the epoch and the state, and
// records that the log is open.
func (l *Log) begin() error {
	version, err := l.get(formatKey)
	if err != nil {
		return err
	}
	s := session{fsync: l.opts.Fsync, boot: l.opts.bootID()}
	if version == nil {
		if err := l.wantEmpty(); err != nil {
			return err
		}
		l.epoch = newEpoch()
		return l.record(s, true)
	}
	if v := binary.BigEndian.Uint32(append(version, 0, 0, 0, 0)); len(version) != 4 || v != formatVersion {
		return fmt.Errorf("%w: version %d, this is version %d", ErrFormat, v, formatVersion)
	}
	epoch, err1 := l.get(epochKey)
	last, err2 := l.get(sessionKey)
	counts, err3 := l.get(stateKey)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if !engine.ValidEpoch(string(epoch)) || len(last) < 2 || !l.writer.state.decode(counts) {
		return fmt.Errorf("%w: epoch %q, session %q, state %q", ErrCorrupt, epoch, last, counts)
	}
	l.epoch = string(epoch)
	// Without a boot id there is no telling whether the machine went down.
	clean, sameBoot := last[0] == 1, s.boot != "" && string(last[2:]) == s.boot
	if Fsync(last[1]) == Never && !clean && !sameBoot {
		l.epoch = newEpoch()
	}
	return l.record(s, false)
}

// wantEmpty makes sure that a log without a version is a new one.
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

// record writes what begin has found, and syncs it.
func (l *Log) record(s session, fresh bool) error {
	b := l.db.NewBatch()
	b.Set(formatKey, binary.BigEndian.AppendUint32(nil, formatVersion), nil)
	b.Set(epochKey, []byte(l.epoch), nil)
	b.Set(sessionKey, s.encode(), nil)
	b.Set(stateKey, l.writer.state.append(nil), nil)
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
	b.Set(sessionKey, session{true, l.opts.Fsync, l.opts.bootID()}.encode(), nil)
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

func newEpoch() string {
	var b [8]byte
	rand.Read(b[:])
	return strconv.FormatUint(binary.NativeEndian.Uint64(b[:]), 36)
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
