package bayeux

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"errors"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/halley-comet/halley"
)

// Where several nodes are on one log, each session has a record in a table that
// all nodes share. One node holds a session. Another that gets a message of its
// client asks it, by a second table, to give the session up, and takes it over:
// from its last word, or, if that node has died, from what was recorded before.

const (
	// recordTTL is how long a record lasts, and keepEvery how often that of a
	// session is written to which nothing happens.
	recordTTL = 15 * time.Minute
	keepEvery = 5 * time.Minute
	// recordEvery is how often it is written while messages go to a client that
	// does not acknowledge them: they come again if the node dies.
	recordEvery = 3 * time.Second
	// maxRecords is how many are written in a second at most, and recorders how
	// many at a time.
	maxRecords = 1000
	recorders  = 8
	// moveTTL is how long a node may have been without the tables, and still
	// learn that its sessions are others': until they have ended there.
	moveTTL = recordTTL
	// maxConflicts is how often a write is tried again that meets another.
	maxConflicts = 10
	// lookupTime is how long a client ID is looked for, and maxLookups how many
	// are at a time: a stranger can send any.
	lookupTime = 4 * time.Second
	maxLookups = 256
	// maxUnknown is how many of an address may be found nowhere in a second.
	maxUnknown = 100
	// silentTime is how long a node is not asked that has not answered.
	silentTime = 10 * time.Second
	// closeTime is how long a node that ends may take to give sessions up.
	closeTime = 5 * time.Second
	// maxKeptQueue is how many bytes of services' replies go to another node.
	maxKeptQueue = 64 << 10
)

// sharing is what a handler needs for it.
type sharing struct {
	sessions, moves halley.Table
	node            string // its name among the nodes
	lookups         chan struct{}
	cancel          context.CancelFunc
	stopped         sync.WaitGroup // its goroutines

	mu     sync.Mutex
	taking map[string]chan struct{} // guarded by mu: client IDs that are looked for; closed when that is over
	silent map[string]time.Time     // guarded by mu: nodes that have not answered, until when they are not asked
	ended  []*Session               // guarded by mu: whose records are to say so
	failed map[string]int           // guarded by mu: client IDs that were not found, in this second, by address
}

// A record is a session as another node finds it.
type record struct {
	Node  string `json:",omitempty"` // that holds it; empty if it was given up, and this is its last word
	Ended bool   `json:",omitempty"`

	User    string `json:",omitempty"`
	Token   string `json:",omitempty"` // that it stands for
	Browser string `json:",omitempty"`
	Bound   bool   `json:",omitempty"`
	Ack     bool   `json:",omitempty"`
	Replay  bool   `json:",omitempty"`
	Retries bool   `json:",omitempty"`

	Cursor halley.Cursor
	Subs   []recordedSub     `json:",omitempty"`
	Mark   *recordedMark     `json:",omitempty"`
	Batch  int64             `json:",omitempty"`
	Stream string            `json:",omitempty"`
	Stale  bool              `json:",omitempty"` // it was never known where the client is
	Mixed  bool              `json:",omitempty"` // nor in which epoch
	Waits  bool              `json:",omitempty"`
	Asked  int               `json:",omitempty"`
	Pause  time.Duration     `json:",omitempty"`
	Active time.Time         // of IdleTimeout
	Queue  []json.RawMessage `json:",omitempty"`
	Sent   int               `json:",omitempty"`
}

type recordedSub struct {
	Name        string
	From, Since halley.Cursor
	Own         bool `json:",omitempty"`
	Replay      bool `json:",omitempty"`
	Fresh       bool `json:",omitempty"`
}

type recordedMark struct {
	Cursor halley.Cursor
	From   map[string]halley.Cursor `json:",omitempty"`
	ID     json.RawMessage          `json:",omitempty"` // of the connect that was answered
	Lost   bool                     `json:",omitempty"`
}

// recorded is what a session knows of its record.
type recorded struct {
	mu      sync.Mutex // held while it is written: it comes before Session.mu
	key     string
	secret  []byte
	version uint64       // guarded by mu
	due     atomic.Int64 // when it is to be written again, Unix ns
}

