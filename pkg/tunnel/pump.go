package tunnel

import (
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/stream"
	"hawser/pkg/wire"
	"hawser/scheduler"
)

const codeStopping = uint8(stream.CodeStopping)

// pump gives the links what they have room for: control frames first, then
// flows' chunks in connection order, then acknowledgements that found no
// company.
func (s *Session) pump() {
	s.sendCtrl()
	s.refreshViews()
	s.sendChunks()
	s.sendPressing()
	s.sendTwins()
	for i, l := range s.links {
		c := l.conn
		if c == nil {
			continue
		}
		if s.order.Len() == 0 || s.spared(i) {
			c.rate.limited(c.inFlight)
		}
		c.sendAcks(s.now)
		c.flush()
	}
}

// sendCtrl sends queued control frames on the quickest link that is up.
func (s *Session) sendCtrl() {
	for !s.ctrl.none() {
		c := s.quickest(nil)
		if c == nil {
			s.tryCtrl()
			return
		}
		st := c.control(s.now)
		b := st.batch()
		blk := st.block(b, s.now)
		acks := len(blk)
		blk, to := s.ctrl.append(blk, s.ctrl.gone)
		kept := append(s.takeCtrl(), blk[acks:]...)
		s.ctrl.asked += len(kept)
		st.commit(b, blk, noSeg, entry{at: s.now, ctrl: kept})
		if other := s.quickest(c); s.hurry && other != nil && !other.dearer(c, s.now) {
			st := other.control(s.now)
			b := st.batch()
			st.commit(b, append(st.block(b, s.now), kept...), noSeg, entry{at: s.now})
		}
		s.ctrl.drop(to)
	}
	s.hurry = false
}

// tryCtrl sends copies of the control frames that wait for a link to be up on those that
// are not, once. What is outstanding there has no answer, but that may be because answers
// are held up, and the peer hears all the same: a download's queue on a line that has
// slowed down does so for seconds, until the peer is told that nobody wants it any more.
func (s *Session) tryCtrl() {
	if s.connected() {
		return // what is up has no space for a moment
	}
	for s.ctrl.tried != s.ctrl.end() {
		next := s.ctrl.tried
		for _, l := range s.links {
			if l.conn == nil || l.conn.closed {
				continue
			}
			st := l.conn.control(s.now)
			b := st.batch()
			if b == nil {
				continue
			}
			var blk []byte
			blk, next = s.ctrl.append(st.block(b, s.now), s.ctrl.tried)
			st.commit(b, blk, noSeg, entry{at: s.now})
		}
		if next == s.ctrl.tried {
			return
		}
		s.ctrl.tried = next
	}
}

// takeCtrl and spareCtrl lend link logs the memory for copies of control frames.
func (s *Session) takeCtrl() []byte {
	n := len(s.ctrls)
	if n == 0 {
		return nil
	}
	b := s.ctrls[n-1]
	s.ctrls = s.ctrls[:n-1]
	return b
}

func (s *Session) spareCtrl(b []byte) {
	s.ctrl.asked -= len(b)
	if b != nil && len(s.ctrls) < spareMost {
		s.ctrls = append(s.ctrls, b[:0])
	}
}

// quickest is the connection with the shortest round trip among the cheapest of
// those that are up and have space for a record, but for one.
func (s *Session) quickest(but *conn) *conn {
	var best *conn
	for _, l := range s.links {
		if l.conn == nil || l.conn == but || l.health.State() != scheduler.Up || l.conn.control(s.now).batch() == nil {
			continue
		}
		if best == nil || best.dearer(l.conn, s.now) || !l.conn.dearer(best, s.now) && l.est.SRTT() < best.link.est.SRTT() {
			best = l.conn
		}
	}
	return best
}

