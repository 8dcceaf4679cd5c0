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
	look := s.lateLook(st)
	ahead, seen, copied := 0, 0, 0
	for k := 0; k < st.log.n && seen < lateScan; k++ {
		e := st.log.at(k)
		ahead += e.size
		if s.now.Sub(e.at) < lateFloor {
			return // the log is in order of time
		}
		p := e.piece
		if p == nil || e.moved || p.state != sent || p.again {
			if p != nil && e.moved && p.state == sent {
				copied++
			}
			continue // not counted: many such may stand before a chunk that waits for a copy
		}
		seen++
		if c.shares(p) || look.doubted && copied >= headSize {
			continue
		}
		t := look.at(e, s.now)
		if !look.wants(t) {
			continue
		}
		wait, waits := s.stillTakes(i, t, look, ahead, c.unarrived(e))
		if !waits {
			continue
		}
		j, by := s.elsewhere(i, st, p, wait, t.stuck, look.silence)
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

// lateLook is what holds for all chunks of a strand among which late ones are looked for.
type lateLook struct {
	st      *strand
	silence time.Duration // since the link was last heard
	mending time.Duration // that losses may take which the transport makes good
	rttvar  time.Duration
	doubted bool // the link is likely to be dead
}

func (s *Session) lateLook(st *strand) lateLook {
	c := st.conn
	look := lateLook{st: st, silence: s.now.Sub(c.heard), rttvar: c.link.est.RTTVar(), doubted: st == c.bulk && c.link.est.Doubted()}
	if st.apart == nil {
		look.mending = scheduler.Mending(c.eye.sense, look.silence)
	}
	if look.mending > 0 {
		look.rttvar = 0 // most of it is losses that were made good
	}
	return look
}

// tardy is a chunk that was sent a while ago.
type tardy struct {
	piece *piece
	age   time.Duration // since it was sent
	pred  time.Duration // that it was to take
	stuck time.Duration // for which it holds up its flow
	told  scheduler.Told
}

func (look lateLook) at(e *entry, now time.Time) tardy {
	age := now.Sub(e.at)
	return tardy{piece: e.piece, age: age, pred: e.pred + look.mending, stuck: e.piece.flow.send.stuck(now, age), told: look.st.told(e.piece)}
}

// wants reports whether a chunk should go once more.
func (look lateLook) wants(t tardy) bool {
	if look.doubted && t.told != scheduler.Nothing {
		return true // what the link owes; answers for what came before it may be on their way by others
	}
	return scheduler.Stuck(t.age, scheduler.Late(t.pred, look.rttvar), t.stuck, look.silence, t.told) && t.piece.atHead()
}

// stillTakes is how long a chunk is expected to take from now on by link i, where ahead
// bytes up to its end had no answer yet and unarrived have not arrived there; false: it has arrived, and
// only the answer is late.
func (s *Session) stillTakes(i int, t tardy, look lateLook, ahead, unarrived int) (time.Duration, bool) {
	if t.told == scheduler.Nothing {
		return s.views[i].Guess(t.age, t.pred), true
	}
	left := min(ahead, unarrived)
	if left <= 0 {
		return 0, false
	}
	wait := s.views[i].Guess(t.age, t.pred)
	if t.told == scheduler.Whole {
		wait = s.views[i].Wait(left, t.age, t.pred, look.silence)
	}
	if look.doubted {
		wait = max(wait, doubtWait)
	}
	return wait, true
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
