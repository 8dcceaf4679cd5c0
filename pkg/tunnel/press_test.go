package tunnel

import (
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/scheduler"
)

// pressed is a session whose only link is under load and has an urgent connection.
func pressed() (s *Session, c *conn, urgent *strand) {
	s = newBareSim(1, scheduler.Kinds{}).cloud.s
	l := s.findLink(0)
	c = newConn(l, simCarrier{})
	l.conn, c.heard, c.bulkAt = c, s.now, s.now
	urgent = newApart(c, &closer{}, false)
	s.stand(urgent)
	s.stepHealth(l)
	return s, c, urgent
}

// TestPressingNeedsNoRoom: where no link has room a small message goes by the urgent
// strand all the same, once, as long as little of that is unanswered; a chunk of bulk
// does not, nor does one whose user is held back.
func TestPressingNeedsNoRoom(t *testing.T) {
	before := buffer.Live()
	s, c, urgent := pressed()
	c.inFlight = 1 << 20 // more than it may have
	var flows []*flow
	give := func(n int, t scheduler.Terms) {
		f := s.makeFlow(1, 0)
		f.node.Flow = f
		s.order.Join(&f.node, t, s.now)
		f.send.add(f, buffer.Copy(make([]byte, n)))
		s.order.Activate(&f.node, s.now)
		s.notePressing(f)
		flows = append(flows, f)
		s.pump()
		for len(urgent.out) > 0 {
			b := <-urgent.out
			for _, r := range b.recs {
				r.Body.Release()
			}
			urgent.returned(b)
		}
	}
	normal := scheduler.Terms{Class: scheduler.Normal, Weight: 1}
	give(1200, normal)
	if flows[0].send.head.state != sent || urgent.log.n != 1 || c.bulk.log.n != 0 {
		t.Fatalf("a message waits for room: %d records by the urgent strand, %d by the other", urgent.log.n, c.bulk.log.n)
	}
	give(1200, scheduler.Terms{Class: scheduler.Background, Weight: 1})
	if urgent.log.n != 1 || len(s.pressing) > 0 {
		t.Error("what is in the background goes without room")
	}
	for range 2 * pressMost / 1200 {
		give(1200, normal)
	}
	if urgent.log.bytes > pressMost || urgent.log.n < pressMost/2000 {
		t.Errorf("%d bytes are unanswered, wanted at most %d", urgent.log.bytes, pressMost)
	}
	if len(s.pressing) == 0 {
		t.Error("what found the urgent strand full is forgotten")
	}
	for _, f := range flows {
		f.drop()
		f.done = true
	}
	s.pump()
	if len(s.pressing) > 0 {
		t.Errorf("%d flows are left in the list", len(s.pressing))
	}
	urgent.discard()
	c.discard()
	if buffer.Live() != before {
		t.Errorf("%d bytes are left", buffer.Live()-before)
	}
}

// TestPressingIsCut: a message that is longer than what suits a slow link goes by the
// urgent strand although the other takes nothing, and what is left of it later: cut in two,
// neither part is a message that is alone, and neither presses. Nor does it press if it may
// be less than its flow has, which has used up its credit.
func TestPressingIsCut(t *testing.T) {
	before := buffer.Live()
	s, c, urgent := pressed()
	for range 10 { // a link of 0.8 Mbit/s
		c.link.est.Ack(s.now, scheduler.Sample{RTT: 100 * time.Millisecond, Delivered: 10_000, Interval: 100 * time.Millisecond, Round: true})
	}
	c.bulk.free = nil // both batches are at the transport
	f := s.makeFlow(1, 0)
	f.node.Flow = f
	s.order.Join(&f.node, scheduler.Terms{Class: scheduler.Normal, Weight: 1}, s.now)
	skip := buffer.Copy(make([]byte, scheduler.UrgentHead)) // the flow's beginning, which is answered
	f.send.add(f, skip)
	f.send.take(f.send.first, scheduler.UrgentHead)
	f.send.consumed(scheduler.UrgentHead)
	f.send.add(f, buffer.Copy(make([]byte, 2<<10)))
	if f.allowed = f.send.end; f.send.first.presses() {
		t.Fatal("what has used up its flow's credit presses, though there is likely to be more")
	}
	f.allowed = InitialCredit
	if p := f.send.first; chunkSize(c.link.est.Rate()) >= p.seg.Len() || !p.presses() {
		t.Fatalf("%d bytes: %d suit the link, presses %v", p.seg.Len(), chunkSize(c.link.est.Rate()), p.presses())
	}
	s.order.Activate(&f.node, s.now)
	s.notePressing(f)
	s.pump()
	if urgent.log.n != 1 || f.send.head.state != sent || f.send.first == nil {
		t.Errorf("%d records by the urgent strand, wanted the message's beginning", urgent.log.n)
	}
	f.drop()
	f.done = true
	s.pump()
	urgent.discard()
	c.discard()
	if buffer.Live() != before {
		t.Errorf("%d bytes are left", buffer.Live()-before)
	}
}

// oneLink is a session with one link, which carries bulk if it is busy.
func oneLink(carrier Carrier, busy bool) (*Session, *conn) {
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	l := s.findLink(0)
	cn := newConn(l, carrier)
	l.conn, cn.heard = cn, s.now
	if busy {
		cn.bulkAt = s.now
	}
	s.stepHealth(l)
	return s, cn
}

// TestMessageGoesBeside: under load a small message goes by a link's bulk strand, too,
// but not where nothing else is under way or the link is full by more than a chunk.
func TestMessageGoesBeside(t *testing.T) {
	for _, c := range []struct {
		name     string
		busy     bool
		inFlight int
		copies   int
	}{{"under load", true, 0, 1}, {"full", true, startBytes, 1}, {"fuller", true, 1 << 20, 0}, {"idle", false, 0, 0}} {
		t.Run(c.name, func(t *testing.T) {
			before := buffer.Live()
			s, cn := oneLink(twoStrands{}, c.busy)
			cn.inFlight = c.inFlight
			f := s.makeFlow(1, 0)
			f.node.Flow = f
			s.order.Join(&f.node, scheduler.Terms{Class: scheduler.Normal, Weight: 1}, s.now)
			f.send.add(f, buffer.Copy(make([]byte, 1200)))
			s.order.Activate(&f.node, s.now)
			s.notePressing(f)
			s.pump()
			if cn.urgent.log.n != 1 || cn.bulk.log.n != c.copies {
				t.Errorf("%d records by the urgent strand, %d by the other, want 1 and %d", cn.urgent.log.n, cn.bulk.log.n, c.copies)
			}
			f.drop()
			discardSent(t, cn, before)
		})
	}
}

// discardSent gives back what a connection without writers was to send, and itself; no more
// than before may be in use then.
func discardSent(t *testing.T, cn *conn, before int64) {
	t.Helper()
	for _, st := range cn.strands {
		for len(st.out) > 0 {
			b := <-st.out
			for _, r := range b.recs {
				r.Body.Release()
			}
			st.returned(b)
		}
	}
	cn.discard()
	if buffer.Live() != before {
		t.Errorf("%d bytes are left", buffer.Live()-before)
	}
}

// startBytes is what a link may have under way before anything was measured.
const startBytes = 32 << 10
