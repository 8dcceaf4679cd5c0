package relay

import (
	"testing"
	"time"

	"hawser/pkg/card"
	"hawser/pkg/party"
	"hawser/pkg/stream"
)

// gate is an asynchronous card that the test moves on by hand.
type gate struct {
	inner   *card.Inline
	most    int
	in, out []*card.Job
}

func (g *gate) TryPut(j *card.Job) bool {
	if len(g.in) >= g.most {
		return false
	}
	g.in = append(g.in, j)
	return true
}

func (g *gate) TryGet() *card.Job {
	if len(g.out) == 0 {
		return nil
	}
	j := g.out[0]
	g.out = g.out[1:]
	return j
}

func (g *gate) Park(time.Time) (time.Duration, bool) {
	return -1, len(g.out) == 0
}

func (g *gate) FD() int { return 1 << 30 }
func (g *gate) Close()  {}

// pass finishes the oldest job.
func (g *gate) pass() {
	j := g.in[0]
	g.in = g.in[1:]
	g.inner.TryPut(j)
	g.inner.TryGet()
	g.out = append(g.out, j)
}

func newGated(t *testing.T, most, window int) (*bench, *gate) {
	g := &gate{inner: inlineCard(t), most: most}
	w, err := New(Options{Poller: newBell(), Card: g, Ring: card.NewRings(card.Edge).Get, Window: window})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{w: w, tun: &sieve{}, conn: &well{}}
	w.Accept(b.conn, serverAt, clientAt, b.tun)
	b.turn()
	b.f = w.find(b.tun, 1)
	return b, g
}

func (b *bench) say(v stream.Event) {
	v.Flow, v.From = 1, b.tun
	b.w.Deliver([]stream.Event{v})
	b.turn()
}

// The stream is rejected while a later block is in the card, and comes again
// broken before that block is out: nothing but its return can move the flow.
func TestRejectWithVoidBlock(t *testing.T) {
	b, g := newGated(t, 4, 2)
	s := newSealer(t)
	forged := s.record(0, []byte("first"))
	forged.P[10] ^= 1
	b.say(stream.Event{Kind: stream.EventData, Seg: forged})
	b.say(stream.Event{Kind: stream.EventData, Seg: s.record(1, []byte("second"))})
	g.pass()
	b.turn()
	if !b.f.down.rewind || b.f.down.m.held != 1 {
		t.Fatalf("not rejected: %+v", b.f.down.m)
	}
	b.say(stream.Event{Kind: stream.EventRewind})
	b.say(stream.Event{Kind: stream.EventData, Seg: bufferOf(0xff, 0xff, 9, 9)})
	if b.f.down.rewind {
		t.Fatal("rejected before the void block was back")
	}
	g.pass()
	b.turn()
	if !b.f.down.rewind || b.f.down.tries != 2 || b.conn.taken > 0 {
		t.Fatalf("%+v, %d bytes delivered", b.f.down.m, b.conn.taken)
	}
	b.say(stream.Event{Kind: stream.EventRewind})
	b.say(stream.Event{Kind: stream.EventData, Seg: s.record(0, []byte("first"))})
	b.say(stream.Event{Kind: stream.EventData, Seg: s.record(1, []byte("second"))})
	g.pass()
	g.pass()
	b.turn()
	if b.conn.taken != len("firstsecond") || b.tun.consumed == 0 {
		t.Errorf("%d bytes delivered in the end", b.conn.taken)
	}
}

// cut is a party that has reset its connection: what it said before can be read.
type cut struct{ well }

func (c *cut) Read(p []byte) (int, error) {
	if n, _ := c.well.Read(p); n > 0 {
		return n, nil
	}
	return 0, party.ErrReset
}
func (c *cut) Writev([][]byte) (int, error) { return 0, party.ErrReset }

// The last words are in the card, and that they are the last is known, when writing finds
// the reset, too: they are sent all the same, and the reset after them.
func TestLastWordsInTheCard(t *testing.T) {
	b, g := newGated(t, 4, 2)
	b.f.conn = &cut{well{block: []byte("413 too large")}}
	b.say(stream.Event{Kind: stream.EventData, Seg: newSealer(t).record(0, []byte("more"))})
	b.f.note(party.Readable)
	b.say(stream.Event{Kind: stream.EventCredit, Limit: 1 << 16})
	if len(g.in) != 2 || b.f.up.m.end != endSeen {
		t.Fatalf("%d blocks in the card, %+v", len(g.in), b.f.up.m)
	}
	g.pass()
	b.turn()
	if b.f.state == over || !b.f.severed {
		t.Fatal("the flow is over before its last words are sent")
	}
	g.pass()
	b.turn()
	if b.tun.records != 1 || b.f.state != over {
		t.Errorf("%d records were sent, the flow is %v", b.tun.records, b.f.state)
	}
}

// Three flows want a card with one place. The one that is woken for it dies
// first: the next one gets it.
func TestWokenFlowDies(t *testing.T) {
	b, g := newGated(t, 1, 1)
	for range 2 {
		b.w.Accept(&well{}, serverAt, clientAt, b.tun)
	}
	b.turn()
	var flows []*flow
	for id := range stream.ID(3) {
		f := b.w.find(b.tun, id+1)
		f.conn.(*well).block = []byte("block")
		flows = append(flows, f)
		b.w.Deliver([]stream.Event{{Kind: stream.EventCredit, Flow: f.id, Limit: 1 << 16, From: b.tun}})
		f.note(party.Readable)
		b.turn()
	}
	if len(g.in) != 1 || !flows[1].parked || !flows[2].parked {
		t.Fatal("two flows should wait for the card")
	}
	g.pass()
	b.w.now = time.Unix(1, 0)
	b.w.collect()
	if flows[1].parked || !flows[2].parked {
		t.Fatal("the flow that has waited longest should be woken, and no other")
	}
	b.w.lost(flows[1], stream.CodeAbort)
	b.turn()
	if len(g.in) != 1 || g.in[0].Owner.(*task).flow != flows[2] {
		t.Error("nobody got the place")
	}
	g.pass()
	b.turn()
	if b.tun.records != 2 {
		t.Errorf("%d records were sent", b.tun.records)
	}
}
