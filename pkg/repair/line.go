package repair

import "time"

const (
	reordered  = 3    // segments beyond a gap that make it a loss (RFC 6675, DupThresh)
	mostRanges = 128  // selectively acknowledged ranges that a flow keeps
	mostTries  = 12   // after which the times between those of one range grow no more
	mostProbes = 5    // of a tail, before it is left to the sender
	halfLife   = 8192 // segments after which the counts of losses are halved
	leastBase  = 512  // segments that the first losses are compared with
	// An event is a gap, however long. More of them than this share of segments,
	// or more lost segments than the other, is congestion.
	mostEvents = 0.03
	mostLost   = 0.25
	// queueTime is what a round trip may have above twice the least before it
	// shows a queue. The least of recentTime counts: single ones may be a busy
	// processor of our own.
	queueTime  = 10 * time.Millisecond
	recentTime = 25 * time.Millisecond
	// leastTime is how long the least round trip counts since it was last seen: clients
	// roam. What takes its place was measured with no more than fewSegments under way, or
	// our own queue would pass for the line's length.
	leastTime   = 10 * time.Second
	fewSegments = 16
	// slack is what a repair is given above a round trip and its variation, and
	// what reordering may take above a quarter of one.
	slack    = time.Millisecond
	mostWait = 2 * time.Second
	// tailTime is what an acknowledgement may take above that before the first
	// and the last thing sent count as lost; a peer may hold that of a single
	// segment back by delayTime (RFC 9293 section 3.8.6.3), and nothing is known
	// of a new connection for startTime.
	tailTime  = 5 * time.Millisecond
	delayTime = 50 * time.Millisecond
	startTime = 200 * time.Millisecond
	// patienceMost is after how long without any progress a peer that is owed
	// something is given up.
	patienceMost = time.Minute
)

// Line is what is known of a peer's line. It tells random losses from
// congestion: a loss while the round trip shows no queue, and while losses are
// few, is random (C. P. Fu, S. C. Liew, "TCP Veno", JSAC 2003). The zero Line
// knows nothing.
type Line struct {
	srtt, rttvar         time.Duration
	least                time.Duration // round trip, last seen at leastAt
	leastAt              time.Duration
	recent, low          time.Duration // the same since recentAt
	recentAt             time.Duration
	sent, events, missed float64 // segments, decaying
	// late is how often in a row something was sent again in vain, before any round trip
	// could be measured: that of something sent twice cannot. So what is waited for is
	// doubled as often for all that follows, or a round trip that has become longer would
	// never be known of (P. Karn, C. Partridge, SIGCOMM 1987; RFC 6298 sections 3 and 5).
	late int
}

func (l *Line) sentMore(segments float64) {
	if l.sent += segments; l.sent > halfLife {
		l.sent, l.events, l.missed = l.sent/2, l.events/2, l.missed/2
	}
}

func (l *Line) lostMore(segments float64) {
	l.events++
	l.missed += segments
}

// answered forgets the losses that the sender has slowed down for.
func (l *Line) answered() { l.sent, l.events, l.missed = 0, 0, 0 }

// measure takes in a round trip (RFC 6298); few says that little was under way.
func (l *Line) measure(now, rtt time.Duration, few bool) {
	l.late = 0
	if l.srtt == 0 {
		l.srtt, l.rttvar = rtt, rtt/2
		l.least, l.leastAt = rtt, now
		l.recent, l.low, l.recentAt = rtt, rtt, now
	}
	off := rtt - l.srtt
	l.srtt += off / 8
	l.rttvar += (max(off, -off) - l.rttvar) / 4
	if few && now-l.leastAt > leastTime {
		l.least = rtt
	}
	if rtt <= l.least+l.least/8 {
		l.least, l.leastAt = min(l.least, rtt), now
	}
	if now-l.recentAt > recentTime {
		l.low, l.recent, l.recentAt = l.recent, rtt, now
	}
	l.recent = min(l.recent, rtt)
}

// congested reports whether losses are to be taken for congestion.
func (l *Line) congested() bool {
	base := max(l.sent, leastBase)
	return min(l.recent, l.low) > l.least+l.least/4+queueTime || l.events > mostEvents*base || l.missed > mostLost*base
}

// turn is what a round trip takes at most, as far as one knows.
func (l *Line) turn() time.Duration { return l.srtt + max(l.srtt/2, 4*l.rttvar) }

// settling is how long reordering may take.
func (l *Line) settling() time.Duration { return l.srtt/4 + slack }

// wait is how long a repair is given that was sent so many times, 1 or more.
func (l *Line) wait(tries int) time.Duration {
	return min((l.turn()+slack)<<max(tries-1, l.late), mostWait)
}

// vain notes that something sent again so many times has brought no answer in time.
func (l *Line) vain(times int) { l.late = min(max(l.late, times), mostTries) }
