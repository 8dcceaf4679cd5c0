package tunnel

import (
	"time"

	"hawser/pkg/slim"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

// tellDelay is how long news of consumed bytes may wait for company.
const tellDelay = 10 * time.Millisecond

// makeFlow returns a new flow's state.
func (s *Session) makeFlow(id stream.ID, worker int) *flow {
	f := &flow{id: id, worker: worker, peer: s.initial.peer, credit: newCredit(s.cfg.Budget, s.initial.own)}
	f.node.Flow = f
	f.send.free = &s.pieces
	s.swollen = true
	s.cfg.Budget.fresh.Come(s.now.UnixMilli())
	return f
}

// obey carries out one command of a worker. Commands for flows that are
// already gone are normal: the peer's reset crossed them.
func (s *Session) obey(c *stream.Command) {
	f := s.flows[c.Flow]
	if f == nil || f.done {
		c.Seg.Release()
		return
	}
	switch c.Kind {
	case stream.CmdOpen:
		s.open(f, c)
	case stream.CmdAccepted:
		s.hurry = true
		s.addCtrl(func(b []byte) []byte { return wire.AppendAccepted(b, uint64(f.id), c.Bytes) })
	case stream.CmdSend:
		s.cfg.Budget.keepMore(c.Seg.Len())
		if f.send.held > 0 {
			c.Seg = s.crumbs.keep(c.Seg)
		}
		f.send.add(f, c.Seg)
		s.order.Activate(&f.node, s.now)
		s.recount(f)
		s.notePressing(f)
	case stream.CmdFin:
		f.send.close(f)
		s.order.Activate(&f.node, s.now)
	case stream.CmdConsumed:
		s.consumed(f, c.Bytes, c.Room)
	case stream.CmdReject:
		s.reject(f, c.Bytes)
	case stream.CmdReset:
		s.countReset(c.Code)
		if c.Code != stream.CodeAbort || !s.linger(f) {
			s.sayReset(f, c.Code)
		}
	case stream.CmdDone:
		f.done = true
		s.markDirty(f)
		s.retire(f)
	}
	c.Seg = noSeg
}

// open tells the peer of a new flow (PROTOCOL.md section 5.2) and both sides
// of its credit.
func (s *Session) open(f *flow, c *stream.Command) {
	f.opened = true
	s.count.FlowsOpened++
	dst, src, terms := c.Dst, c.Src, c.Terms
	if terms == (wire.Terms{}) {
		terms = wire.DefaultTerms()
	}
	s.hurry = true
	s.addCtrl(func(b []byte) []byte { return wire.AppendOpen(b, uint64(f.id), dst, src, terms) })
	s.join(f, src.Addr(), terms)
	s.welcome(f)
}

// welcome gives a new flow its first credit in both directions.
func (s *Session) welcome(f *flow) {
	f.allowed = min(f.peer, s.keep(f))
	s.emit(f.worker, stream.Event{Kind: stream.EventCredit, Flow: f.id, Limit: f.allowed})
	if uint64(f.credit.window) > f.credit.limit {
		s.grant(f)
	}
}

// consumed moves the flow's credit by n opened bytes; room is what the party takes now if
// it reads slowly.
func (s *Session) consumed(f *flow, n int, room uint16) {
	before := f.heldIn()
	f.credit.consume(n, s.now, s.roundTrip(), s.cfg.Budget)
	if f.room = 0; s.cfg.Budget.scarce() {
		f.room = room
	}
	s.cfg.Budget.move(before, f.heldIn())
	if f.via != nil && f.heldIn() == 0 {
		s.spareVia(f)
	}
	s.markDirty(f)
}

// roundTrip is the largest round trip among live links: what credit must span.
func (s *Session) roundTrip() (rtt time.Duration) {
	for _, l := range s.links {
		if l.conn != nil {
			rtt = max(rtt, l.est.SRTT())
		}
	}
	return rtt
}

// markDirty notes that the peer should hear of consumed bytes. Who reads slowly waits for
// nothing, so that his credit leaves with that of others.
func (s *Session) markDirty(f *flow) {
	if f.room == 0 && f.credit.urgent() {
		s.grant(f)
		return
	}
	if f.dirty {
		return
	}
	if len(s.dirty) == 0 {
		s.tellAt = s.now.Add(tellDelay)
	}
	f.dirty = true
	s.dirty = append(s.dirty, f)
}

// grant tells the peer what was consumed and what it may send.
func (s *Session) grant(f *flow) {
	f.credit.stretch(f.room)
	consumed, limit := f.credit.grant()
	if f.recv.Ended() && f.finOut && consumed == f.recv.Offset() {
		consumed++ // the end of the stream counts as one more byte
		f.finTold = true
	}
	s.addCtrl(func(b []byte) []byte { return wire.AppendCredit(b, uint64(f.id), consumed, limit) })
}

// tellCredit grants to all flows in the dirty list when it is time.
func (s *Session) tellCredit() {
	if len(s.dirty) == 0 || s.now.Before(s.tellAt) {
		return
	}
	for i, f := range s.dirty {
		f.dirty = false
		s.dirty[i] = nil
		if s.flows[f.id] == f && f.needsTelling() {
			s.grant(f)
			s.retire(f)
		}
	}
	s.dirty = s.dirty[:0]
}

// tellInitial tells the peer with how much credit new flows begin when that has
// changed: the budget has become scarce, or is free again.
func (s *Session) tellInitial() {
	if number, limit, ok := s.initial.say(s.cfg.Budget.share()); ok {
		s.addCtrl(func(b []byte) []byte { return wire.AppendCredit(b, 0, number, limit) })
	}
}

// retire forgets a flow that nobody needs any more.
func (s *Session) retire(f *flow) {
	if f.finished() {
		s.dropFlow(f)
	}
}

// dropFlow forgets a flow now.
func (s *Session) dropFlow(f *flow) {
	s.count.Duplicates += f.recv.Duplicates()
	s.order.Leave(&f.node, s.now)
	s.cfg.Budget.keepMore(-f.send.held)
	s.cfg.Budget.move(f.heldIn(), 0)
	f.credit.read.End(s.now.UnixMilli(), 1, &s.cfg.Budget.in)
	f.read.End(s.now.UnixMilli(), 1, &s.cfg.Budget.out)
	if !f.opened && !s.cfg.Edge {
		s.early--
	}
	f.drop()
	f.done = true
	s.vacate(f)
	s.recount(f)
	delete(s.flows, f.id)
	s.flows = slim.Map(s.flows, &s.peak)
	if len(s.flows) == 0 {
		s.crumbs.drop()
	}
}

func (s *Session) countReset(code stream.Code) {
	s.count.FlowsReset++
	if code == stream.CodeRefused || code == stream.CodeUnreachable || code == stream.CodeDenied {
		s.count.FlowsRefused++
	}
}
