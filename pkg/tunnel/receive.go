package tunnel

import (
	"fmt"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/proof"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

var noSeg buffer.Seg

// receive works through a batch and gives it back to its reader. A violation
// ends the connection; what it brought before stays good.
func (s *Session) receive(b *rxBatch) {
	st := b.strand
	c := st.conn
	if c.candidate && !c.closed {
		s.promote(c)
	}
	for i := range b.recs {
		r := &b.recs[i]
		if c.closed {
			break
		}
		if err := s.record(st, b.at, b.frames[r.from:r.to], r.body); err != nil {
			s.count.Violations++
			s.closeConn(c, err)
		}
		r.body = noSeg
	}
	b.release()
	st.rx <- b // never blocks: rx has a slot for each batch
}

// record takes in one record. It owns body.
func (s *Session) record(st *strand, at time.Time, frames []wire.Frame, body buffer.Seg) error {
	c := st.conn
	if err := s.hears(); err != nil {
		body.Release()
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	st.recvSeq++
	c.speaks(at)
	if st.apart != nil {
		st.apart.spoke = at
	}
	if st == c.bulk && body.Len() > ackSmall {
		c.bulkAt = at
	}
	if !c.eye.sense.Known {
		c.heard = at
	}
	c.link.gotBytes += uint64(body.Len()) + recordOverhead
	for i := range frames {
		f := &frames[i]
		if f.Kind != wire.KindAck && f.Kind != wire.KindUrgent && f.Kind != wire.KindTwin {
			st.oweAck(f.Kind, body.Len(), at)
		}
		var seg buffer.Seg
		if f.Kind == wire.KindData && f.Length > 0 {
			seg, body = body, noSeg
		}
		if err := s.frame(st, f, seg); err != nil {
			body.Release()
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
	body.Release()
	return nil
}

// frame obeys one frame. It owns seg.
func (s *Session) frame(st *strand, f *wire.Frame, seg buffer.Seg) error {
	c := st.conn
	switch f.Kind {
	case wire.KindAck:
		return s.acked(c.bulk, f.Seq, time.Duration(f.Delay)*time.Microsecond)
	case wire.KindUrgent:
		of := c.urgent
		if st.apart != nil {
			of = st
		}
		if of == c.bulk || of.apart != nil && of != st {
			return errNoUrgent
		}
		return s.acked(of, f.Seq, time.Duration(f.Delay)*time.Microsecond)
	case wire.KindTwin:
		if c.twin == nil || c.twin.apart != nil {
			return errNoUrgent
		}
		return s.acked(c.twin, f.Seq, time.Duration(f.Delay)*time.Microsecond)
	case wire.KindOpen:
		return s.peerOpens(f)
	case wire.KindData:
		return s.data(c, f, seg)
	case wire.KindLink:
		if s.cfg.Edge {
			return fmt.Errorf("the cloud speaks of link %d", f.Link.Link)
		}
		s.linkTold(f.Link)
	case wire.KindStop:
		s.stopped = fmt.Errorf("%w: %v", ErrPeerStop, stream.Code(f.Code))
	case wire.KindAccepted, wire.KindCredit, wire.KindReset, wire.KindResend:
		return s.flowFrame(f)
	}
	return nil
}

// flowFrame obeys a control frame of one flow. A frame for an unknown flow is
// late news and ignored, but for a RESET that overtook its OPEN.
func (s *Session) flowFrame(f *wire.Frame) error {
	id := stream.ID(f.Flow)
	if id == 0 && f.Kind == wire.KindCredit {
		s.initial.hear(f.Offset, f.Limit)
		return nil
	}
	fl := s.flows[id]
	if fl == nil {
		if f.Kind == wire.KindReset {
			return s.use(id)
		}
		return nil
	}
	switch f.Kind {
	case wire.KindAccepted:
		fl.stands = true
		s.emit(fl.worker, stream.Event{Kind: stream.EventAccepted, Flow: id, Limit: f.Limit})
	case wire.KindReset:
		s.countReset(stream.Code(f.Code))
		if fl.opened && !fl.done {
			s.emit(fl.worker, stream.Event{Kind: stream.EventReset, Flow: id, Code: stream.Code(f.Code)})
		}
		s.dropFlow(fl)
		return s.use(id)
	case wire.KindResend:
		return s.sendAnew(fl, f.Offset)
	case wire.KindCredit:
		return s.peerCredit(fl, f)
	}
	return nil
}

// use notes that a flow ID was used, where the peer chooses them.
func (s *Session) use(id stream.ID) error {
	if !s.cfg.Edge {
		s.used.add(id)
	}
	return s.used.orderly()
}

// peerCredit frees what the peer has opened and passes the limit on.
func (s *Session) peerCredit(fl *flow, f *wire.Frame) error {
	before, base := fl.send.held, fl.send.base
	if f.Offset > fl.send.base && !fl.send.consumed(f.Offset) {
		return fmt.Errorf("flow %d: consumed %d of %d sent", fl.id, f.Offset, fl.send.next)
	}
	fl.send.advance(s.now)
	s.cfg.Budget.keepMore(fl.send.held - before)
	fl.read.Pass(int(min(fl.send.base-base, proof.After)), s.now.UnixMilli(), 1, &s.cfg.Budget.out)
	fl.peer = max(fl.peer, f.Limit)
	if fl.dying && fl.send.held == 0 {
		s.sayReset(fl, stream.CodeAbort)
		return nil
	}
	s.askWorker(fl)
	s.retire(fl)
	return nil
}

// peerOpens makes the flow known to a worker. Data may have come before.
func (s *Session) peerOpens(f *wire.Frame) error {
	if s.cfg.Edge {
		return fmt.Errorf("flow %d opened by the cloud", f.Flow)
	}
	id := stream.ID(f.Flow)
	if !s.used.add(id) {
		return nil // a second copy of the OPEN
	}
	if s.flows[id] != nil {
		s.early--
	}
	fl := s.embryo(id)
	if fl == nil {
		return s.turnAway(id)
	}
	fl.opened = true
	s.count.FlowsOpened++
	terms := f.Terms
	if s.cfg.Terms != nil {
		terms = s.cfg.Terms(terms, f.Src.Addr(), f.Dst)
	}
	s.join(fl, f.Src.Addr(), terms)
	s.emit(fl.worker, stream.Event{Kind: stream.EventOpen, Flow: id, Dst: f.Dst, Src: f.Src})
	s.welcome(fl)
	s.advance(fl)
	return s.used.orderly()
}

// embryo returns the flow, made now unless data came before its OPEN; nil: there is no place
// for it.
func (s *Session) embryo(id stream.ID) *flow {
	fl := s.flows[id]
	if fl == nil {
		worker := s.cfg.Sink.Place(id)
		if !s.occupy(worker) {
			return nil
		}
		fl = s.makeFlow(id, worker)
		s.flows[id] = fl
	}
	return fl
}

// data takes in a chunk.
func (s *Session) data(c *conn, f *wire.Frame, seg buffer.Seg) error {
	id := stream.ID(f.Flow)
	fl := s.flows[id]
	if fl == nil {
		if s.cfg.Edge || s.used.has(id) {
			s.count.Duplicates += uint64(seg.Len())
			seg.Release()
			return nil
		}
		if s.early >= earlyMost {
			seg.Release()
			return s.turnAway(id)
		}
		if fl = s.embryo(id); fl == nil {
			seg.Release()
			return s.turnAway(id)
		}
		s.early++
	}
	if fl.done {
		seg.Release()
		if !fl.dying {
			s.markDirty(fl)
		}
		return nil
	}
	before, n := fl.heldIn(), uint64(seg.Len())
	if (before > 0 || !fl.opened || f.Offset+n > fl.credit.limit) && s.cfg.Budget.overdrawn() {
		seg.Release()
		return s.giveUp(fl, stream.CodeResources)
	}
	if before > 0 {
		seg = s.crumbs.keep(seg)
	}
	if err := fl.recv.Insert(&s.tables, f.Offset, seg, f.Flags&wire.FlagFin != 0, max(fl.credit.limit, InitialCredit)); err != nil {
		return fmt.Errorf("flow %d: %w", id, err)
	}
	fresh := fl.heldIn() - before
	if fresh > 0 {
		if fl.via == nil {
			fl.via = s.takeVia()
		}
		fl.note(c, f.Offset, f.Offset+n)
	}
	fl.stands = true
	s.cfg.Budget.move(before, before+fresh)
	s.count.BytesReceived += uint64(fresh)
	s.copies.Received(fresh)
	s.advance(fl)
	if fl.credit.consumed == fl.recv.Offset() && fl.credit.bridge(fl.recv.Held(), s.now, s.cfg.Budget) {
		s.grant(fl)
	}
	return nil
}

// giveUp resets a flow towards both ends, for want of memory or as the peer asks for what no
// other does.
func (s *Session) giveUp(fl *flow, code stream.Code) error {
	s.countReset(code)
	if fl.opened && !fl.done {
		s.emit(fl.worker, stream.Event{Kind: stream.EventReset, Flow: fl.id, Code: code})
	}
	s.sayReset(fl, code)
	return s.use(fl.id)
}

// advance hands what is in order to the worker.
func (s *Session) advance(fl *flow) {
	if !fl.opened {
		return
	}
	for {
		seg, ok := fl.recv.Next(&s.tables)
		if !ok {
			break
		}
		s.emit(fl.worker, stream.Event{Kind: stream.EventData, Flow: fl.id, Seg: seg})
	}
	if fl.recv.Ended() && !fl.finOut {
		fl.finOut = true
		s.emit(fl.worker, stream.Event{Kind: stream.EventFin, Flow: fl.id})
		s.markDirty(fl)
	}
}

// acked takes the records up to number seq off the strand's log.
func (s *Session) acked(st *strand, seq uint64, delay time.Duration) error {
	if seq > st.log.count {
		return fmt.Errorf("acknowledges record %d of %d", seq, st.log.count)
	}
	c := st.conn
	var newest entry
	for st.log.n > 0 && st.log.at(0).seq <= seq {
		newest = st.log.pop()
		s.spareCtrl(newest.ctrl)
		c.inFlight -= newest.size
		c.rate.delivered += uint64(newest.size)
		if p := newest.piece; p != nil {
			p.copies--
			if p.acked(newest.turn); p.state == arrived && p.flow.send.block == p {
				p.flow.send.advance(s.now)
			}
			s.pieces.put(p)
			s.copies.Delivered(newest.size)
		}
	}
	if newest.seq > 0 {
		c.heard, st.answered = s.now, s.now
		if st != c.bulk && c.bulk.log.n > 0 {
			return nil // what does not wait behind bulk says little of a link that is busy with it
		}
		sample := c.rate.sample(s.now, newest, delay)
		sample.InFlight = c.inFlight
		c.link.trips++
		c.link.tripTime += sample.RTT
		if c.link.est.WantsPath(s.now) {
			c.look(s.now)
			sample.Path = c.eye.sense.RTT
		}
		c.link.est.Ack(s.now, sample)
		c.pace()
	}
	return nil
}
