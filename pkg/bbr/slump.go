package bbr

import "time"

// A path that has become much slower would keep a standing queue for two
// probing cycles, until the largest rate leaves its filter; where the buffer is
// deep and nothing is lost that is many seconds of bufferbloat, because the
// rounds grow with the queue. A slump ends it early: the model's rate is
// replaced after rounds that together took slumpTime, delivered less than half
// of it each, and saw round trips of twice the least, although data was
// plenty. Dips shorter than that, as of a radio, leave the model as it is.
const (
	slumpShare  = 0.5
	slumpRTT    = 2
	slumpRounds = 2
	slumpTime   = time.Second
	slumpWait   = 500 * time.Millisecond // before the new rate is probed
)

// slump watches rounds.
type slump struct {
	rounds int
	since  time.Duration // when the first of them began
	best   float64       // the largest rate of them

	// Of the present round.
	at      time.Duration
	rate    float64
	rtt     time.Duration // the least
	limited bool
}

// add takes in a sample of the present round.
func (s *slump) add(rs *sample) {
	s.rate = max(s.rate, rs.rate)
	if s.rtt == 0 || rs.rtt < s.rtt {
		s.rtt = rs.rtt
	}
	s.limited = s.limited || rs.limited
}

// close ends the round and reports whether the slump is certain.
func (s *slump) close(now time.Duration, bw float64, minRTT time.Duration) bool {
	if s.limited || s.rate == 0 || s.rate >= slumpShare*bw || s.rtt < slumpRTT*minRTT {
		*s = slump{at: now}
		return false
	}
	if s.rounds == 0 {
		s.since = s.at
	}
	s.rounds++
	s.best = max(s.best, s.rate)
	s.at, s.rate, s.rtt = now, 0, 0
	return s.rounds >= slumpRounds && now-s.since >= slumpTime
}

// checkSlump believes a slump and starts the cycle over, with an early probe
// because what fell at once may rise at once.
func (c *Controller) checkSlump() bool {
	done := c.round.began && c.slump.close(c.now, c.maxBW.max(), c.minRTT)
	if done {
		c.maxBW = bandwidthFilter{present: c.slump.best}
		c.slump = slump{at: c.now}
		c.enter(ProbeDown)
		c.probeAfter = slumpWait
	}
	c.slump.add(&c.rs)
	return done
}