// refreshViews makes the values that policies judge by.
func (s *Session) refreshViews() {
	s.views, s.backlog = s.views[:0], backlog{}
	fastest := 0.0
	for i, l := range s.links {
		v := scheduler.Link{
			ID: i, Uplink: wire.UplinkOf(l.info.ID), Tier: l.terms.Tier, Weight: l.terms.Weight, State: l.health.State(), MinRTT: l.est.MinRTT(),
			SRTT: l.est.SRTT(), RTTVar: l.est.RTTVar(), Rate: l.est.Rate(), Swift: l.est.Swift(s.now),
		}
		if c := l.conn; c != nil {
			s.backlog.add(l)
			if s.order.Len() > 0 {
				c.look(s.now)
			}
			v.InFlight, v.Room = c.inFlight, c.room()
			v.Silent = scheduler.Falter(&l.est, scheduler.Silence(s.now, c.evidence()))
			if c.eye.sense.Known {
				v.InFlight = c.underWay()
			}
		}
		l.hint.Apply(&v, s.now)
		v.Blamed, v.Shunned = l.distrust.Score(s.now), s.now.Before(l.distrust.Until())
		s.views = append(s.views, v)
		if v.State == scheduler.Up {
			fastest = max(fastest, v.Rate)
		}
	}
	scheduler.Shun(s.views)
	s.plain.Store(int32(stream.Plain(fastest, plainMost)))
}

// sendChunks lets links pull chunks until none has room or nothing is left. A
// flow that had better wait for a busy link ends its turn, so that a link never
// idles while anybody has something to send.
func (s *Session) sendChunks() {
	s.order.Begin(s.now)
	for s.hasRoom() {
		node := s.order.Next()
		if node == nil {
			return
		}
		f := node.Flow
		p := f.send.ready()
		if p == nil {
			s.order.Deactivate(node)
			s.recount(f)
			continue
		}
		i, ok := s.pick(s.chunk(f, p))
		if !ok {
			s.order.Pass(node)
			continue
		}
		s.order.Charge(node, s.sendPiece(s.links[i].conn.strandFor(p, s.now), &s.views[i], p))
		s.sendTwice(i, p)
		s.askWorker(f)
		s.recount(f)
	}
}

// chunk describes a piece to path choice.
func (s *Session) chunk(f *flow, p *piece) scheduler.Chunk {
	n := p.seg.Len()
	left := max(f.left(), n)
	return scheduler.Chunk{
		Size: n, Left: left, Work: s.lefts.work(left, int(f.counted)), Window: int(f.peer - f.send.base),
		Blocked: !f.send.fin && f.send.end+creditEdge > f.peer, Class: f.node.Class(), Now: s.now, Refused: p.refused,
	}
}

func (s *Session) hasRoom() bool {
	views := s.admitted(impatient())
	for i := range views {
		if views[i].State == scheduler.Up && views[i].Room > 0 {
			return true
		}
	}
	return false
}

// sendPiece puts a piece, cut to what suits the link, on one of its strands, which has
// room for it, and returns its size. What is cut may press no longer, so that strandFor
// could not be asked afterwards.
func (s *Session) sendPiece(st *strand, v *scheduler.Link, p *piece) int {
	again := p.state != unsent
	most := chunkSize(v.Rate)
	if p.off < scheduler.UrgentHead {
		most = min(most, scheduler.UrgentHead)
	}
	p.flow.send.take(p, most)
	n := p.seg.Len()
	if path, ok := s.path.(scheduler.Counter); ok {
		path.Carried(*v, n)
	}
	if again {
		st.conn.link.again += uint64(n)
		s.count.BytesAgain += uint64(n)
	} else {
		s.count.BytesSent += uint64(n)
	}
	s.carryBy(st, v, p)
	if path, ok := s.path.(scheduler.Copier); ok {
		for _, i := range path.Copies(s.admitted(p.chunk()), v.ID) {
			n += s.carryCopy(i, p)
		}
	}
	return max(n, 1)
}

