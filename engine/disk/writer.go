package disk

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/halley-comet/halley/engine"
)

// A writer is what the goroutine that writes works with. What it holds runs
// ahead of the disk only while a batch is made and committed; should that fail,
// the log stops and it is used no more.
type writer struct {
	state
	mark      uint64 // of a replica: see Part
	channels  channels
	ages      []*ageQueue
	keys      expiry
	full      map[string]struct{} // channels that hold more than they may
	trimAt    time.Time           // of the next step for what is full; zero if nothing is
	forget    forgetting
	sweep     sweep
	unclaimed int64 // bytes of messages removed since a range was
	unpaced   int64 // bytes stored since the files were looked at
	group     group
	// How many publishers there are that publish again when they are answered.
	publishers int
	stored     int // messages in the last batch
	key        []byte
	// Commits that are not acknowledged.
	unfinished sync.WaitGroup
	// When the file has to get what a replica has stored since it did; zero if it
	// has got all.
	writeBy time.Time
}

// initWriter reads what the writer has to know from the beginning, which does
// not grow with what is stored.
func (l *Log) initWriter() error {
	w := &l.writer
	w.channels.init()
	w.group.init()
	w.full = make(map[string]struct{})
	if err := l.loadAges(); err != nil {
		return err
	}
	if err := l.loadKeyExpiry(); err != nil {
		return err
	}
	if err := l.loadFull(); err != nil {
		return err
	}
	if err := l.loadSweep(); err != nil {
		return err
	}
	if err := l.listRest(); err != nil {
		return err
	}
	l.kept.set(&w.state)
	return nil
}

// listRest writes the entries that the last session had in memory alone.
func (l *Log) listRest() error {
	w := &l.writer
	if w.listed == w.end || l.opts.ReadOnly {
		return nil
	}
	err := l.unlisted(func(m *engine.Message) error {
		ch, err := l.channel(m.Channel)
		if err == nil {
			w.group.add(ch, m)
		}
		return err
	})
	if err != nil {
		return err
	}
	b := l.db.NewBatch()
	l.list(b, w.end)
	b.Set(stateKey, w.state.append(nil), nil)
	return l.commit(b, pebble.NoSync)
}

// list writes the entries of the messages that have none, of which last is the
// last.
func (l *Log) list(b *pebble.Batch, last uint64) {
	l.writer.group.put(b, last)
	l.writer.listed = last
}

// write is the writer's goroutine.
func (l *Log) write() {
	w := &l.writer
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var requests []*request
	for {
		closed := l.isClosed() // and with it, before it, the queue
		var full bool
		if requests, full = l.queue.take(requests[:0]); len(requests) > 0 {
			if l.opts.Fsync == Group && !full {
				requests = l.gather(requests, timer)
			}
			l.store(requests)
			l.pace()
			clear(requests)
		} else if closed {
			return
		}
		if !w.writeBy.IsZero() && !time.Now().Before(w.writeBy) {
			l.writeRest()
		}
		now := time.Now().UnixMilli()
		due := l.due(now)
		if now >= due && l.fault.get() == nil {
			l.removeDue(now)
			due = l.due(now)
		}
		if len(requests) > 0 {
			continue // There may be others already.
		}
		if l.fault.get() != nil {
			due = never
		}
		// Wall clocks are set, and timers do not follow them.
		wait := time.Duration(min(max(due-now, 0), 60_000)) * time.Millisecond
		if !w.writeBy.IsZero() {
			wait = min(wait, time.Until(w.writeBy))
		}
		timer.Reset(wait)
		select {
		case <-l.queue.wake:
		case <-timer.C:
		case <-l.done:
		}
	}
}

// writeRest has the file get what a replica's commits have left in a buffer of this
// process, which Pebble writes when it is full.
func (l *Log) writeRest() {
	l.writer.writeBy = time.Time{}
	_ = l.try(func() error { return l.db.LogData(nil, pebble.Sync) }) // of a file that is not synced
}

// writeEvery is how much a killed replica loses, which may be more than the log
// that it follows still has.
const writeEvery = time.Second

