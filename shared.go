package halley

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/halley-comet/halley/engine"
)

// What the nodes of a cluster have to know of each other's clients is in tables
// of the engine, if that is an engine.Sharer: tickets, revocations, and which
// tokens were renewed.

// renewalTime is how long a node may have been without the tables, and still
// learn that a token was renewed; joinTime how long a hub that begins waits for
// what was revoked before.
const (
	renewalTime = time.Minute
	joinTime    = 5 * time.Second
)

// Table returns the table of a name that all nodes on the hub's log share, nil
// if its engine is of one node. See engine.Sharer. The names tickets,
// revocations and renewals are the hub's own, sessions and moves those of package
// bayeux.
func (h *Hub) Table(name string, ttl time.Duration) Table {
	if s, ok := h.engine.(engine.Sharer); ok {
		return s.Table(name, ttl)
	}
	return nil
}

// join has the hub know what other nodes' clients are told, and them what its
// own are.
func (h *Hub) join() {
	if h.tickets.table = h.Table("tickets", ticketTime); h.tickets.table == nil {
		return
	}
	h.revoked.table = h.Table("revocations", RevocationTime)
	h.renewals = h.Table("renewals", renewalTime)
	all := h.follow(h.revoked.table, h.learnRevocation)
	h.follow(h.renewals, h.learnRenewal)
	if h.opts.Authorizer == nil {
		return
	}
	select {
	case <-all:
	case <-time.After(joinTime):
		h.opts.Logger.Warn("halley: the cluster's revocations cannot be had yet: tokens are good that were revoked while this node was away")
	}
}

// follow has f called with what is written to a table, until the hub is closed.
// What it returns is closed once all that was there has come.
func (h *Hub) follow(t Table, f func(*engine.Entry)) (all <-chan struct{}) {
	came := make(chan struct{})
	first := true
	h.following.Go(func() {
		// It ends with the hub, or with the engine.
		_ = t.Watch(h.pump.Closed(), func(e *engine.Entry) {
			switch {
			case e != nil && e.Value != nil:
				f(e)
			case e == nil && first:
				first = false
				close(came)
			}
		})
	})
	return came
}

// A sharedRevocation is a revocation in the table.
type sharedRevocation struct {
	User string    `json:"user,omitempty"`
	ID   string    `json:"jti,omitempty"`
	Time time.Time `json:"time"`
}

// shareRevocation has all nodes know a revocation, also those that begin later.
// Of two of a user the later holds.
func (h *Hub) shareRevocation(r Revocation) error {
	table, ctx := h.revoked.table, h.pump.Closed()
	sum := sha256.Sum256([]byte(r.User + "\x00" + r.ID)) // names may be longer than keys
	key := string(sum[:])
	text, err := json.Marshal(sharedRevocation(r))
	for try := 0; err == nil && try < 20; try++ {
		var there []byte
		var version uint64
		var old sharedRevocation
		there, version, err = table.Get(ctx, key)
		switch {
		case errors.Is(err, engine.ErrNotFound):
		case err != nil:
			return err
		case json.Unmarshal(there, &old) == nil && !old.Time.Before(r.Time):
			return nil
		}
		if _, err = table.Update(ctx, key, text, version); !errors.Is(err, engine.ErrConflict) {
			return err
		}
		err = nil // another node has written one: look again
	}
	if err == nil {
		err = engine.ErrConflict
	}
	return err
}

// learnRevocation has what was revoked on another node take effect here.
func (h *Hub) learnRevocation(e *engine.Entry) {
	var shared sharedRevocation
	err := json.Unmarshal(e.Value, &shared)
	r := Revocation(shared)
	if err == nil {
		err = r.check()
	}
	rs := &h.revoked
	rs.adding.Lock()
	defer rs.adding.Unlock()
	switch {
	case err != nil:
	case time.Since(r.Time) >= RevocationTime || rs.knows(r):
		return
	default:
		err = rs.add(r, h.keepLearned)
	}
	if err != nil {
		h.opts.Logger.Error("halley: a revocation of another node cannot be taken", "error", err)
		return
	}
	h.takeBack(&r)
}

// keepLearned keeps what all nodes know. If it cannot, only a start without them
// will miss it.
func (h *Hub) keepLearned(r Revocation) error {
	if h.opts.KeepRevocation == nil {
		return nil
	}
	if err := h.opts.KeepRevocation(r); err != nil {
		h.opts.Logger.Error("halley: a revocation cannot be kept here: the cluster has it", "error", err)
	}
	return nil
}

// A renewal tells nodes that connections of one token go on under another. It
// names tokens by their hashes: nobody learns one from it.
type renewal struct {
	Token []byte // the new one's
	Grant *Grant
}

// shareRenewal tells other nodes of a renewal.
func (h *Hub) shareRenewal(before, after [sha256.Size]byte, g *Grant) error {
	value, err := json.Marshal(renewal{after[:], g})
	if err == nil {
		_, err = h.renewals.Put(h.pump.Closed(), string(before[:]), value)
	}
	return err
}

// learnRenewal renews what is held here by a token that was renewed on another
// node. Connections that the new token may not have stay under the old one.
func (h *Hub) learnRenewal(e *engine.Entry) {
	var r renewal
	err := json.Unmarshal(e.Value, &r)
	if err == nil && (len(e.Key) != sha256.Size || len(r.Token) != sha256.Size || r.Grant == nil) {
		err = fmt.Errorf("%w: %.100q", ErrInvalid, e.Value)
	}
	if err != nil {
		h.opts.Logger.Error("halley: a renewal of another node cannot be read", "error", err)
		return
	}
	_, _ = h.renew([sha256.Size]byte([]byte(e.Key)), [sha256.Size]byte(r.Token), r.Grant) // a problem is for who asks here
}
