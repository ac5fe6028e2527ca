package pump

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/internal/wire"
)

// A connection is slow once its client took no more: its socket was full, or
// the flush before the next one was not taken yet. It is so until it is live
// again. What it gets then follows the rules for its channels.
//
// Nothing is kept for it, as always. The rules are applied to what is read
// from the log for it: of a channel of which it gets the latest only, a message
// is left out if the page or, after the page, the log has a newer one.
//
// To resume is not to be slow. What was in the log when a connection came, it
// gets in any case: see rare.resumed.

// A SlowRule says what slow connections get of the channels that a pattern
// matches: all, unless Latest or Limit is set. The first rule that matches a
// channel holds.
type SlowRule struct {
	// Pattern is a channel's name or a pattern.
	Pattern string
	// Latest leaves out all messages but a channel's newest.
	Latest bool
	// Limit ends connections for which more messages wait; 0 is no bound.
	Limit int
}

// slowFlush is how long a connection that catches up may leave a flush
// untaken before it is slow.
const slowFlush = time.Second

// slowRules returns the rules, nil if none makes a difference.
func slowRules(rules []SlowRule) []SlowRule {
	if slices.ContainsFunc(rules, func(r SlowRule) bool { return r.Latest || r.Limit > 0 }) {
		return rules
	}
	return nil
}

// slowRule returns the place of a channel's rule, or -1.
func (p *Pump) slowRule(channel string) int {
	return slices.IndexFunc(p.slow, func(r SlowRule) bool { return engine.Match(r.Pattern, channel) })
}

// slowed notes that a connection's client took no more.
func (w *worker) slowed(c *Conn) {
	w.counts.slow++
	if w.pump.slow != nil && !c.kind.Poll && !c.kind.Whole {
		c.on(slow)
	}
}

// A slowRead is what a read for a slow connection has to know of it.
type slowRead struct {
	resumed engine.Cursor // messages up to here are not left out
	partial engine.Cursor // nor is this one, of which a part was sent
}

// slowRead returns nil if the connection is to get all of its next page.
func (w *worker) slowRead(c *Conn) *slowRead {
	if !c.is(slow) || len(c.set.names()) == 0 {
		return nil
	}
	s := &slowRead{resumed: c.rare.resumed}
	if c.cut() {
		s.partial = c.rare.partial
	}
	return s
}

// A pageRead is a page for a connection. left, if it is not nil, has an entry
// for each of the messages and one more: the last message that was left out
// before it, or the zero Cursor.
type pageRead struct {
	engine.Page
	left []engine.Cursor
}

// errTooSlow is returned for a connection that is to be ended by a rule.
type errTooSlow struct{ rule SlowRule }

func (e errTooSlow) Error() string {
	return fmt.Sprintf("more than %d messages of %q wait for this connection", e.rule.Limit, e.rule.Pattern)
}

// read reads a page for a connection.
func (p *Pump) read(q engine.Query, s *slowRead) (pageRead, error) {
	if s == nil {
		page, err := p.engine.Read(p.ctx, q)
		return pageRead{Page: page}, err
	}
	if err := p.checkLimits(p.ctx, q, s); err != nil {
		return pageRead{}, err
	}
	return p.readLatest(p.ctx, q, s)
}

// checkLimits returns errTooSlow if more messages wait for a connection than a
// rule lets.
func (p *Pump) checkLimits(ctx context.Context, q engine.Query, s *slowRead) error {
	after, end := q.After, p.engine.End()
	if s.resumed.Epoch == after.Epoch && s.resumed.Seq > after.Seq {
		after = s.resumed
	}
	if after.Epoch != end.Epoch {
		return nil // it is told of a gap
	}
	for i, r := range p.slow {
		if r.Limit == 0 || after.Seq+uint64(r.Limit) >= end.Seq {
			continue // there are not that many in all channels together
		}
		waiting := engine.Query{After: after, Limit: min(r.Limit+1, engine.DefaultLimit)}
		for _, name := range q.Channels {
			if both := overlap(name, r.Pattern); both != "" {
				waiting.Channels = append(waiting.Channels, both)
			}
		}
		for n, more := 0, len(waiting.Channels) > 0; more; {
			page, err := p.engine.Read(ctx, waiting)
			if err != nil {
				return err
			}
			for _, m := range page.Messages {
				if p.slowRule(m.Channel) == i {
					n++
				}
			}
			if n > r.Limit {
				return errTooSlow{r}
			}
			waiting.After, more = page.End, page.More
		}
	}
	return nil
}

