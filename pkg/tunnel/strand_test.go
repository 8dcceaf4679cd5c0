package tunnel

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// twoStrands is a carrier with an urgent strand; nobody calls the rest.
type twoStrands struct{ simCarrier }

type otherStrand struct{ Strand }

func (twoStrands) Urgent() Strand { return otherStrand{} }
func (twoStrands) Twin() Strand   { return nil }

// TestStrandOfPieces: flows' beginnings and small messages are urgent, bulk and
// the background are not, and what is urgent goes by the bulk strand rather than
// wait for room.
func TestStrandOfPieces(t *testing.T) {
	before := buffer.Live()
	c := newConn(&link{}, twoStrands{})
	now := time.Now()
	f := &flow{id: 1, allowed: InitialCredit}
	f.send.add(f, buffer.Copy(make([]byte, 12000)))
	first := f.send.head
	f.send.take(first, scheduler.UrgentHead)
	rest := first.next
	if c.strandFor(first, now) != c.urgent || c.strandFor(rest, now) != c.bulk {
		t.Error("a flow's first bytes are not urgent, or what follows them is")
	}
	f.send.take(rest, 12000)
	f.send.consumed(12000)
	f.send.add(f, buffer.Copy(make([]byte, 1000)))
	if c.strandFor(f.send.head, now) != c.urgent {
		t.Error("a small message is not urgent")
	}
	f.send.add(f, buffer.Copy(make([]byte, 1000)))
	if c.strandFor(f.send.head, now) != c.bulk {
		t.Error("a small piece with more behind it is urgent")
	}
	order := scheduler.NewDRR[*flow](0)
	slow := &flow{id: 2}
	order.Join(&slow.node, scheduler.Terms{Class: scheduler.Background, Weight: 1}, time.Now())
	slow.send.add(slow, buffer.Copy(make([]byte, 10)))
	if c.strandFor(slow.send.head, now) != c.bulk {
		t.Error("the background is urgent")
	}
	c.urgent.free, c.urgent.filling = nil, nil
	if c.strandFor(first, now) != c.bulk {
		t.Error("what is urgent waits though the bulk strand has room")
	}
	c.bulk.free, c.bulk.filling = nil, nil
	if c.strandFor(first, now) != nil {
		t.Error("a strand without room takes a piece")
	}
	f.drop()
	slow.drop()
	if buffer.Live() != before {
		t.Error("slabs are left")
	}
}

// TestAcksOfStrands: acknowledgements of both strands travel on the urgent one,
// and each takes records off its own log (PROTOCOL.md section 5.1).
func TestAcksOfStrands(t *testing.T) {
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	c := newConn(&link{}, twoStrands{})
	now := s.now
	for _, st := range c.strands {
		st.commit(st.batch(), wire.AppendPing(nil), noSeg, entry{at: now})
		st.recvSeq = 3
		st.oweAck(wire.KindPing, 0, now)
	}
	c.urgent.recvSeq = 7
	if blk := c.bulk.block(c.bulk.batch(), now); len(blk) != 0 || !c.bulk.ackDue {
		t.Error("the bulk strand carries acknowledgements")
	}
	blk := c.urgent.block(c.urgent.batch(), now)
	got := map[wire.Kind]uint64{}
	for len(blk) > 0 {
		f, rest, err := wire.Next(blk)
		if err != nil {
			t.Fatal(err)
		}
		got[f.Kind], blk = f.Seq, rest
	}
	if len(got) != 2 || got[wire.KindAck] != 3 || got[wire.KindUrgent] != 7 || c.bulk.ackDue || c.urgent.ackDue {
		t.Errorf("acknowledges %v", got)
	}
	if err := s.frame(c.bulk, &wire.Frame{Kind: wire.KindUrgent, Seq: 1}, noSeg); err != nil || c.urgent.log.n != 0 || c.bulk.log.n != 1 {
		t.Errorf("%v; %d urgent records, %d others are unanswered", err, c.urgent.log.n, c.bulk.log.n)
	}
	if err := s.frame(c.bulk, &wire.Frame{Kind: wire.KindUrgent, Seq: 2}, noSeg); err == nil {
		t.Error("acknowledges a record that was not sent")
	}
	one := newConn(&link{}, simCarrier{})
	if err := s.frame(one.bulk, &wire.Frame{Kind: wire.KindUrgent}, noSeg); !errors.Is(err, errNoUrgent) {
		t.Errorf("URGENT without an urgent strand: %v", err)
	}
	if err := s.frame(c.bulk, &wire.Frame{Kind: wire.KindTwin}, noSeg); !errors.Is(err, errNoUrgent) {
		t.Errorf("TWIN without a twin: %v", err)
	}
}

// TestBodyOfOneFrame: a body belongs to the frame that names its length, also where another
// flow's end stands before it in the record, and to no two (PROTOCOL.md section 5).
func TestBodyOfOneFrame(t *testing.T) {
	before := buffer.Live()
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	c := newConn(&link{}, simCarrier{})
	blk := wire.AppendData(nil, 1, 0, 0, true)
	blk = wire.AppendData(blk, 2, 0, 3, false)
	var b rxBatch
	if err := b.decode(blk, buffer.Copy([]byte("abc"))); err != nil {
		t.Fatal(err)
	}
	if err := s.record(c.bulk, s.now, b.frames, b.recs[0].body); err != nil {
		t.Fatal(err)
	}
	if one, two := s.flows[1].recv.Held(), s.flows[2].recv.Held(); one != 0 || two != 3 {
		t.Errorf("the flows got %d and %d bytes, want 0 and 3", one, two)
	}
	b = rxBatch{}
	blk = wire.AppendData(wire.AppendData(nil, 1, 0, 1, false), 2, 3, 2, false)
	if err := b.decode(blk, buffer.Copy([]byte("abc"))); !errors.Is(err, errBody) {
		t.Errorf("a body of two frames: %v", err)
	}
	b.release()
	for _, f := range s.flows {
		s.dropFlow(f)
	}
	if live := buffer.Live() - before; live != 0 {
		t.Errorf("%d bytes of slabs are left", live)
	}
}

// chattyStrand brings records full of frames of a byte, without end.
type chattyStrand struct{ Strand }

func (chattyStrand) Receive() (wire.Record, error) {
	return wire.Record{Block: bytes.Repeat([]byte{byte(wire.KindPing)}, wire.MaxBlock)}, nil
}

func (chattyStrand) Buffered() bool { return true }

// TestChatty: what a peer says in tiny frames takes no memory that it has not sent for more
// than a record, and nothing stays of it.
func TestChatty(t *testing.T) {
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	c := newConn(&link{}, simCarrier{})
	for range 2 * rxBatches {
		b := <-c.bulk.rx
		if err := b.fill(chattyStrand{}); err != nil {
			t.Fatal(err)
		}
		if n := len(b.frames); n > rxFrames+wire.MaxBlock {
			t.Fatalf("%d frames in a batch", n)
		}
		b.at = s.now
		s.receive(b)
	}
	for range rxBatches {
		if b := <-c.bulk.rx; cap(b.frames) > 2*rxFrames {
			t.Errorf("room for %d frames is kept", cap(b.frames))
		}
	}
	if s.count.Violations != 0 {
		t.Error("asking often is no violation")
	}
}
