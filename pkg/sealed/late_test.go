package sealed

import (
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/stream"
)

// ends seal and open records by a card.
type ends struct {
	t     *testing.T
	inner *card.Inline
}

func (e ends) do(j *card.Job) error {
	e.inner.TryPut(j)
	return e.inner.TryGet().Err
}

// seal makes a record of a flow.
func (e ends) seal(a *Association, flow stream.ID, counter uint32, at time.Time, n int) []byte {
	e.t.Helper()
	j := card.Job{Op: card.Seal, Ring: a.ring, Flow: flow, Counter: counter, Now: at, In: buffer.Copy(make([]byte, n))}
	if err := e.do(&j); err != nil {
		e.t.Fatal(err)
	}
	defer j.Out.Release()
	return append([]byte(nil), j.Out.P...)
}

// open opens one by keys that were kept for it, or by those of now.
func (e ends) open(a *Association, flow stream.ID, counter uint32, record []byte, keys *card.Keys) error {
	j := card.Job{Op: card.Open, Ring: a.ring, Flow: flow, Counter: counter, Since: keys, In: buffer.Copy(record)}
	err := e.do(&j)
	j.Out.Release()
	return err
}

// TestLateRecords: what its party does not take for days opens, wherever it has waited and
// whatever others have been sent meanwhile; and no keys are kept for one who has all.
func TestLateRecords(t *testing.T) {
	b := newBench(t)
	inner, err := card.NewInline(1)
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	b.port.o.Deliver = func(events []stream.Event) { // as a worker does that is not told by what
		for i := range events {
			if events[i].Keys == nil {
				events[i].Keys = b.lane.a.ring.Keys()
			}
		}
		b.deliver(events)
	}
	e := ends{t, inner}
	start, hours := time.Now(), uint32(0)
	now := func() time.Time { return start.Add(time.Duration(hours) * time.Hour) }
	pass := func(n int) { // another flow of the association gets a record an hour, and is read
		for range n {
			if err := e.open(b.lane.a, 9, hours, e.seal(b.far, 9, hours, now(), 10), nil); err != nil {
				t.Fatal(err)
			}
			hours++
		}
	}
	sealed := uint32(0)
	seal := func(n int) (out []byte) {
		for range n {
			out = append(out, e.seal(b.far, benchFlow, sealed, now(), buffer.Plain)...)
			sealed++
		}
		return out
	}
	send := func(records []byte) { go func() { _, _ = b.peer.Write(records) }() }
	opened := uint32(0)
	open := func() { // all that was delivered
		for _, ev := range b.events {
			if ev.Kind != stream.EventData {
				continue
			}
			h, err := card.ParseHeader(b.records)
			if err != nil {
				t.Fatal(err)
			}
			keys, _ := ev.Keys.(*card.Keys)
			if err := e.open(b.lane.a, benchFlow, opened, b.records[:h.Len], keys); err != nil {
				t.Fatalf("record %d after %d hours: %v", opened, hours, err)
			}
			b.records = b.records[h.Len:]
			opened++
			b.conn.consumed(h.Len)
		}
		b.events = nil
		b.port.deliver()
	}
	send(seal(16))
	b.until("window", func() bool { return b.conn.ahead >= window })
	var behind []byte // comes when all before it was read
	for range 40 {
		pass(5)
		behind = append(behind, seal(1)...)
	}
	b.until("what has come", func() bool { open(); return opened == 16 && !b.conn.readable })
	send(behind)
	b.until("the rest", func() bool { open(); return opened == sealed && b.conn.keys == nil })
	if _, newest := b.lane.a.ring.Epochs(); newest < 190 {
		t.Errorf("epoch %d after %d hours", newest, hours)
	}
}