// overlap returns the pattern of the channels that two patterns both match, ""
// if there is none. As a wildcard is a last segment, it is always one of them.
func overlap(a, b string) string {
	if within(a, b) {
		return a
	}
	if within(b, a) {
		return b
	}
	return ""
}

// within tells whether all channels that a matches are among those of b.
func within(a, b string) bool {
	prefix, kind := engine.SplitPattern(a)
	switch below, wide := engine.SplitPattern(b); {
	case a == b:
		return true
	case kind == engine.Exact:
		return engine.Match(b, a)
	default:
		// A pattern's channels are all below its prefix.
		return wide == engine.Below && (below == "" || prefix == below || prefix != "" && engine.Match(b, prefix))
	}
}

// readLatest reads a page without the messages that the rules leave out. It
// reads on where those would have filled it, but not through the whole log.
func (p *Pump) readLatest(ctx context.Context, q engine.Query, s *slowRead) (pageRead, error) {
	var r pageRead
	last := engine.Cursor{} // left out since the last message of the page
	size := 0
	for looked := 0; ; {
		page, err := p.engine.Read(ctx, q)
		if looked > 0 && (err != nil || page.Gap) {
			r.More = true // the next page is told of it
			break
		}
		if err != nil {
			return r, err
		}
		newer, err := p.newer(ctx, &page, s)
		if err != nil {
			return r, err
		}
		if looked == 0 {
			r.Start, r.Gap = page.Start, page.Gap
		}
		r.End, r.More = page.End, page.More
		looked += len(page.Messages)
		for i, m := range page.Messages {
			if newer[i] {
				last = m.ID
				continue
			}
			r.Messages, r.left = append(r.Messages, m), append(r.left, last)
			last = engine.Cursor{}
			if size += len(m.Data); len(r.Messages) == q.Limit || size >= q.Bytes {
				if i < len(page.Messages)-1 {
					r.End, r.More = m.ID, true
				}
				r.left = append(r.left, last)
				return r, nil
			}
		}
		if !page.More || looked >= engine.Recent {
			break
		}
		q.After = page.End
	}
	r.left = append(r.left, last)
	return r, nil
}

// newer tells of each message whether it is to be left out because its channel
// has a newer one.
func (p *Pump) newer(ctx context.Context, page *engine.Page, s *slowRead) ([]bool, error) {
	newer := make([]bool, len(page.Messages))
	seen := map[string]bool{} // channels that have a newer one
	for i := len(page.Messages) - 1; i >= 0; i-- {
		m := page.Messages[i]
		rule := p.slowRule(m.Channel)
		if rule < 0 || !p.slow[rule].Latest || m.ID == s.partial || m.ID.Epoch == s.resumed.Epoch && m.ID.Seq <= s.resumed.Seq {
			continue
		}
		if !seen[m.Channel] && page.More {
			after, err := p.engine.Read(ctx, engine.Query{Channels: []string{m.Channel}, After: page.End, Limit: 1})
			if err != nil {
				return nil, err
			}
			seen[m.Channel] = len(after.Messages) > 0
		}
		newer[i] = seen[m.Channel]
		seen[m.Channel] = true
	}
	return newer, nil
}

// skip appends the control that tells of messages left out before a page's
// message i, if there are any.
func (w *worker) skip(c *Conn, items []Item, page pageRead, i int) []Item {
	if page.left == nil || page.left[i].IsZero() {
		return items
	}
	c.sent = page.left[i]
	w.counts.skips++
	return append(items, *w.control(c, &wire.Control{Kind: wire.Skip, ID: c.sent}))
}
