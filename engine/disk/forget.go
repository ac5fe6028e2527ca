package disk

// A forgetting is a walk over the trim records, some in each step, that drops
// those up to the state's floor. It begins when there are too many.
//
// The floor goes up first, in the same batch or an earlier one, so that a list
// without a record is never taken for one of which less was removed. It goes
// up to what is older than any message kept, where that helps: a cursor older
// than that is likely to have a gap anyway. Else it goes half the way to the
// log's end, again and again until enough records are dropped.
type forgetting struct {
	from []byte // where to go on; nil between walks
}

func (f *forgetting) busy(s *state, most uint64) bool { return f.from != nil || s.trims > most }

func (t *trimming) forget(int64) error {
	w := &t.log.writer
	f := &w.forget
	if !f.busy(&w.state, t.log.opts.maxTrims) {
		return nil
	}
	if f.from == nil {
		f.from = []byte{trimKeys}
		if w.oldest > w.floor+1 {
			w.floor = w.oldest - 1
		} else {
			w.floor += (w.end - w.floor + 1) / 2
		}
	}
	ok := t.it.SeekGE(f.from)
	for n := 0; ok && t.it.Key()[0] == trimKeys; ok, n = t.it.Next(), n+1 {
		k := t.it.Key()
		if n == 8*trimStep {
			f.from = append([]byte(nil), k...)
			return nil
		}
		if len(t.it.Value()) != 8 {
			return corrupt("trim record %q: %x", k, t.it.Value())
		}
		if _, rewritten := t.trims[string(k)]; !rewritten && lastUint64(t.it.Value()) <= w.floor {
			t.b.Delete(k, nil)
			w.trims--
		}
	}
	f.from = nil
	return damage(t.it.Error())
}