// share has the handler's sessions be known to other nodes, if there may be any.
func (h *Handler) share() {
	sessions := h.hub.Table("sessions", recordTTL)
	if sessions == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.shared = &sharing{
		sessions: sessions, moves: h.hub.Table("moves", moveTTL), node: rand.Text(), cancel: cancel,
		lookups: make(chan struct{}, maxLookups), taking: map[string]chan struct{}{}, silent: map[string]time.Time{}, failed: map[string]int{},
	}
	sh := h.shared
	sh.stopped.Go(func() { h.keepRecords(ctx) })
	sh.stopped.Go(func() {
		asked := make(chan struct{}, recorders)
		// It ends with the handler, or with the engine.
		_ = sh.moves.Watch(ctx, func(e *halley.Entry) {
			if e == nil || e.Value == nil || string(e.Value) == sh.node {
				return
			}
			if s := h.byKey(e.Key); s != nil {
				asked <- struct{}{}
				sh.stopped.Go(func() {
					h.giveUp(ctx, s)
					<-asked
				})
			}
		})
	})
}

// splitID returns what a session's record is found by, and what it is sealed
// with: who reads the table learns neither.
func splitID(id string) (key string, secret []byte) {
	sum := sha512.Sum512([]byte(id))
	return string(sum[:32]), sum[32:]
}

func sealer(secret []byte) cipher.AEAD {
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic(err) // it has 32 bytes
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // the block is of AES
	}
	return gcm
}

func (r *record) seal(secret []byte) []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // what is raw in it was parsed
	}
	return sealer(secret).Seal(nil, nil, text, nil) // #nosec G407 -- it draws one itself
}

// unseal returns nil for what no node has written.
func unseal(secret, sealed []byte) *record {
	r := &record{}
	text, err := sealer(secret).Open(nil, nil, sealed, nil)
	if err != nil || json.Unmarshal(text, r) != nil {
		return nil
	}
	return r
}

// record returns the session's record as it is now. mu is held.
func (s *Session) record(node string) *record {
	r := &record{
		Node: node, User: s.user, Bound: s.bound, Ack: s.ack, Replay: s.replay, Browser: s.browser, Retries: s.retries,
		Cursor: s.cursor, Batch: s.batch, Stream: s.stream, Stale: s.stale, Mixed: s.mixed, Waits: s.waits, Asked: s.asked, Pause: s.pause, Active: s.active,
	}
	switch {
	case s.moved:
		r.Node = ""
	case s.ended:
		return &record{Ended: true}
	}
	if !s.bound {
		r.Token = s.client.Token()
	}
	for i := range s.subs {
		sub := &s.subs[i]
		r.Subs = append(r.Subs, recordedSub{sub.name, sub.from, sub.since, sub.own, sub.replay, sub.fresh})
	}
	if m := s.mark; m != nil {
		r.Mark = &recordedMark{m.cursor, m.from, m.by.m.id, m.lost}
	}
	size := 0
	for _, q := range s.queue {
		size += len(q)
	}
	if size <= maxKeptQueue {
		r.Queue, r.Sent = s.queue, s.sent
	}
	return r
}

// restore returns the session of a record.
func (h *Handler) restore(id string, r *record, client *halley.Client) *Session {
	s := &Session{
		handler: h, id: id, owner: client.Owner(), client: client, user: r.User, bound: r.Bound, ack: r.Ack, replay: r.Replay, browser: r.Browser, retries: r.Retries,
		cursor: r.Cursor, batch: r.Batch, stream: r.Stream, stale: r.Stale || r.Node != "", mixed: r.Mixed, waits: r.Waits, asked: r.Asked, pause: r.Pause, active: r.Active,
		queue: r.Queue, sent: min(r.Sent, len(r.Queue)),
	}
	s.recorded.key, s.recorded.secret = splitID(id)
	for _, sub := range r.Subs {
		s.subs = append(s.subs, subscription{name: sub.Name, from: sub.From, since: sub.Since, own: sub.Own, replay: sub.Replay, fresh: sub.Fresh})
	}
	if m := r.Mark; m != nil {
		s.mark = &mark{cursor: m.Cursor, from: m.From, by: &connect{m: &message{id: m.ID}}, lost: m.Lost}
	}
	return s
}

var (
	errTaken = errors.New("bayeux: another node has the session")
	errBusy  = errors.New("bayeux: many client IDs are looked for")
)

