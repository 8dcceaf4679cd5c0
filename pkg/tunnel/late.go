package tunnel

import (
	"time"

	"hawser/scheduler"
)

// resendLate sends second copies of chunks that hold up their flows and are
// overdue (scheduler.Overdue): on another link, or by the same link's bulk connection
// what an urgent connection is late with, and by another stream of it what bulk is stuck with.
func (s *Session) resendLate() {
	viewed := false
	for i, l := range s.links {
		c := l.conn
		if c == nil || l.health.State() != scheduler.Up || len(s.links) < 2 && c.urgent == c.bulk {
			continue
		}
		if !viewed {
			s.refreshViews()
			viewed = true
		}
		for _, st := range c.strands {
			s.resendLateOn(i, st)
		}
	}
}

func (s *Session) resendLateOn(i int, st *strand) {
	c := st.conn
	if st == c.twin {
		return // what it has is a copy, or has one: a third is too much where lines are late by themselves
	}
	rttvar, mending := c.link.est.RTTVar(), time.Duration(0)
	if st.apart == nil {
		mending = scheduler.Mending(c.eye.sense, s.now.Sub(c.heard))
	}
	if mending > 0 {
		rttvar = 0 // most of it is losses that were made good
	}
	doubted := st == c.bulk && c.link.est.Doubted()
	ahead, silence, seen, copied := 0, s.now.Sub(c.heard), 0, 0
	for k := 0; k < st.log.n && seen < lateScan; k++ {
		e := st.log.at(k)
		ahead += e.size
		age := s.now.Sub(e.at)
		if age < lateFloor {
			return // the log is in order of time
		}
		p, pred := e.piece, e.pred+mending
		if p == nil || e.moved || p.state != sent || p.again {
			if p != nil && e.moved && p.state == sent {
				copied++
			}
			continue // not counted: many such may stand before a chunk that waits for a copy
		}
		seen++
		late, stuck := scheduler.Late(pred, rttvar), p.flow.send.stuck(s.now, age)
		told := st.told(p)
		switch doubt := doubted && told != scheduler.Nothing; {
		case c.shares(p), doubted && copied >= headSize:
			continue
		case doubt: // what it owes; answers for what came before it may be on their way by others
		case !scheduler.Stuck(age, late, stuck, silence, told) || !p.atHead():
			continue
		}
		wait := s.views[i].Guess(age, pred)
		if told != scheduler.Nothing {
			left := min(ahead, c.unarrived(e))
			if left <= 0 {
				continue // only the answer is late
			}
			if told == scheduler.Whole {
				wait = s.views[i].Wait(left, age, pred, silence)
			}
			if doubted {
				wait = max(wait, doubtWait)
			}
		}
		j, by := s.elsewhere(i, st, p, wait, stuck, silence)
		if by == nil {
			continue
		}
		e.moved = true
		copied++
		n := s.carryCopyBy(by, j, p)
		s.copies.Spend(n)
		s.order.Charge(&p.flow.node, n)
	}
}

// elsewhere is where a piece that is late on a strand of link i goes once more: by which
// link, and by which strand of that; nil: nowhere.
func (s *Session) elsewhere(i int, st *strand, p *piece, wait, stuck, silence time.Duration) (int, *strand) {
	c, n := st.conn, p.seg.Len()
	if j, ok := s.copies.Copy(s.admitted(p.chunk()), i, n, wait); ok {
		return j, s.links[j].conn.strandFor(p, s.now)
	}
	switch {
	case st.apart != nil && c.bulk.batch() != nil:
		return i, c.bulk
	case st == c.bulk && s.copies.Again(n):
		return i, c.aside(n, stuck, silence)
	}
	return i, nil
}

const (
	lateScan  = 64 // entries that may need a copy, examined per strand and turn
	lateFloor = 40 * time.Millisecond
	headSize  = 4           // pieces that count as a flow's head, and copies without an answer that a link in doubt has
	doubtWait = time.Second // that it is expected to be dead for
)

// told is what the transport tells of a piece that went by the strand.
func (st *strand) told(p *piece) scheduler.Told {
	sense := &st.conn.eye.sense
	switch {
	case st != st.conn.bulk || !sense.Known || p.presses():
		return scheduler.Nothing
	case sense.Ahead > 0:
		return scheduler.Gap
	}
	return scheduler.Whole
}

// shares reports whether a piece is under way by another link, too. A link that was taken
// for ill, and has taken a piece again when it spoke, may have it twice.
func (c *conn) shares(p *piece) bool {
	copies := p.copies
	if copies < 2 {
		return false
	}
	for _, st := range c.strands {
		for k := range st.log.n {
			if st.log.at(k).piece == p {
				copies--
			}
		}
	}
	return copies > 0
}

// atHead reports whether p is among the first pieces that were not
// acknowledged: those block the flow.
func (p *piece) atHead() bool {
	seen := 0
	for q := p.flow.send.block; q != nil && seen < headSize; q = q.next {
		if q == p {
			return true
		}
		if q.state == sent {
			seen++
		}
	}
	return false
}
