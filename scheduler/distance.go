package scheduler

import "time"

// addRTT follows RFC 6298 section 2. The least round trip is believed for ten
// seconds. After that the link is drained for two round trips to measure it
// anew (BBR's ProbeRTT, draft-ietf-ccwg-bbr section 5.3.4): without that a
// standing queue of our own would count as distance, allow more in flight, and
// grow for ever.
func (e *Estimator) addRTT(now time.Time, s Sample) {
	rtt := s.RTT
	if e.srtt == 0 {
		e.srtt, e.rttvar = rtt, rtt/4
	} else {
		d := e.srtt - rtt
		e.rttvar += (d.Abs() - e.rttvar) / 4
		e.srtt += (rtt - e.srtt) / 8
	}
	switch {
	case e.minRTT == 0 || rtt <= e.minRTT:
		e.measured(now, rtt)
	case e.drainTo.IsZero() && (now.Sub(e.minRTTAt) > minRTTWindow || e.isFar(now)):
		switch {
		case !e.full || !e.isFar(now):
		case e.follower.Window() == 0:
			e.believed = e.minRTT // a start follows if the path is longer
		default:
			e.nearer = e.minRTT
		}
		e.drain(now, rtt)
	case !e.drainTo.IsZero():
		e.drained = min(e.drained, rtt)
		if s.Path > 0 { // without the time that chunks wait at the sender
			e.drained = min(e.drained, s.Path)
		}
		if now.After(e.drainTo) {
			e.measured(now, e.drained)
			e.far = 0
		}
	}
}

// drain begins to measure the least round trip anew: so far it is rtt.
func (e *Estimator) drain(now time.Time, rtt time.Duration) {
	e.drainTo, e.drained = now.Add(2*e.srtt+slackMin), rtt
}

// measured takes in the least round trip, and goes on with the start if that was
// interrupted to measure it and the path has turned out to be longer. Where a follower is at
// work, which makes no start, the transport is told all the same, if it is twice as long: by its
// own, shorter round trip its window would hold the rate down, and the lower rate the window.
func (e *Estimator) measured(now time.Time, rtt time.Duration) {
	if e.nearer > 0 && rtt > 2*e.nearer {
		e.longer = rtt
	}
	e.nearer = 0
	e.minRTT, e.minRTTAt, e.drainTo = rtt, now, time.Time{}
	if e.believed > 0 {
		e.full = rtt <= e.believed+max(longerMin, e.believed/8)
		if !e.full {
			e.longer = rtt
		}
		e.believed, e.stale, e.lastRound = 0, 0, 0
		e.early = now.Add(earlyFor)
	}
}

// isFar reports whether the round trip has been so far above the least one, and
// for so long, that it had better be measured anew: what is in flight is held to
// less than would explain it.
func (e *Estimator) isFar(now time.Time) bool {
	return e.far >= farRounds && now.Sub(e.minRTTAt) > farEvery
}

// Longer tells once that the path has become longer, by its least round trip with little in
// flight; 0: it has not.
func (e *Estimator) Longer() time.Duration {
	rtt := e.longer
	e.longer = 0
	return rtt
}
