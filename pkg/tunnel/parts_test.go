package tunnel

import (
	"math/rand/v2"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

func TestIDSet(t *testing.T) {
	var s idSet
	r := rand.New(rand.NewPCG(1, 2))
	ids := r.Perm(1000)
	for i, n := range ids {
		id := stream.ID(n + 1)
		if s.has(id) || !s.add(id) || !s.has(id) || s.add(id) {
			t.Fatalf("id %d, the %d.", id, i)
		}
	}
	if len(s.spans) != 1 || s.spans[0] != (span{1, 1001}) {
		t.Errorf("spans %v", s.spans)
	}
}

// TestEdgeForgetsResets: an edge, which chooses the numbers of flows, remembers none of
// those that were reset: between others they would be as many ranges, for as long as the
// session lives. A cloud does, so that an OPEN that comes late opens nothing.
func TestEdgeForgetsResets(t *testing.T) {
	m := newBareSim(1, scheduler.Kinds{})
	for _, s := range []*Session{m.edge.s, m.cloud.s} {
		const n = 100
		for id := stream.ID(1); id <= n; id++ {
			f := s.makeFlow(id, 0)
			s.flows[id] = f
			if id%2 == 0 {
				continue
			}
			if err := s.flowFrame(&wire.Frame{Kind: wire.KindReset, Flow: uint64(id)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.giveUp(s.flows[2], stream.CodeResources); err != nil {
			t.Error(err)
		}
		if len(s.flows) != n/2-1 {
			t.Errorf("%d flows", len(s.flows))
		}
		if edge, kept := s.cfg.Edge, s.used.has(1) && s.used.has(2); edge == kept || edge && len(s.used.spans) > 0 {
			t.Errorf("edge %v: remembers %v", edge, s.used.spans)
		}
	}
}

// queueOf returns a send queue with n pieces of 1000 bytes.
func queueOf(n int) (*flow, *sendQueue) {
	f := &flow{id: 1}
	for range n {
		f.send.add(f, buffer.Copy(make([]byte, 1000)))
	}
	return f, &f.send
}

func sendAll(q *sendQueue, cut int) (ps []*piece) {
	for p := q.ready(); p != nil; p = q.ready() {
		q.take(p, cut)
		ps = append(ps, p)
	}
	return ps
}

func TestSendQueue(t *testing.T) {
	before := buffer.Live()
	f, q := queueOf(3)
	q.close(f)
	ps := sendAll(q, 400)
	if len(ps) != 9 || !ps[8].fin || ps[8].end() != 3000 || q.left() != 0 {
		t.Fatalf("%d pieces, the last %+v, %d left", len(ps), ps[8], q.left())
	}
	for i, off := range []uint64{0, 400, 800, 1000, 1400, 1800, 2000, 2400, 2800} {
		if ps[i].off != off {
			t.Errorf("piece %d at %d, want %d", i, ps[i].off, off)
		}
	}
	q.enqueue(ps[4])
	q.enqueue(ps[1])
	q.enqueue(ps[1])
	if p := q.ready(); p != ps[1] {
		t.Errorf("first again: the piece at %d", p.off)
	}
	ps[1].acked(0)
	if p := q.ready(); p != ps[4] {
		t.Error("an acknowledged piece is sent again")
	}
	if !q.consumed(1400) || q.base != 1400 || q.held != 1600 {
		t.Errorf("base %d, held %d", q.base, q.held)
	}
	if q.consumed(3002) {
		t.Error("consumed more than there is")
	}
	if !q.consumed(3000) || q.finSeen || q.head == nil {
		t.Error("the end must be kept until it was consumed")
	}
	if !q.consumed(3001) || !q.finSeen || q.head != nil {
		t.Error("the end was consumed")
	}
	if d := buffer.Live() - before; d != 0 {
		t.Errorf("%d bytes leaked", d)
	}
}

func TestSendQueueConsumedUnsent(t *testing.T) {
	_, q := queueOf(2)
	q.take(q.ready(), 1000)
	if q.consumed(1001) {
		t.Error("bytes that were never sent cannot be consumed")
	}
	if !q.consumed(1000) || q.held != 1000 {
		t.Errorf("held %d", q.held)
	}
	q.clear()
}

// TestSendQueueFinAlone: an end that comes after the last byte was sent gets a
// piece of its own.
func TestSendQueueFinAlone(t *testing.T) {
	f, q := queueOf(1)
	sendAll(q, 1000)
	q.close(f)
	ps := sendAll(q, 1000)
	if len(ps) != 1 || !ps[0].fin || ps[0].seg.Len() != 0 || ps[0].off != 1000 {
		t.Fatalf("%+v", ps)
	}
	if !q.consumed(1001) || q.head != nil {
		t.Error("not all was freed")
	}
}

func TestResendFrom(t *testing.T) {
	_, q := queueOf(4)
	ps := sendAll(q, 1000)
	for _, p := range ps {
		p.acked(0)
	}
	q.consumed(1000)
	q.resendFrom(2500)
	ps[3].acked(0) // of the copy that the receiver threw away
	if got := sendAll(q, 1000); len(got) != 2 || got[0] != ps[2] || got[1] != ps[3] {
		t.Errorf("%d pieces again", len(got))
	}
	q.clear()
}

// TestRateFromRest: samples of what was sent before the first acknowledgement of a flight
// that began at rest tell what that brought, and when; those of what was sent after it do not.
func TestRateFromRest(t *testing.T) {
	const ms = time.Millisecond
	begin := time.Unix(1000, 0)
	var r rateState
	send := func(at time.Duration, inFlight int) entry {
		e := entry{at: begin.Add(at), size: 1000}
		r.stamp(&e, inFlight)
		return e
	}
	ack := func(at time.Duration, e entry) scheduler.Sample {
		r.delivered += uint64(e.size)
		return r.sample(begin.Add(at), e, 0)
	}
	for _, from := range []time.Duration{0, 100 * ms} {
		a, b, c := send(from, 0), send(from+ms, 1000), send(from+2*ms, 2000)
		if s := ack(from+20*ms, a); !s.FromRest || s.First != 1000 || s.Since != 0 {
			t.Errorf("the first: %+v", s)
		}
		late := send(from+21*ms, 2000)
		if s := ack(from+23*ms, b); !s.FromRest || s.First != 1000 || s.Since != 3*ms || s.Delivered != 2000 || s.Interval != 23*ms {
			t.Errorf("the second: %+v", s)
		}
		if s := ack(from+26*ms, c); !s.FromRest || s.First != 1000 || s.Since != 6*ms || s.Delivered != 3000 {
			t.Errorf("the third: %+v", s)
		}
		if s := ack(from+41*ms, late); s.FromRest || s.Since != 0 {
			t.Errorf("what was sent after the first acknowledgement: %+v", s)
		}
	}
}