// away is what clients are told of a table that is away.
func away() *halley.Problem {
	return &halley.Problem{Status: 503, Title: "the sessions are not available", RetryAfter: time.Second + mathrand.N(2*time.Second)} // #nosec G404 -- no secret
}

// write brings a session's record up to date. It returns errTaken if another
// node has the session, or an error of the table.
func (h *Handler) write(ctx context.Context, s *Session) error {
	rec := &s.recorded
	rec.mu.Lock()
	defer rec.mu.Unlock()
	s.mu.Lock()
	r := s.record(h.shared.node)
	s.mu.Unlock()
	rec.due.Store(time.Now().Add(keepEvery/2 + mathrand.N(keepEvery/2)).UnixNano()) // #nosec G404 -- no secret
	text := r.seal(rec.secret)
	for conflicts := 0; ; conflicts++ {
		version, err := h.shared.sessions.Update(ctx, rec.key, text, rec.version)
		if err == nil {
			rec.version = version
			return nil
		}
		if errors.Is(err, halley.ErrConflict) && conflicts < maxConflicts {
			// A write that failed may have happened, and the table may have lost it.
			var there []byte
			there, version, err = h.shared.sessions.Get(ctx, rec.key)
			switch {
			case errors.Is(err, halley.ErrNotFound):
				rec.version = 0
				continue
			case err == nil:
				if r := unseal(rec.secret, there); r == nil || r.Node != h.shared.node || h.tookBack(s) {
					return errTaken
				}
				rec.version = version
				continue
			}
		}
		rec.due.Store(time.Now().Add(recordEvery).UnixNano())
		return err
	}
}

// tookBack tells whether this node has given a session up, and has it again, or is
// about to: then the record is that one's.
func (h *Handler) tookBack(s *Session) bool {
	s.mu.Lock()
	moved := s.moved
	s.mu.Unlock()
	if !moved {
		return false
	}
	h.shared.mu.Lock()
	defer h.shared.mu.Unlock()
	return h.shared.taking[s.id] != nil || h.byKey(s.recorded.key) != nil
}

// changed has a session's record be written soon. It is for what the client does
// not wait for.
func (s *Session) changed() {
	soon := time.Now().Add(recordEvery).UnixNano()
	if due := s.recorded.due.Load(); due > soon {
		s.recorded.due.CompareAndSwap(due, soon) // or it was written just now
	}
}

// keepRecords writes the records that are due, until ctx ends.
func (h *Handler) keepRecords(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			h.writeDue(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// writeDue writes records that are due, of sessions that have ended first.
func (h *Handler) writeDue(ctx context.Context) {
	sh := h.shared
	sh.mu.Lock()
	due := sh.ended
	sh.ended = nil
	clear(sh.failed)
	for node, until := range sh.silent {
		if time.Now().After(until) {
			delete(sh.silent, node)
		}
	}
	sh.mu.Unlock()
	now := time.Now().UnixNano()
	h.mu.Lock()
	for _, s := range h.sessions {
		if len(due) >= maxRecords {
			break
		}
		if s.recorded.due.Load() <= now {
			due = append(due, s)
		}
	}
	h.mu.Unlock()
	each(due, func(s *Session) bool {
		err := h.write(ctx, s)
		return h.taken(s, err) || err == nil
	})
}

// taken drops a session if that could not be written since another node has it.
func (h *Handler) taken(s *Session, err error) bool {
	if err != errTaken {
		return false
	}
	h.drop(s)
	return true
}

// each calls f with sessions, some at a time, until it reports false.
func each(sessions []*Session, f func(*Session) bool) {
	var wg sync.WaitGroup
	var next atomic.Int64
	var stop atomic.Bool
	for range min(recorders, len(sessions)) {
		wg.Go(func() {
			for !stop.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(sessions) {
					return
				}
				if !f(sessions[i]) {
					stop.Store(true)
				}
			}
		})
	}
	wg.Wait()
}

// byKey returns the session that is held of a record's key, nil if there is none.
func (h *Handler) byKey(key string) *Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keys[key]
}

