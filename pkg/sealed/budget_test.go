package sealed

import (
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/stream"
)

// short has b's connections do with as little as they can.
func (b *bench) short() { b.port.o.Budget.payload = func(int) int64 { return 0 } }

// Where memory is short a connection is read a record at a time, and holds nothing
// for the next one before.
func TestShortOfMemory(t *testing.T) {
	b := newBench(t)
	b.short()
	const records = 20
	r := record(buffer.Plain, 1)
	go func() {
		for range records {
			if _, err := b.peer.Write(r); err != nil {
				return
			}
		}
	}()
	for i := range records {
		b.until("a record", func() bool { return len(b.records) > i*len(r) })
		for range 3 {
			if err := b.poller.Wait(time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
		if b.conn.ahead != len(r) || b.conn.slab != nil {
			t.Fatalf("record %d: %d bytes ahead, slab %v", i, b.conn.ahead, b.conn.slab != nil)
		}
		b.lane.Post([]stream.Command{{Kind: stream.CmdConsumed, Flow: benchFlow, Bytes: len(r)}})
	}
}

// credit is what the worker may have queued by now.
func (b *bench) credit() (limit uint64) {
	for _, e := range b.events {
		if e.Kind == stream.EventCredit {
			limit = e.Limit
		}
	}
	return limit
}

// A connection begins with a small window, gets a large one when it has used half of
// that, and a small one again where memory is short. What it may have queued and has not
// counts as held.
func TestCreditIsCounted(t *testing.T) {
	b := newBench(t)
	budget := b.port.o.Budget
	b.until("credit", func() bool { return b.saw(stream.EventCredit) })
	send := func(n int) {
		t.Helper()
		b.lane.Post([]stream.Command{{Kind: stream.CmdSend, Flow: benchFlow, Seg: buffer.Copy(record(n, 3))}})
		b.until("it to be sent", func() bool { return b.conn.sent == b.conn.queued })
	}
	want := func(what string, left, lent int) {
		t.Helper()
		if l := int(b.credit() - b.conn.queued); l != left || budget.lent.Load() != int64(lent) {
			t.Errorf("%s: %d bytes left, %d counted; want %d and %d", what, l, budget.lent.Load(), left, lent)
		}
	}
	send(1000)
	want("a message", smallWindow-card.Overhead-1000, 0)
	send(buffer.Plain - 2000)
	want("more", window, window-smallWindow)
	b.short()
	for range 8 {
		send(buffer.Plain)
		if l := int(b.credit() - b.conn.queued); l < minLeft {
			t.Fatalf("%d bytes are left: no full record would go out any more", l)
		}
	}
	if l := int(b.credit() - b.conn.queued); l > smallWindow || budget.lent.Load() != 0 {
		t.Errorf("short of memory: %d bytes left, %d counted", l, budget.lent.Load())
	}
	b.port.o.Budget.payload = plenty
	for range 2 {
		send(buffer.Plain)
	}
	if l := int(b.credit() - b.conn.queued); l <= window/2 || budget.lent.Load() != int64(l-smallWindow) {
		t.Errorf("plenty again: %d bytes left, %d counted", l, budget.lent.Load())
	}
	b.lane.Post([]stream.Command{{Kind: stream.CmdReset, Flow: benchFlow}})
	if l, f := budget.lent.Load(), budget.flows.Load(); l != 0 || f != 0 {
		t.Errorf("at the end: %d bytes of %d flows counted", l, f)
	}
}

// minLeft is half of the small window: below, there is more.
const minLeft = smallWindow / 2

// What is lent leaves less for others, before it is used.
func TestShare(t *testing.T) {
	b := NewBudget(func(flows int) int64 { return 4 * shares * (100_000 - 1000*int64(flows)) / 3 })
	near := func(want int) {
		t.Helper()
		if got := b.share(); got > want || got < want-5000 { // other tests' slabs
			t.Errorf("a share of %d bytes, want %d", got, want)
		}
	}
	slab := buffer.Get(1 << 20)
	b.share()
	slab.Release()
	if n := b.Peak(); n < 1<<20 {
		t.Errorf("a peak of %d bytes", n)
	}
	near(100_000)
	b.lent.Add(shares * 50_000)
	near(50_000)
	b.flows.Add(20)
	near(30_000)
	b.lent.Add(shares * 50_000)
	if got := b.share(); got != 0 {
		t.Errorf("a share of %d bytes of nothing", got)
	}
}
