package tunnel

import (
	"errors"
	"testing"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

// TestDataWithoutOpen: of so many flows data may come before the OPEN, and no more. Those
// that open, and those that are reset, make room for others, and who was turned away is
// not opened later.
func TestDataWithoutOpen(t *testing.T) {
	before := buffer.Live()
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	c := newConn(&link{}, simCarrier{})
	data := func(id int) {
		t.Helper()
		f := wire.Frame{Kind: wire.KindData, Flow: uint64(id), Length: 1}
		if err := s.frame(c.bulk, &f, buffer.Copy([]byte{1})); err != nil {
			t.Fatal(err)
		}
	}
	open := func(id int) {
		t.Helper()
		if err := s.frame(c.bulk, &wire.Frame{Kind: wire.KindOpen, Flow: uint64(id), Dst: server, Src: client, Terms: wire.DefaultTerms()}, noSeg); err != nil {
			t.Fatal(err)
		}
	}
	const left, more = 100, 20
	s.early = earlyMost - left // others
	for id := 1; id <= left+more; id++ {
		data(id)
	}
	if len(s.flows) != left || s.early != earlyMost || s.count.FlowsReset != more {
		t.Fatalf("%d flows, %d early, %d reset", len(s.flows), s.early, s.count.FlowsReset)
	}
	if open(left + 1); s.flows[left+1] != nil {
		t.Error("a flow was opened that had been turned away")
	}
	open(1)
	open(left + more + 1)
	if err := s.flowFrame(&wire.Frame{Kind: wire.KindReset, Flow: 2}); err != nil || s.early != earlyMost-2 {
		t.Errorf("%v, %d early after one has opened and one was reset", err, s.early)
	}
	if data(left + more + 2); s.flows[left+more+2] == nil {
		t.Error("there is no room for another")
	}
	for _, f := range s.flows {
		s.dropFlow(f)
	}
	if s.early != earlyMost-left {
		t.Errorf("%d early of none", s.early-(earlyMost-left))
	}
	s.deliver()
	if live := buffer.Live() - before; live != 0 {
		t.Errorf("%d bytes of slabs are left", live)
	}
}

// TestGaps: the numbers of flows may come in any order, but for so many gaps that a session
// would not forget.
func TestGaps(t *testing.T) {
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	reset := func(id int) error {
		return s.flowFrame(&wire.Frame{Kind: wire.KindReset, Flow: uint64(id)})
	}
	id := 0
	for range gapsMost {
		id += 2
		if err := reset(id); err != nil {
			t.Fatalf("flow %d: %v", id, err)
		}
	}
	if err := reset(id + 2); !errors.Is(err, errGaps) {
		t.Errorf("%d gaps: %v", len(s.used.spans), err)
	}
	if err := reset(3); err != nil || len(s.used.spans) != gapsMost || !s.used.has(stream.ID(id)) {
		t.Errorf("%v, %d ranges where one gap is closed", err, len(s.used.spans))
	}
	f := s.makeFlow(stream.ID(id+4), 0) // data that has come early
	s.flows[f.id], s.early = f, 1
	if err := reset(id + 4); !errors.Is(err, errGaps) || s.early != 0 {
		t.Errorf("a flow whose data has come: %v", err)
	}
}

// TestUnusedConnections: of connections that nothing came by the oldest end where there are
// too many.
func TestUnusedConnections(t *testing.T) {
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	var all []*conn
	for range candidatesMost + 3 {
		c := newConn(&link{}, simCarrier{})
		all = append(all, c)
		s.attach(c)
	}
	for i, c := range all {
		if c.closed != (i < 3) {
			t.Errorf("connection %d of %d: closed: %v", i, len(all), c.closed)
		}
	}
	if len(s.candidates) != candidatesMost || len(s.links) != 1 {
		t.Errorf("%d candidates of %d links", len(s.candidates), len(s.links))
	}
}

// TestDeaf: what a peer asks for whom nothing can be told does not pile up for ever, also
// where it comes again by other connections.
func TestDeaf(t *testing.T) {
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	open := []wire.Frame{{Kind: wire.KindData, Length: 1}}
	id, most := uint64(0), tellMost+2*wire.ResetSize
	s.early = earlyMost // so each of them is reset
	for s.ctrl.wait() < tellMost-100*wire.ResetSize {
		s.addCtrl(func(b []byte) []byte { return append(b, make([]byte, ctrlMax)...) })
	}
	for range 3 {
		c := newConn(&link{}, simCarrier{})
		var err error
		for ; err == nil && s.ctrl.wait() <= most; id++ {
			open[0].Flow = id + 1
			err = s.record(c.bulk, s.now, open, buffer.Copy([]byte{1}))
		}
		if !errors.Is(err, errDeaf) || s.ctrl.wait() > most {
			t.Fatalf("%v; %d bytes wait", err, s.ctrl.wait())
		}
	}
}

// TestDeafToAnswers: nor does it where the peer's transport takes what it is told, and it never
// says that it has it.
func TestDeafToAnswers(t *testing.T) {
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	c := newConn(&link{}, simCarrier{})
	s.attach(c)
	data := []wire.Frame{{Kind: wire.KindData, Length: 1}}
	s.early = earlyMost // so each of them is reset
	s.promote(c)
	for id := range uint64(2 * tellMost / wire.ResetSize) {
		data[0].Flow = id + 1
		if err := s.record(c.bulk, s.now, data, buffer.Copy([]byte{1})); err != nil {
			if !errors.Is(err, errDeaf) {
				t.Error(err)
			}
			return
		}
		if id%100 == 0 {
			s.sendCtrl()
			for _, st := range c.strands {
				for st.flush(); len(st.out) > 0; {
					st.returned(<-st.out)
				}
			}
		}
	}
	t.Errorf("%d bytes wait, %d have no answer", s.ctrl.wait(), s.ctrl.asked)
}

// TestMuchToTell: what waits is told in its order, whole frames in each record, and to take a
// record's worth costs no more where more waits behind it.
func TestMuchToTell(t *testing.T) {
	var q ctrlQueue
	told, said := uint64(0), uint64(0)
	add := func(n int) {
		for range n {
			said++
			q.add(func(b []byte) []byte { return wire.AppendReset(b, said, 7) })
		}
	}
	moved := 0
	take := func() {
		before := len(q.bytes)
		blk, to := q.append(nil, q.gone)
		q.drop(to)
		if len(q.bytes) < before {
			moved += len(q.bytes)
		}
		if len(blk) > ctrlMax || len(blk) <= ctrlMax-wire.ResetSize && !q.none() {
			t.Fatalf("a record of %d bytes, %d wait", len(blk), q.wait())
		}
		for len(blk) > 0 {
			f, rest, err := wire.Next(blk)
			if told++; err != nil || f.Flow != told {
				t.Fatalf("told of flow %d, want %d: %v", f.Flow, told, err)
			}
			blk = rest
		}
	}
	const many = 200_000
	for add(many); !q.none(); add(3) {
		take()
		if said > many+10_000 {
			for !q.none() {
				take()
			}
			break
		}
	}
	if told != said || q.wait() != 0 {
		t.Errorf("told of %d, want %d; %d bytes wait", told, said, q.wait())
	}
	if all := int(said) * wire.ResetSize; moved > 2*all {
		t.Errorf("%d bytes were moved to tell %d", moved, all)
	}
	q.rest()
	if cap(q.bytes) > 0 || q.tried != q.end() {
		t.Errorf("at rest: %+v", q)
	}
}

// TestBroughtAgain: of bytes that come again and again nothing more is noted, and what was
// noted of bytes that come one by one is not looked through for each.
func TestBroughtAgain(t *testing.T) {
	before := buffer.Live()
	s := newBareSim(1, scheduler.Kinds{}).cloud.s
	conns := []*conn{newConn(&link{}, simCarrier{}), newConn(&link{}, simCarrier{})}
	data := func(c *conn, off int) {
		t.Helper()
		f := wire.Frame{Kind: wire.KindData, Flow: 1, Offset: uint64(off), Length: 1}
		if err := s.frame(c.bulk, &f, buffer.Copy([]byte{1})); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10_000 {
		data(conns[i%2], 0)
	}
	fl := s.flows[1]
	if len(fl.via) != 1 {
		t.Errorf("a byte that has come 10000 times: %d notes", len(fl.via))
	}
	const many = InitialCredit
	for i := 1; i < many; i++ {
		data(conns[i%2], i)
	}
	if n := len(fl.via); n != many {
		t.Errorf("%d notes of %d", n, many)
	}
	if got := fl.blame(5, 15); len(got) != 2 || got[0].bytes+got[1].bytes != 10 {
		t.Errorf("who has brought 10 bytes: %v", got)
	}
	fl.credit.consumed = many - 1
	if data(conns[0], many-1); len(fl.via) > many {
		t.Errorf("%d notes where nearly all was consumed", len(fl.via))
	}
	s.spareVia(fl)
	for _, v := range s.vias {
		if cap(v) > 4*viaRoom {
			t.Errorf("room for %d notes is kept for others", cap(v))
		}
	}
	s.dropFlow(fl)
	s.deliver()
	if live := buffer.Live() - before; live != 0 {
		t.Errorf("%d bytes of slabs are left", live)
	}
}
