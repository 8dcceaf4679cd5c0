package tunnel

import (
	"math"
	"time"

	"hawser/scheduler"
)

// eye is what a connection sees of its transport.
type eye struct {
	sense   scheduler.Sense
	at      time.Time // of sense
	started bool
	base    uint64 // of sense.Arrived: the handshake's bytes
	sent    uint64 // bytes of records, on their way to the transport or beyond
}

// eyeEvery is how old a look at the transport may be.
const eyeEvery = time.Millisecond

// look asks the transport, unless that was done just now. It notes progress: a
// transport whose path delivers is alive, even while a lost packet keeps the
// tunnel's own acknowledgements back.
func (c *conn) look(now time.Time) {
	e := &c.eye
	if c.closed || e.started && (!e.sense.Known || now.Sub(e.at) < eyeEvery) {
		return
	}
	s := c.carrier.Sense()
	if !e.started {
		e.started, e.base = true, s.Arrived
	} else if s.Progress != e.sense.Progress {
		c.heard = now
	}
	if s.Arrived > e.sense.Arrived {
		c.bulk.answered = now // a slow line may take long for a record
	}
	if s.Whole > e.sense.Whole {
		for _, st := range c.strands {
			if st.apart == nil {
				st.answered = now // nor is the path narrower: a slow line, and what was lost comes again
			}
		}
	}
	if s.Lost > e.sense.Lost {
		c.link.packetsLost += s.Lost - e.sense.Lost
	}
	e.sense, e.at = s, now
	for _, st := range c.strands {
		if st.apart != nil && st.look() {
			c.heard = now
		}
	}
	c.link.est.See(s.RTT)
	if arrived := s.Arrived - e.base; arrived > e.sent {
		e.base += arrived - e.sent // the handshake's last bytes had been under way
	}
	if s.Known {
		c.link.est.Look(now, scheduler.View{RTT: s.RTT, Delivered: s.Delivered, Flying: c.flying(), InFlight: s.InFlight, Carries: s.Carries, Volleys: s.Volleys, Due: s.Due, At: s.At})
	}
}

// flying is how many bytes are under way in the network or wait for it at this
// end. A transport that does not count what arrives says what is in the network;
// then what it has not taken is added.
func (c *conn) flying() int {
	if s := c.eye.sense; s.Arrived > 0 {
		n := max(int(c.eye.sent)-int(s.Arrived-c.eye.base)-s.Ahead, 0)
		for _, st := range c.strands {
			if st.apart != nil {
				n += st.log.bytes
			}
		}
		return n
	}
	return min(c.eye.sense.InFlight+c.waiting(), c.inFlight)
}

// underWay is flying for the choice of a path. A transport that does not count what arrives
// says how much is in the network when something is acknowledged: in the first round trip
// after a rest it says nothing of what it was given a moment ago.
func (c *conn) underWay() int {
	if c.eye.sense.Arrived == 0 && c.rate.unanswered() {
		return c.inFlight
	}
	return c.flying()
}

// arrived reports whether the peer's end has all that was sent: what is still
// not acknowledged then waits for the peer and not for the path.
func (c *conn) arrived() bool {
	s := c.eye.sense
	if s.Arrived == 0 || s.Arrived-c.eye.base < c.eye.sent {
		return false
	}
	for _, st := range c.strands {
		if st.apart != nil && !st.arrived() {
			return false
		}
	}
	return true
}

// unarrived is how many bytes up to an entry's end have not arrived in order, as far as
// the transport says.
func (c *conn) unarrived(e *entry) int {
	if c.eye.sense.Arrived == 0 {
		return math.MaxInt
	}
	return int(int64(e.end) - int64(c.eye.sense.Arrived-c.eye.base))
}

// waiting is how many bytes of bodies the transport has not taken. Of a batch
// that it is taking, half counts.
func (c *conn) waiting() int {
	n := c.handed / 2
	for _, st := range c.strands {
		if st.filling != nil {
			n += st.filling.bytes
		}
	}
	return n
}