// pace holds publishers back while the files take far more than the limit.
// What is removed takes room until it is compacted, and whoever publishes faster
// than that is done could fill a disk that has room for the log. A second is the
// most between two looks: there may be nothing to compact.
func (l *Log) pace() {
	w := &l.writer
	if l.opts.Limit < 0 || w.unpaced < paceBytes {
		return
	}
	w.unpaced = 0
	most := 2*uint64(l.opts.Limit) + 8*l.memTable()
	for begin := time.Now(); time.Since(begin) < paceTime && l.db.Metrics().DiskSpaceUsage() > most; {
		now := time.Now().UnixMilli()
		if l.fault.get() != nil || l.isClosed() {
			return
		}
		if l.due(now) <= now {
			l.removeDue(now)
			continue
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-l.done:
		}
	}
}

const (
	paceBytes = 4 << 20
	paceTime  = time.Second
)

// removeDue removes some of what is due.
func (l *Log) removeDue(now int64) {
	// What is removed has been visible.
	l.writer.unfinished.Wait()
	if err := l.trim(now); err != nil {
		l.fault.set(err)
	}
}

// gather waits a little for other publishers, while there are fewer than are
// expected: who was answered last is likely to publish again. So a publisher
// that is alone does not wait.
//
// Few share a sync. Of many, half are gathered while the other half waits for
// theirs.
func (l *Log) gather(requests []*request, timer *time.Timer) []*request {
	w := &l.writer
	enough := w.publishers
	if enough >= l.opts.many {
		enough /= 2
	}
	timer.Reset(l.opts.GroupWait)
	for full := false; len(requests) < enough && !full; {
		l.queue.await(enough - len(requests))
		under := l.inFlight.Load()
		timeout := timer.C
		if under > 0 {
			timeout = nil // a sync goes on meanwhile
		}
		select {
		case <-l.queue.wake:
			requests, full = l.queue.take(requests)
		case <-l.acknowledged:
			timer.Reset(l.opts.GroupWait)
		case <-timeout:
			requests, full = l.queue.take(requests)
			enough, w.publishers = 0, 0
		case <-l.done:
			enough = 0
		}
	}
	l.queue.await(1)
	w.publishers = max(w.publishers, int(l.inFlight.Load())+len(requests))
	return requests
}

// A commit is what one batch of Pebble's stores.
type commit struct {
	batch    *pebble.Batch // nil if the requests were all stored before
	before   uint64        // the end of the log before it
	stored   []stored
	requests []*request
	answers  []answer
	state    state                 // with it
	keys     map[keyHash]storedKey // that it stores
	jumps    bool                  // a replica's: positions are left out
	mark     uint64                // a replica's
}

func (c *commit) answer() {
	for i, r := range c.requests {
		r.answer <- c.answers[i]
	}
}

// fail answers with an error.
func (c *commit) fail(err error) {
	for _, r := range c.requests {
		r.answer <- answer{err: err}
	}
}

// store applies the requests in one batch, which acknowledge goes on with.
func (l *Log) store(requests []*request) {
	w := &l.writer
	w.channels.shrink(l.opts.channels)
	c := &commit{requests: slices.Clone(requests), answers: make([]answer, len(requests))}
	if l.fault.get() != nil {
		c.fail(l.unavailable())
		return
	}
	bytes := int64(1 << 10)
	for _, r := range requests {
		bytes += r.cost
	}
	w.unpaced += bytes
	c.batch, c.before = l.db.NewBatchWithSize(int(bytes)), w.end
	err := l.assign(c)
	if err == nil {
		err = l.put(c)
	}
	if err != nil {
		l.fault.set(err)
		c.batch.Close()
		c.fail(l.unavailable())
		return
	}
	if w.stored = len(c.stored); w.stored == 0 && !c.jumps {
		c.batch.Close()
		c.batch = nil
	} else {
		c.batch.Set(stateKey, w.state.append(nil), nil)
		if l.opts.Follow != "" {
			c.batch.Set(followKey, appendUint64(w.key[:0], w.mark), nil)
		}
		c.state, c.mark = w.state, w.mark
		if l.opts.Follow != "" {
			if w.writeBy.IsZero() {
				w.writeBy = time.Now().Add(writeEvery)
			}
			l.complete(c, l.commit(c.batch, pebble.NoSync))
			return
		}
		if err := l.apply(c.batch); err != nil {
			c.fail(l.unavailable())
			return
		}
	}
	l.writer.unfinished.Add(1)
	l.inFlight.Add(int64(len(requests)))
	l.syncing <- c
}