// drop has the session be no more than another node's. What is held for it is
// answered as if there were no news: the client comes back, to whichever node.
func (h *Handler) drop(s *Session) {
	h.forget(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.moved = true, true
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.held != nil {
		s.held.poll.Finish()
	}
}

// giveUp drops a session, with a last word in its record.
func (h *Handler) giveUp(ctx context.Context, s *Session) {
	h.drop(s)
	_ = h.write(ctx, s) // who takes it over goes by what was recorded before
}

// leave has all sessions be free for other nodes, once none is begun any more.
func (h *Handler) leave(all []*Session) {
	sh := h.shared
	sh.cancel()
	sh.stopped.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	sh.mu.Lock()
	ended := sh.ended
	sh.ended = nil
	sh.mu.Unlock()
	for _, s := range all {
		h.drop(s)
	}
	each(append(all, ended...), func(s *Session) bool {
		err := h.write(ctx, s)
		return err == nil || err == errTaken
	})
}

// A refusal is why a message is not served that names a session.
type refusal struct{ text, advice string }

// elsewhere returns the session of a client ID that is not known here, from
// another node; nil if it is known nowhere. A session is taken over, unless the
// message only needs to know who its client is.
func (x *exchange) elsewhere(m *message, take bool) (*Session, *refusal) {
	h, sh, id := x.handler, x.handler.shared, m.clientID
	if sh == nil || len(id) != len(sh.node) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), lookupTime)
	defer cancel()
	address := h.hub.LimitedAddress(x.r)
	sh.mu.Lock()
	guesses := sh.failed[address] >= maxUnknown
	sh.mu.Unlock()
	if guesses {
		return nil, busy(id)
	}
	var s *Session
	err := error(errBusy)
	select {
	case sh.lookups <- struct{}{}:
		s, err = h.lookup(ctx, x, id, take)
		<-sh.lookups
	default:
	}
	if errors.Is(err, halley.ErrNotFound) {
		if address != "" {
			sh.mu.Lock()
			sh.failed[address]++
			sh.mu.Unlock()
		}
		return nil, nil
	}
	if err == nil {
		return s, nil
	}
	p, ok := errors.AsType[*halley.Problem](err)
	switch {
	case ok && p.Status == 403:
		return nil, &refusal{fault(403, id, p.Title), `{"reconnect":"none"}`}
	case !ok:
		return nil, busy(id)
	}
	return nil, &refusal{errorText(p, id), adviceFor(p)}
}

// busy has a client keep its session and come back.
func busy(id string) *refusal {
	p := away()
	return &refusal{errorText(p, id), retryAdvice(p)}
}

