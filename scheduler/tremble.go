package scheduler

import "time"

// Constants of tremble.
const (
	swingLeast  = 12 * time.Millisecond // from a trough to a crest, or back
	swingShare  = 4                     // and that part of the least round trip
	swingsKept  = 6                     // as many in a row make a path tremble
	swingsFor   = time.Second           // within that
	swingPaths  = 8                     // or so many of the least round trip, if longer
	swingMost   = 60 * time.Millisecond // higher ones are a queue's
	swingRatio  = 2                     // times the least round trip: the same
	latelyFor   = 2 * time.Second       // after which it does not count that a path has trembled
	trembleGain = 2                     // swings beyond the least round trip are a queue all the same
)

// tremble notices round trips that vary by themselves: they rise and fall
// several times a second, and come down near the least one. A queue of our own
// does not do that, for what is in flight is held at one level.
//
// Where the path trembles, what its mean round trip holds does not fill it: the
// bytes bunch together and leave gaps, so that less is delivered, and less is
// put in flight for that, and so on downwards.
type tremble struct {
	depth time.Duration // mean height of the swings; 0: the path does not tremble

	lately time.Duration // the last depth above 0, for latelyFor: swings come in bursts
	seenAt time.Time     // when it was that

	swings    [swingsKept]swing
	n         int
	rising    bool
	low, high time.Duration // of the present swing so far
}

// swing is a rise or a fall.
type swing struct {
	end    time.Time
	height time.Duration
	trough time.Duration
}

// look takes in the transport's round trip; base is the least one.
func (t *tremble) look(now time.Time, rtt, base time.Duration) {
	if rtt == 0 || base == 0 {
		return
	}
	if t.high == 0 {
		t.low, t.high = rtt, rtt
	}
	least := max(swingLeast, base/swingShare)
	switch {
	case t.rising:
		if t.high = max(t.high, rtt); t.high-rtt >= least {
			t.turn(now)
			t.low = rtt
		}
	default:
		if t.low = min(t.low, rtt); rtt-t.low >= least {
			t.turn(now)
			t.high = rtt
		}
	}
	if t.judge(now, max(swingsFor, swingPaths*base), base); rtt-base > trembleGain*t.depth+least {
		t.depth = 0
	}
	switch {
	case t.depth > 0:
		t.lately, t.seenAt = t.depth, now
	case now.Sub(t.seenAt) > latelyFor:
		t.lately = 0
	}
}

// turn ends a swing. The first is none.
func (t *tremble) turn(now time.Time) {
	t.rising = !t.rising
	if t.high == t.low {
		return
	}
	t.swings[t.n%swingsKept] = swing{now, t.high - t.low, t.low}
	t.n++
}

// judge compares the last swings.
func (t *tremble) judge(now time.Time, within, base time.Duration) {
	t.depth = 0
	if t.n < swingsKept || now.Sub(t.swings[t.n%swingsKept].end) > within {
		return
	}
	trough, sum := t.swings[0].trough, time.Duration(0)
	for _, s := range t.swings {
		trough = min(trough, s.trough)
		sum += s.height
	}
	if mean := sum / swingsKept; mean < min(swingMost, swingRatio*base) && trough-base < mean {
		t.depth = mean
	}
}

// endedTooSoon reports whether the start had better go on, on a path that trembles: if
// a swing may have ended it, and again where it has since found more, for then it
// was on its way. Where a swing has ended it at a small rate so few answers come that the
// transport's round trip, a mean of them, takes seconds to show more swings. After earlyFor
// it goes on all the same unless a queue shows.
func (e *Estimator) endedTooSoon(now time.Time, rtt time.Duration) bool {
	calm := e.full && rtt < e.minRTT+e.tremble.depth
	switch {
	case e.resumed:
		return calm && now.Sub(e.resumedAt) > resumeEvery && e.bw > fullGrowth*e.resumedBW
	case now.Before(e.early):
		return true
	}
	return calm && !e.early.IsZero() && !e.unrest.restless(now) // early: it did not end by itself
}