// acknowledge waits until commits are synced, in the order of the log. A key that
// was used before is answered here too: its first batch may be one that was still
// to be synced.
func (l *Log) acknowledge() {
	for c := range l.syncing {
		err := l.fault.get() // what was repeated may not have been synced
		if c.batch != nil {
			err = l.sync(c.batch)
		}
		l.inFlight.Add(-int64(len(c.requests)))
		l.complete(c, err)
		l.writer.unfinished.Done()
		select {
		case l.acknowledged <- struct{}{}:
		default:
		}
	}
}

// complete makes a commit's messages visible and answers, once the commit is as
// safe as it is to be, or has failed. What a replica has is in the log that it
// follows: its writer does not wait until the file has it.
func (l *Log) complete(c *commit, err error) {
	if err != nil {
		c.fail(l.unavailable())
		return
	}
	if c.batch != nil {
		l.kept.set(&c.state)
		l.mark.Store(c.mark)
		l.publish(c.stored, c.state.listed, c.state.end)
	}
	c.answer()
}

// A stored message has its place in the log.
type stored struct {
	*engine.Message
	body body
}

// assign gives the requests' messages their places, and answers for each
// request, but for those whose key was used before.
func (l *Log) assign(c *commit) error {
	w := &l.writer
	now := time.Now().UnixMilli()
	for i, r := range c.requests {
		if r.first != 0 {
			if err := l.assignFollowed(c, r); err != nil {
				return err
			}
			continue
		}
		var hash keyHash
		known := false // before, and its window is over
		if r.key != "" {
			hash = hashKey(r.key)
			k, ok, err := l.findKey(hash, c.keys)
			switch {
			case err != nil:
				return err
			case !ok || now >= due(k.time, milliseconds(l.opts.KeyWindow)):
				known = ok
			case k.digest != r.digest:
				c.answers[i].err = fmt.Errorf("disk: %w", engine.ErrKeyReused)
				continue
			default:
				c.answers[i].receipt = engine.Receipt{First: l.cursor(k.first), Count: int(k.count), Time: k.time, Repeated: true}
				continue
			}
		}
		if !r.timed {
			w.time = max(w.time, now)
		}
		first := w.end + 1
		for j, m := range r.messages {
			if r.timed {
				w.time = max(w.time, m.Time)
			}
			w.end++
			m.ID, m.Time = l.cursor(w.end), w.time
			c.stored = append(c.stored, stored{m, r.bodies[j]})
		}
		if r.key != "" {
			k := storedKey{r.digest, first, uint32(len(r.messages)), w.time}
			l.rememberKey(c, hash, k, known)
		}
		c.answers[i].receipt = engine.Receipt{First: l.cursor(first), Count: len(r.messages), Time: w.time}
	}
	return nil
}

// rememberKey writes what was stored under a key, which may have been known
// before.
func (l *Log) rememberKey(c *commit, hash keyHash, k storedKey, known bool) {
	if c.keys == nil {
		c.keys = make(map[keyHash]storedKey)
	}
	c.keys[hash] = k
	l.putKey(c.batch, hash, k)
	if !known {
		l.writer.state.keys++
	}
}

// put writes messages, and the entries of the groups that are whole with them.
// Before positions that are left out all are whole, since the tail begins anew
// after them.
func (l *Log) put(c *commit) error {
	w := &l.writer
	b, last := c.batch, c.before
	for _, m := range c.stored {
		if m.ID.Seq != last+1 {
			l.list(b, last)
		}
		last = m.ID.Seq
		if err := l.putMessage(b, m); err != nil {
			return err
		}
		// The tail has to keep what is not listed: half of it may be that.
		if w.group.messages >= l.opts.group || w.group.bytes >= l.opts.TailBytes/2 {
			l.list(b, last)
		}
	}
	if w.end != last {
		l.list(b, last)
		w.listed = w.end
	}
	return nil
}