// lookup is elsewhere without its bounds. Errors are a *halley.Problem, that the
// record is not found, or others that pass.
func (h *Handler) lookup(ctx context.Context, x *exchange, id string, take bool) (*Session, error) {
	sh := h.shared
	for take { // one at a time, of requests that come at once
		sh.mu.Lock()
		other := sh.taking[id]
		if other == nil {
			done := make(chan struct{})
			sh.taking[id] = done
			sh.mu.Unlock()
			defer func() {
				sh.mu.Lock()
				delete(sh.taking, id)
				sh.mu.Unlock()
				close(done)
			}()
			break
		}
		sh.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if s := h.Session(id); s != nil {
		return s, nil
	}
	if h.isClosed() {
		return nil, away()
	}
	key, secret := splitID(id)
	for {
		sealed, version, err := sh.sessions.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		r := unseal(secret, sealed)
		if r == nil || r.Ended {
			return nil, halley.ErrNotFound
		}
		client, err := x.clientOf(r)
		if err != nil {
			return nil, err
		}
		if !take {
			return h.restore(id, r, client), nil
		}
		if r.Node != "" {
			if r, version, err = h.ask(ctx, key, secret, r, version); err != nil {
				return nil, err
			}
		}
		s := h.restore(id, r, client)
		s.recorded.version = version
		switch err := h.write(ctx, s); {
		case err == errTaken:
			continue // by a third one
		case err != nil:
			return nil, err
		}
		if !h.addSession(s) {
			return nil, &halley.Problem{Status: 503, Title: "there are as many sessions as there may be", RetryAfter: 10 * time.Second}
		}
		s.mu.Lock()
		s.wait()
		s.mu.Unlock()
		return s, nil
	}
}

// clientOf returns who makes a request with a recorded session's client ID. The
// error is a *halley.Problem.
func (x *exchange) clientOf(r *record) (*halley.Client, error) {
	client, err := x.identify(r.Token)
	switch {
	case err != nil:
		return nil, err
	case client.Grant().User != r.User || r.Bound && r.User == "" && !client.HasToken():
		return nil, &halley.Problem{Status: 403, Title: "the client ID is another user's"}
	}
	return client, nil
}

// ask has the node that holds a session give it up, and returns the record that
// it leaves. From one that does not answer the session is taken as it was
// recorded. Where this node is the holder, it is about to write that it is not.
func (h *Handler) ask(ctx context.Context, key string, secret []byte, r *record, version uint64) (*record, uint64, error) {
	sh, holder := h.shared, r.Node
	sh.mu.Lock()
	silent := time.Now().Before(sh.silent[holder])
	sh.mu.Unlock()
	if silent {
		return r, version, nil
	}
	put := func() error {
		if holder == sh.node {
			return nil
		}
		_, err := sh.moves.Put(ctx, key, []byte(sh.node))
		return err
	}
	if err := put(); err != nil {
		return nil, 0, err
	}
	for wait := 5 * time.Millisecond; wait < time.Second/2; wait *= 2 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
		sealed, now, err := sh.sessions.Get(ctx, key)
		if err != nil {
			return nil, 0, err
		}
		if now == version {
			continue
		}
		if r = unseal(secret, sealed); r == nil || r.Ended {
			return nil, 0, halley.ErrNotFound
		}
		if version = now; r.Node != holder {
			return r, version, nil // free, or a third one's, which comes first
		}
		if err := put(); err != nil { // it gave the session up, and has got it back
			return nil, 0, err
		}
	}
	if holder != sh.node {
		sh.mu.Lock()
		sh.silent[holder] = time.Now().Add(silentTime)
		sh.mu.Unlock()
	}
	return r, version, nil
}

// A session that was taken over without its node's last word has been given
// messages since it was recorded. A client that acknowledges them says how far
// it is; to others they are sent again.

// ackStep is by how much a position is multiplied to be a batch's number: what is
// added tells batches of one position apart.
const ackStep = 16

// nextBatch returns the number of a batch after another one, where nodes share
// sessions: it tells the position that the batch comes to.
func nextBatch(last int64, at halley.Cursor) int64 {
	if at.Seq >= 1<<48 { // beyond what is exact in JavaScript
		return last + 1
	}
	n := int64(at.Seq) * ackStep // #nosec G115 -- it is small enough
	if last/ackStep == int64(at.Seq) {
		n += (last + 1) % ackStep
	}
	return n
}

// sameBatch tells whether a client means a batch. Old ones keep 32 bits of the
// number.
func sameBatch(n, batch int64) bool { return int32(n) == int32(batch) } // #nosec G115 -- it is meant to be cut

// goOn decides where a session continues. mu is held.
func (s *Session) goOn(c *connect) {
	s.stale = false
	at, batch := s.cursor, int64(-1)
	known := false
	if c.stream {
		if p, n, ok := parseEventID(c.after); ok {
			at, batch, known = p, n, true
		}
	} else if n, ok := c.m.number("ack"); ok && s.ack && n > 0 && (s.batch < 1<<31 || n >= 1<<31) {
		at.Seq, batch, known = uint64(n)/ackStep, n, true // #nosec G115 -- it is positive
	}
	switch {
	case known && batch == s.batch: // all that was recorded, and nothing since
		s.arrived()
	case known && !s.mixed:
		s.mark, s.sent = nil, 0
		s.backTo(at)
		s.batch = batch
	default:
		s.rewind()
	}
}

// backTo has the session go on from a position. Channels that were subscribed to
// later begin where they did. mu is held.
func (s *Session) backTo(at halley.Cursor) {
	s.cursor = at
	for i := range s.subs {
		sub := &s.subs[i]
		later := at.Epoch == sub.from.Epoch && sub.from.Seq > at.Seq
		switch {
		case sub.since.Seq > at.Seq:
			sub.own, sub.fresh = true, true
		case sub.own && !sub.replay && !later:
			sub.own, sub.fresh = false, false
		}
	}
}
