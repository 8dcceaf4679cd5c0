package tunnel

import "time"

// A connection may be dead for what this end sends while the other end, whose packets
// arrive, sees nothing wrong. It happens when a path becomes narrower without saying so,
// and only small packets pass any more: QUIC found out once how large its packets may be,
// and sends large ones again and again. TCP gives up after its time-out; QUIC does not, as it
// hears from its peer. The other end may be the edge, which then makes no other connection.

const (
	oneSided    = 15 * time.Second // that a peer may speak and answer nothing
	speechPause = 3 * time.Second  // of a peer that speaks
)

// speaks notes that a record has come.
func (c *conn) speaks(at time.Time) {
	if at.Sub(c.spoke) > speechPause {
		c.since = at
	}
	c.spoke = at
}

// stepStuck ends a connection whose peer has spoken for long without an answer to what has
// waited for one on a strand, or to what came after it. The next one begins anew.
func (s *Session) stepStuck(c *conn) {
	if s.now.Sub(c.spoke) > speechPause || c.spoke.Sub(c.since) <= oneSided {
		return
	}
	for _, st := range c.strands {
		at := st.log.oldest()
		if st.apart != nil || at.IsZero() || s.now.Sub(at) <= oneSided || s.now.Sub(st.answered) <= oneSided {
			continue
		}
		s.closeConn(c, ErrOneSided)
		return
	}
}
