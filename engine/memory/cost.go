package memory

import "github.com/halley-comet/halley/engine"

// What things take beside the bytes in them: the allocations with their size
// classes, and a share of the maps and slices that hold them. A test compares
// the sums with what the heap says.
const (
	baseMessage = 112 // engine.Message
	baseSlot    = 24  // a slot of 16 bytes and its share of empty ones
	baseChannel = 300 // channel, its entry in a map that is three quarters full
	baseGroup   = 200 // group, likewise
	baseKey     = 180 // key, likewise, and its slot in the queue
	baseHeaders = 320 // a map of up to 8 pairs
	baseHeader  = 80  // any further pair

	// maxOverhead is what a message takes at most beside its data: a channel of
	// 128 segments makes 129 groups.
	maxOverhead = 64 << 10
)

// size is what a message counts for in Retention.Bytes: its data and headers.
func size(m *engine.Message) int64 {
	n := len(m.Data)
	for k, v := range m.Headers {
		n += len(k) + len(v)
	}
	return int64(n)
}

// messageCost is what a message takes that is in so many lists.
func messageCost(m *engine.Message, lists int) int64 {
	n := baseMessage + lists*baseSlot + len(m.Type) + len(m.ContentType)
	if len(m.Headers) > 0 {
		n += baseHeaders + baseHeader*max(len(m.Headers)-8, 0)
	}
	return int64(n) + size(m)
}

func channelCost(name string, lists int) int64 { return int64(baseChannel + len(name) + 8*lists) }

func groupCost(p pattern) int64 { return int64(baseGroup + len(p.prefix)) }

func keyCost(key string) int64 { return int64(baseKey + len(key)) }

// fits tells whether an empty log could take a batch.
func (l *Log) fits(messages []*engine.Message, key string) bool {
	if l.opts.Limit < 0 {
		return true
	}
	n := int64(len(messages)) * maxOverhead
	for _, m := range messages {
		n += int64(len(m.Data))
	}
	return n <= l.opts.Limit || l.batchCost(messages, key) <= l.opts.Limit
}

// batchCost is what a batch takes in an empty log.
func (l *Log) batchCost(messages []*engine.Message, key string) int64 {
	var n int64
	seen := make(map[string]bool)
	groups := map[pattern]bool{{"", engine.Below}: true}
	n += groupCost(pattern{"", engine.Below})
	for _, m := range messages {
		lists := l.listsOf(m.Channel, engine.RetentionFor(m.Channel, l.opts.Rules, l.opts.Retention))
		n += messageCost(m, lists)
		if seen[m.Channel] {
			continue
		}
		seen[m.Channel] = true
		n += channelCost(m.Channel, lists)
		for prefix, kind := range engine.Patterns(m.Channel) {
			if p := (pattern{prefix, kind}); !groups[p] {
				groups[p] = true
				n += groupCost(p)
			}
		}
	}
	if key != "" {
		n += keyCost(key)
	}
	return n
}
