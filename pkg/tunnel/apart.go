package tunnel

import (
	"context"
	"time"

	"hawser/pkg/wire"
	"hawser/scheduler"
)

// Apart is an urgent connection: one beside a link's own, of the same link, for what
// must not wait behind that one's bulk or behind a loss of it (PROTOCOL.md section 4.4).
// It comes later than the link's own and may go before it.
type Apart interface {
	Strand
	// Sense is as Carrier's.
	Sense() scheduler.Sense
	// Close is as Carrier's.
	Close(err error)
}

// Joiner is a Carrier beside which urgent connections can stand, one at a time.
type Joiner interface {
	Carrier
	// NextUrgent returns the next that stands, or the next twin of it. It takes as long as
	// that takes, and returns an error when ctx has ended or the peer will have none.
	NextUrgent(ctx context.Context, twin bool) (Apart, error)
	// TakesTwin reports whether there are twins.
	TakesTwin() bool
}

// apart is what a strand with a connection of its own knows of that. The loop owns it.
type apart struct {
	carrier Apart
	twin    bool // it is the second of the link's
	sense   scheduler.Sense
	started bool
	base    uint64    // of sense.Arrived: the handshake's bytes
	sent    uint64    // bytes of records
	spoke   time.Time // when something last came by it, or it was made
}

const (
	busyBytes  = 4 << 10                // bulk that is under way makes other things wait from here on
	busyTime   = 100 * time.Millisecond // and bulk that comes makes acknowledgements go, for so long
	apartSpace = 2 * wire.MaxBlock      // of header blocks in a batch: it carries little
	stuckTime  = 3 * time.Second        // without an answer, while the link has others: the connection is given up
	provedFor  = 15 * time.Second       // after which a NAT may have forgotten what rests
)

// joins works the connection's urgent connections, or their twins, one after the other,
// until ctx ends.
func (c *conn) joins(ctx context.Context, s *Session, j Joiner, link string, twin bool) {
	var last Apart
	ended := make(chan struct{})
	close(ended)
	for {
		if s.cfg.Edge {
			select { // it makes another when it has lost one
			case <-ended:
			case <-ctx.Done():
			}
		}
		next, err := j.NextUrgent(ctx, twin)
		if last != nil {
			last.Close(ErrReplaced)
		}
		<-ended
		if err != nil {
			if ctx.Err() == nil {
				s.log.Warn("no urgent connection", "link", link, "reason", err)
			}
			return
		}
		last, ended = next, make(chan struct{})
		go c.workApart(s, newApart(c, next, twin), ended)
	}
}

func newApart(c *conn, carrier Apart, twin bool) *strand {
	st := newStrand(c, carrier, apartSpace)
	st.apart, st.stop, st.end = &apart{carrier: carrier, twin: twin}, make(chan struct{}), carrier.Close
	return st
}

// workApart runs an urgent connection's goroutines until it ends.
func (c *conn) workApart(s *Session, st *strand, ended chan<- struct{}) {
	defer close(ended)
	if !s.post(func(in *mail) { in.joined = append(in.joined, st) }) {
		st.end(ErrEnded)
		return
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		st.write(s)
	}()
	err := st.read(s)
	st.end(err)
	close(st.stop)
	<-written
	if !s.post(func(in *mail) { in.parted = append(in.parted, st) }) {
		st.discard()
	}
}

// stand gives a connection its urgent connection, in the place of an older one.
func (s *Session) stand(st *strand) {
	c := st.conn
	if c.closed {
		st.end(c.err)
		return
	}
	switch {
	case st.apart.twin && c.twin != nil:
		s.part(c.twin)
	case !st.apart.twin && c.urgent != c.bulk:
		s.part(c.urgent)
	}
	st.apart.spoke = s.now
	if st.apart.twin {
		c.twin = st
	} else {
		c.urgent = st
	}
	c.list()
	s.log.Debug("urgent connection stands", "link", c.link.info.Name)
}