// putMessage writes a message, and notes it for the entries of its group.
func (l *Log) putMessage(b *pebble.Batch, m stored) error {
	w := &l.writer
	ch, err := l.channel(m.Channel)
	if err != nil {
		return err
	}
	age := milliseconds(ch.keep.Age)
	op := b.SetDeferred(9, m.body.recordLen())
	messageKey(op.Key[:0], m.ID.Seq)
	m.body.put(op.Value, age, m.Message)
	if err := op.Finish(); err != nil {
		return err
	}
	w.group.add(ch, m.Message)
	if age > 0 {
		b.Set(ageKey(w.key[:0], age, m.ID.Seq), appendUint64(nil, uint64(m.Time)), nil)
		l.ageQueue(age).added(m.Time)
	}
	w.messages++
	w.bytes += cost(m.Channel, m.body.recordLen())
	if _, marked := w.full[m.Channel]; !marked && ch.over() {
		b.Set(fullKey(w.key[:0], m.Channel), nil, nil)
		l.markFull(m.Channel)
	}
	return nil
}

// A group is the entries of the newest messages, which are not stored yet.
type group struct {
	messages int
	bytes    int64      // what they take in the tail
	channels []*channel // whose fresh entries are of the group
	patterns map[pattern]*entry
	spare    []*entry
	key, val []byte
}

func (g *group) init() { g.patterns = make(map[pattern]*entry) }

// add adds a message to what its channel holds, and to its lists.
func (g *group) add(ch *channel, m *engine.Message) {
	ch.add(size(m))
	g.messages++
	g.bytes += tailCost(m)
	if !ch.grouped {
		ch.grouped = true
		g.channels = append(g.channels, ch)
	}
	ch.fresh.seqs, ch.fresh.sizes = append(ch.fresh.seqs, m.ID.Seq), append(ch.fresh.sizes, uint64(size(m)))
	for prefix, kind := range engine.Patterns(ch.name) {
		if prefix == "" && kind == engine.Below {
			continue
		}
		p := pattern{prefix, kind} // whose prefix is a part of the channel's name
		e, ok := g.patterns[p]
		if !ok {
			if n := len(g.spare); n > 0 {
				e, g.spare = g.spare[n-1], g.spare[:n-1]
			} else {
				e = new(entry)
			}
			g.patterns[p] = e
		}
		e.seqs = append(e.seqs, m.ID.Seq)
	}
}

// remove takes a message out of a list.
func (g *group) remove(ch *channel, p pattern, seq uint64) bool {
	if p.kind == engine.Exact {
		return ch.fresh.remove(seq)
	}
	e, ok := g.patterns[p]
	return ok && e.remove(seq)
}

// put writes the entries, and begins another group.
func (g *group) put(b *pebble.Batch, last uint64) {
	set := func(name string, kind engine.PatternKind, e *entry) {
		if len(e.seqs) > 0 { // not all of them were removed
			e.last = last
			g.key = appendUint64(listPrefix(g.key[:0], name, kind), last)
			g.val = e.appendValue(g.val[:0], kind)
			b.Set(g.key, g.val, nil)
		}
		if e.seqs, e.sizes = e.seqs[:0], e.sizes[:0]; cap(e.seqs) > maxSpare {
			*e = entry{}
		}
	}
	for _, ch := range g.channels {
		ch.fresh.cum = ch.last
		set(ch.name, engine.Exact, &ch.fresh)
		ch.grouped = false
	}
	clear(g.channels)
	g.channels = g.channels[:0]
	for p, e := range g.patterns {
		set(p.prefix, p.kind, e)
		if len(g.spare) < maxGroup {
			g.spare = append(g.spare, e)
		}
	}
	clear(g.patterns)
	g.messages, g.bytes = 0, 0
}

// maxSpare is how many messages an entry that is kept for later has room for.
const maxSpare = 64
