package bbr

import "time"

// Constants of standing.
const (
	standingLeast = 12 * time.Millisecond // of queue
	standingShare = 4                     // and that part of the least round trip
)

// standing notices a queue that stands: that even the least round trip of a round
// is well above the least one known. Then the path was full all the round, whether
// or not data was short at this end, and what the round has delivered is what the
// path carries. Single samples say more where acknowledgements bunch, by as long as
// the first of them were late.
//
// It does so only on a path that the caller says to be steady: elsewhere round trips
// vary by themselves, and the least one known may be that of another path.
type standing struct {
	on bool // the path is steady

	queued bool    // the last round has shown a queue
	last   float64 // its mean rate, bytes per second; 0: it has shown none

	// The present round.
	at    time.Duration
	from  int64         // delivered when it began
	least time.Duration // round trip
}

// add takes in a sample of the present round, and whether it is the first of the
// next one.
func (s *standing) add(now time.Duration, rs *sample, began bool, delivered int64, minRTT time.Duration) {
	if began {
		s.close(now, delivered, minRTT)
	}
	if s.least == 0 || rs.rtt < s.least {
		s.least = rs.rtt
	}
}

func (s *standing) close(now time.Duration, delivered int64, minRTT time.Duration) {
	s.queued = s.on && minRTT > 0 && s.least > minRTT+max(standingLeast, minRTT/standingShare) && now > s.at
	s.last = 0
	if s.queued {
		s.last = float64(delivered-s.from) / (now - s.at).Seconds()
	}
	s.at, s.from, s.least = now, delivered, 0
}

// Steady tells whether the path is steady, so that round trips longer than the least
// one show a queue. A new controller takes it that it is not.
func (c *Controller) Steady(yes bool) { c.standing.on = yes }