// part takes an urgent connection off. What it has not had acknowledged goes again.
func (s *Session) part(st *strand) {
	c := st.conn
	st.end(ErrReplaced)
	switch st {
	case c.urgent:
		c.urgent = c.bulk
	case c.twin:
		c.twin = nil
	default:
		return
	}
	c.list()
	s.log.Debug("urgent connection ended", "link", c.link.info.Name)
	s.moveStrand(st)
	for st.log.n > 0 {
		e := st.log.pop()
		c.inFlight -= e.size
		if e.piece != nil {
			e.piece.copies--
		}
	}
}

// stepApart gives an urgent connection up that is stuck while the link is not, and asks one
// that has rested whether it still stands before others have to find out.
func (s *Session) stepApart(c *conn) {
	for _, st := range c.strands {
		at := st.log.oldest()
		switch {
		case st.apart == nil:
		case !at.IsZero() && s.now.Sub(at) > stuckTime && c.heard.Sub(at) > stuckTime:
			s.part(st)
		case at.IsZero() && st.rested(s.now) && c.underLoad(s.now):
			s.probeBy(st)
		}
	}
}

// suits reports whether what is urgent should go by this strand and not by the bulk
// strand. A strand of the same connection always suits. An urgent connection does while
// bulk is under way in either direction, unless an answer to what it carried is late, or it
// was at rest and has not shown since that anything passes by it.
func (st *strand) suits(now time.Time) bool {
	c := st.conn
	if st.apart == nil {
		return true
	}
	return c.underLoad(now) && !st.late(now) && !st.rested(now)
}

// rested reports whether nothing has come by a strand's own connection for so long that a
// NAT on the way may have forgotten that, and drop all that goes by it.
func (st *strand) rested(now time.Time) bool {
	return st.apart != nil && now.Sub(st.apart.spoke) > provedFor
}

// underLoad reports whether bulk is under way, either way.
func (c *conn) underLoad(now time.Time) bool {
	return c.bulk.log.bytes > busyBytes || now.Sub(c.bulkAt) < busyTime
}

// twinSuits reports whether the urgent strand's twin is of use: where a line's rate swings
// by itself, what is late waits for the line and not for a lost packet.
func (c *conn) twinSuits(now time.Time) bool {
	return c.twin != nil && !c.link.est.Followed() && c.twin.suits(now)
}

// takesTwin reports whether the urgent strand's twin takes a copy of what went by that:
// as takesCopy.
func (c *conn) takesTwin(now time.Time) bool {
	return c.twinSuits(now) && c.underLoad(now) && !c.slow() && !c.twin.late(now)
}

// takesCopy reports whether the bulk strand takes a copy of what went by the urgent
// one: under load only, and not in bulk of a slow line, in whose queue it shows.
func (c *conn) takesCopy(now time.Time) bool {
	return c.underLoad(now) && !c.slow() && c.bulk.batch() != nil
}

// slow reports whether the link is a slow line that is busy with bulk.
func (c *conn) slow() bool {
	return c.bulk.log.bytes > busyBytes && chunkSize(c.link.est.Rate()) < ordinary
}

// late reports whether the oldest record without an answer has waited too long for it.
func (st *strand) late(now time.Time) bool {
	at, est := st.log.oldest(), &st.conn.link.est
	return !at.IsZero() && now.Sub(at) > scheduler.Late(est.SRTT(), est.RTTVar())
}

// look asks the strand's own transport while something is not answered, and reports
// whether it has heard of anything new.
func (st *strand) look() (heard bool) {
	a := st.apart
	if a.started && st.log.n == 0 {
		return false
	}
	s := a.carrier.Sense()
	if !a.started {
		a.started, a.base = true, s.Arrived
	}
	heard = s.Progress != a.sense.Progress
	a.sense = s
	if arrived := s.Arrived - a.base; arrived > a.sent {
		a.base += arrived - a.sent
	}
	return heard
}

// arrived is conn.arrived of the strand's own transport, when it was last asked.
func (st *strand) arrived() bool {
	return st.log.n == 0 || st.apart.sense.Arrived > 0 && st.apart.sense.Arrived-st.apart.base >= st.apart.sent
}