// sendTwice sends a second copy of a piece at once, on another link than i, when
// it is urgent (scheduler.Overdue), and a small one's third behind i's bulk.
func (s *Session) sendTwice(i int, p *piece) {
	if p.copies > 1 {
		return
	}
	n, q := p.seg.Len(), &p.flow.send
	off, alone := int(p.off), q.head == p && p.next == nil && !p.flow.usedUp()
	c := s.links[i].conn
	room := s.views[i].Room > -ordinary
	twin := room && c.urgent.holds(p) && c.takesTwin(s.now)
	beside := room && !twin && (c.urgent.holds(p) || c.twin.holds(p)) && c.takesCopy(s.now)
	if len(s.views) > 1 {
		if j, ok := s.copies.Urgent(s.admitted(p.chunk()), i, off, n, alone); ok && s.links[j].conn.strandFor(p, s.now) != nil {
			s.order.Charge(&p.flow.node, s.carryCopy(j, p))
		}
	}
	switch {
	case twin && s.copies.Beside(off, n, alone):
		c.urgent.log.at(c.urgent.log.n - 1).twin = true
	case beside && s.copies.Beside(off, n, alone):
		s.order.Charge(&p.flow.node, s.carryCopyBy(c.bulk, i, p))
	}
}

// sendTwins sends by the twins of urgent strands what those have carried a moment before
// and has no answer: not at once, as what has lost the one packet, a full queue or the end
// of a burst, would lose the other, and as QUIC would put both into one.
func (s *Session) sendTwins() {
	for i, l := range s.links {
		c := l.conn
		if c == nil || c.twin == nil {
			continue
		}
		for k := range c.urgent.log.n {
			e := c.urgent.log.at(k)
			if !e.twin || s.now.Sub(e.at) < twinDelay {
				continue
			}
			e.twin = false
			if p := e.piece; p != nil && p.state == sent && p.turn == e.turn && c.twin.batch() != nil {
				s.order.Charge(&p.flow.node, s.carryCopyBy(c.twin, i, p))
			}
		}
	}
}

// twinDue is when sendTwins has something to send for a connection; zero: nothing.
func (c *conn) twinDue() time.Time {
	if c.twin == nil {
		return time.Time{}
	}
	for k := range c.urgent.log.n {
		if e := c.urgent.log.at(k); e.twin {
			return e.at.Add(twinDelay)
		}
	}
	return time.Time{}
}

// twinDelay is the time after which a message goes by the twin, too.
const twinDelay = 3 * time.Millisecond

// carryCopy sends another copy of a piece on link i and returns its size.
func (s *Session) carryCopy(i int, p *piece) int {
	return s.carryCopyBy(s.links[i].conn.strandFor(p, s.now), i, p)
}

// carryCopyBy is carryCopy by one of the link's strands.
func (s *Session) carryCopyBy(st *strand, i int, p *piece) int {
	n := p.seg.Len()
	s.count.BytesAgain += uint64(n)
	s.links[i].again += uint64(n)
	s.carryBy(st, &s.views[i], p)
	return n
}

// carryBy logs and sends one copy of a piece by a strand.
func (s *Session) carryBy(st *strand, v *scheduler.Link, p *piece) {
	c, b := st.conn, st.batch()
	n := p.seg.Len()
	blk := wire.AppendData(st.block(b, s.now), uint64(p.flow.id), p.off, n, p.fin)
	p.copies++
	pred := v.ETA(n) + v.MinRTT/2
	before := c.inFlight
	st.commit(b, blk, p.seg.Share(), entry{at: s.now, piece: p, turn: p.turn, pred: pred})
	v.InFlight += c.inFlight - before
	v.Room -= c.inFlight - before
	if st.batch() == nil {
		st.flush()
		if c.bulk.batch() == nil {
			v.Room = 0
		}
	}
}

// chunkSize is how much one chunk may occupy a link: ten milliseconds, between
// one packet and one sealed record.
func chunkSize(rate float64) int {
	return min(max(int(rate*chunkTime.Seconds()), chunkMin), stream.Plain(rate, plainMost)+buffer.Slack)
}

const (
	chunkTime = 10 * time.Millisecond
	chunkMin  = 1200
	plainMost = wire.MaxBody - buffer.Slack // bytes in a record: one flow by hubs has less with 64 KB
	ordinary  = buffer.Plain + buffer.Slack // bytes of a chunk that holds an ordinary record
)
