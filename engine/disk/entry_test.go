package disk

import (
	"bytes"
	"slices"
	"testing"

	"github.com/halley-comet/halley/engine"
)

// FuzzEntry decodes whatever there is. What it takes for an entry is the same
// after it was stored again, and has sequences in their order.
func FuzzEntry(f *testing.F) {
	for _, e := range []entry{
		{last: 1, seqs: []uint64{1}},
		{last: 1024, seqs: []uint64{1, 2, 500, 1024}},
		{last: 7, seqs: []uint64{5, 6}, sizes: []uint64{0, 1 << 20}, cum: count{9, 1 << 30}},
	} {
		kind := engine.One
		if e.sizes != nil {
			kind = engine.Exact
		}
		f.Add(e.last, e.appendValue(nil, kind), kind == engine.Exact)
	}
	f.Fuzz(func(t *testing.T, last uint64, value []byte, exact bool) {
		kind := engine.Below
		if exact {
			kind = engine.Exact
		}
		var e, again entry
		if !e.decode(last, value, kind) {
			return
		}
		if !slices.IsSorted(e.seqs) || e.seqs[0] == 0 || e.seqs[len(e.seqs)-1] > last || exact && len(e.sizes) != len(e.seqs) {
			t.Fatalf("decode %x: %+v", value, e)
		}
		if !again.decode(last, e.appendValue(nil, kind), kind) || !slices.Equal(again.seqs, e.seqs) ||
			!slices.Equal(again.sizes, e.sizes) || again.cum != e.cum {
			t.Fatalf("%+v, stored and decoded again, is %+v", e, again)
		}
	})
}

// FuzzRecord decodes whatever there is.
func FuzzRecord(f *testing.F) {
	m := &engine.Message{
		ID: engine.Cursor{Seq: 3}, Channel: "a/b", Type: "said", ContentType: "text/plain", Time: 1,
		Headers: map[string]string{"k": "v"}, Data: []byte("data"),
	}
	b := newBody(appendBody(nil, m))
	record := make([]byte, b.recordLen())
	b.put(record, 1000, m)
	f.Add(record, uint64(3))
	f.Fuzz(func(t *testing.T, record []byte, seq uint64) {
		m, info, err := decodeRecord(record, seq)
		if err != nil {
			return
		}
		b := newBody(appendBody(nil, m))
		again := make([]byte, b.recordLen())
		b.put(again, info.age, m)
		// Headers have no order, and a number may be written longer than it must.
		if m2, info2, err := decodeRecord(again, seq); err != nil || !bytes.Equal(m2.Data, m.Data) || m2.Channel != m.Channel || info2.age != info.age {
			t.Fatalf("stored and decoded again: %+v, %+v, %v", m2, info2, err)
		}
	})
}
