package scheduler

import "time"

// Constants of the estimator. Times are of the link, not of the flow.
const (
	minRTTWindow = 10 * time.Second
	bwWindow     = 600 * time.Millisecond // at least; ten round trips when longer
	capGain      = 1.25                   // of the bandwidth-delay product
	startGain    = 2.5                    // while the link's rate is still unknown
	capFloor     = 8 << 10                // bytes
	startCap     = 32 << 10               // bytes before the first samples
	slackMin     = 5 * time.Millisecond   // for the processing of both ends
	slackFast    = 15 * time.Millisecond  // more of it at fastRate and above
	fastRate     = 62.5e6                 // bytes per second: 500 Mbit/s
	netFast      = 4 * time.Millisecond   // slackFast where what is in the network is known
	evidence     = 16 << 10               // bytes of an application-limited sample that is believed to show a queue
	paceGain     = 1.3                    // of the window rate; headers take some of it
	paceFloor    = 64 << 10               // bytes per second
	overMost     = 25 * time.Millisecond  // of queue, between probes
	holdGain     = 0.95                   // of the transport's round trip, to keep what is in flight up
	growGain     = 1.5                    // of the window while the rate grows
	growth       = 1.1                    // in a round trip counts as growing
	probeRounds  = 8                      // round trips of which one probes for more
	farMin       = 40 * time.Millisecond  // above the least round trip is far, at least
	farRounds    = 4                      // rounds of that make a measurement due
	farEvery     = 3 * time.Second        // but no more often than that
	dueEvery     = 5 * time.Second        // the same for the transport's sake
	longerMin    = 10 * time.Millisecond  // more than the least round trip is another path, at least
	drainGain    = 0.5                    // of the product while the least round trip is measured anew
	initialRate  = 1.25e6                 // bytes/s: 10 Mbit/s until something is measured
	initialRTT   = 100 * time.Millisecond
	earlyFor     = 2 * time.Second // after the start, in which it may turn out to have ended too soon
	resumeEvery  = time.Second     // at least, between two times that the start goes on
	fullRounds   = 3               // rounds without growth that end the start
	fullGrowth   = 1.25            // growth that keeps it going
)

// Omit leaves mechanisms of an Estimator out, so that what each brings can be
// measured. The zero Omit leaves out none.
type Omit struct {
	Caps     bool // what is in flight, and how fast, is left to the transport
	Follower bool // rates that change every second are followed as slowly as all
}

// uncapped is what a link without a cap may have in flight, in bytes.
const uncapped = 64 << 20

// Estimator keeps a link's round-trip times and rates.
type Estimator struct {
	Omit      Omit
	minRTT    time.Duration
	minRTTAt  time.Time
	drainTo   time.Time     // while set, the least round trip is measured anew
	drained   time.Duration // the least since then
	srtt      time.Duration
	rttvar    time.Duration
	rate      float64 // prediction
	bw        float64 // window: the largest recent delivery rate
	bwAt      time.Time
	bwNext    float64       // the largest in the younger half of the window
	lastRound float64       // bw when it last grew in the start
	stale     int           // rounds without growth
	full      bool          // the start is over
	early     time.Time     // a round trip has ended it, which may vary by itself: until then that may show
	longer    time.Duration // the least round trip of a path that has become longer, until it is told; 0: it has not
	resumed   bool          // the start went on then
	resumedAt time.Time     // when it did last
	resumedBW float64       // bw then
	urge      bool          // the transport should look for more
	roundBW   float64       // bw when the round trip began
	growing   bool          // it has grown in the last one
	rounds    int           // round trips seen
	doubted   bool          // a queue has shown in the start
	believed  time.Duration // the least round trip until then, while it is measured anew
	nearer    time.Duration // the same, while the link is followed
	path      time.Duration // the transport's smoothed round trip
	dueAt     time.Time     // when the queue was last drained for the transport's sake
	far       int           // round trips in a row that it was far above the least
	tremble   tremble
	calm      calm
	unrest    unrest
	bunch     bunch
	lull      lull
	follower  Follower // works while the link is restless
	short     short    // works otherwise
	sure      sure     // for a window that follows the round trip
	ebb       ebb      // the link delivers less than is in flight for it
	delivered uint64   // bytes, by the last look at the transport
	tried     bool     // the connection has been given enough for its samples to tell what the link carries
}

// Ack takes in one sample.
func (e *Estimator) Ack(now time.Time, s Sample) {
	if s.RTT > 0 {
		e.addRTT(now, s)
	}
	// A link that had little to do looks slow without being so; a round trip
	// far above the least shows that it had enough to do all the same.
	// Only a sample of some size can show that: a probe that waited for a busy
	// processor looks just the same.
	enough := !s.AppLimited || s.Delivered >= evidence
	queued := enough && e.queues(s.RTT)
	limited := s.AppLimited && !queued
	e.tried = e.tried || s.Delivered > 0 && !limited
	if s.Round {
		e.rounds++
		e.growing = e.bw > growth*e.roundBW
		e.roundBW = e.bw
		e.short.close(now, e.full && e.minRTT >= leastPath && e.path <= e.minRTT+max(slackMin, e.minRTT/16), e.bw)
		e.far++
		if e.path <= e.minRTT+max(farMin, e.minRTT/2)+trembleGain*e.tremble.lately { // swings explain as much
			e.far = 0
		}
	}
	if s.Delivered > 0 && s.Interval > 0 {
		r := float64(s.Delivered) / max(s.Interval, e.minRTT, 100*time.Microsecond).Seconds()
		e.addPrediction(r, limited, queued)
		if e.full && queued { // in the start the window is a multiple of what the rate fills
			r = max(r, s.burst(e.minRTT, e.bw))
		}
		e.addWindowRate(now, r, limited)
	}
	if s.Path > 0 && enough && e.queues(s.Path-trembleGain*e.tremble.lately) {
		e.queueAtStart(now, s.Path)
	} else if s.Round && !limited {
		e.checkFull()
	}
}

// queueAtStart ends the start: the queue says that the pipe is full (HyStart++,
// RFC 9406). Unless the path has become longer since the least round trip was
// measured, as it may have while the link was idle: that is found out first, once,
// with little in flight.
func (e *Estimator) queueAtStart(now time.Time, path time.Duration) {
	switch {
	case e.full || !e.drainTo.IsZero():
	case e.doubted:
		e.full, e.early = true, now.Add(earlyFor)
	default:
		e.doubted, e.believed = true, e.minRTT
		e.drain(now, path)
	}
}

// queues reports whether a round trip shows a queue.
func (e *Estimator) queues(rtt time.Duration) bool {
	return rtt-e.minRTT > max(10*time.Millisecond, e.minRTT/4)
}

// WantsPath reports whether the next sample should carry the transport's own
// measure. In the start chunks wait for the transport's window and not in a
// queue; and at the end of a drain the transport may have held chunks back
// meanwhile to measure for itself.
func (e *Estimator) WantsPath(now time.Time) bool {
	return !e.full || !e.drainTo.IsZero() && now.After(e.drainTo)
}

// Pace is the rate in bytes per second beyond which a connection should not
// burst, or 0 for no limit. The transport's own idea of it may be far too high:
// a sender that is held to its cap always looks as if it had more to give.
func (e *Estimator) Pace() float64 {
	switch {
	case e.Omit.Caps:
		return 0
	case e.follower.Window() > 0:
		return max(paceGain*e.follower.Rate(), paceFloor)
	case !e.full || e.bw == 0:
		return 0
	}
	return max(paceGain*e.bw, paceFloor)
}

// Followed reports whether the line's rate swings so that a follower keeps up with it.
func (e *Estimator) Followed() bool { return e.follower.Window() > 0 }

// Leads reports whether Pace is a rate that the link should be sent at, and not only the
// most: its rate changes every second or so, and is followed, while the transport's own
// congestion control looks for more every few seconds. Not while a queue shows, which it
// would feed.
func (e *Estimator) Leads() bool { return e.follower.Window() > 0 && !e.follower.queued() }

// Bunches reports whether the line is followed and delivers in bunches: for moments several
// times the rate that Pace goes by. To use one, what may be in flight must leave at once.
func (e *Estimator) Bunches() bool { return e.follower.Window() > 0 && e.follower.bunched }

// addWindowRate keeps the maximum of the window in two halves. A sample that
// the application limited may raise it but never lets it fall.
func (e *Estimator) addWindowRate(now time.Time, r float64, limited bool) {
	if r >= e.bw {
		e.bw, e.bwNext, e.bwAt = r, r, now
		return
	}
	if limited {
		return
	}
	e.bwNext = max(e.bwNext, r)
	if half := max(bwWindow, 10*e.srtt) / 2; now.Sub(e.bwAt) > half {
		// The old maximum has aged by half a window: the younger half takes over.
		e.bw, e.bwNext, e.bwAt = max(e.bwNext, r), r, now
	}
}

// addPrediction moves the predicted rate: up at once, down only when the
// sample can be believed.
func (e *Estimator) addPrediction(r float64, limited, queued bool) {
	switch {
	case limited && r <= e.Rate():
	case e.rate == 0:
		e.rate = r
	case r > e.rate:
		e.rate += (r - e.rate) / 2
	case queued:
		e.rate += (r - e.rate) / 4
	default:
		e.rate += (r - e.rate) / 16
	}
}

// checkFull ends the start when the rate has not grown for three rounds, as
// BBR's startup does (draft-ietf-ccwg-bbr section 5.3.1.2).
func (e *Estimator) checkFull() {
	if e.full {
		return
	}
	if e.bw >= e.lastRound*fullGrowth {
		e.lastRound, e.stale = e.bw, 0
		return
	}
	if e.stale++; e.stale >= fullRounds {
		e.full = true
	}
}

// Cap is how many bytes may be in flight: a little over one bandwidth-delay
// product, so that the uplink's buffer stays short, plus room for the ends'
// own processing and for acknowledgements that losses delay.
func (e *Estimator) Cap() int {
	if e.Omit.Caps {
		return uncapped
	}
	if e.bw == 0 || e.minRTT == 0 {
		return startCap
	}
	bdp := e.bw * e.minRTT.Seconds()
	slack := e.bw * min(max(4*e.rttvar, e.slack()), e.slack()+e.minRTT/4).Seconds()
	if !e.drainTo.IsZero() {
		return max(capFloor, int(drainGain*bdp))
	}
	if !e.full {
		return max(startCap, int(startGain*bdp+slack))
	}
	return max(capFloor, int(capGain*bdp+slack))
}

// NetCap is how many bytes may be in the network or wait for it at this end,
// when the transport tells what has arrived: neither the ends' processing nor
// what a lost packet holds up counts then. What exceeds one bandwidth-delay
// product waits in the uplink's queue: a quarter of a product, of which a link
// with a long round trip uses all only in one round of eight, to find out whether
// it carries more.
//
// Where round trips vary by themselves (jitter, a path that has become longer)
// the least one is too little to go by: what is in flight would bound the rate,
// the lower rate the window, and so on downwards. The transport's smoothed round
// trip keeps it up, by a little less than itself, so that a queue still drains;
// and in one round of eight more is tried, and more still as long as that makes
// the rate grow, so that it is found again. Only what the link is sure to carry
// counts for that: see sure.
//
// All that takes a second or two to follow. Where the rate changes every second,
// a Follower decides; and where it has just fallen, what comes by the moment bounds it.
func (e *Estimator) NetCap() int {
	if e.Omit.Caps {
		return uncapped
	}
	return e.ebb.most(e.netCap())
}

// netCap is NetCap but for what ebb bounds.
func (e *Estimator) netCap() int {
	if n := e.follower.Most(); n > 0 {
		return n
	}
	if e.bw == 0 || e.minRTT == 0 || !e.drainTo.IsZero() {
		return e.Cap()
	}
	if depth := e.tremble.depth; depth > 0 {
		return e.trembling(depth)
	}
	if !e.full {
		return e.Cap()
	}
	probing := e.rounds%probeRounds == 0
	over := e.minRTT / 4
	if !probing {
		over = min(over, overMost)
	}
	span := e.minRTT + over + slackOf(e.bw, netFast)
	held := time.Duration(holdGain * float64(min(e.path, e.minRTT+max(farMin, e.minRTT))))
	if held <= span {
		return max(capFloor, int(e.bw*span.Seconds()))
	}
	switch {
	case e.growing:
		held = time.Duration(growGain * float64(held))
	case probing:
		held = time.Duration(capGain * float64(held))
	}
	sure := e.sure.best
	if sure == 0 {
		sure = e.bw
	}
	return max(capFloor, int(e.bw*span.Seconds()), int(sure*held.Seconds()))
}

// See takes in the transport's smoothed round trip.
func (e *Estimator) See(path time.Duration) { e.path = path }

// Look takes in a look at a transport that tells what has arrived.
func (e *Estimator) Look(now time.Time, v View) {
	// Segments that have come beyond a gap are counted by TCP as if all were full, and by their
	// bytes once it is filled: the sum may fall.
	e.delivered = max(e.delivered, v.Delivered)
	v.Delivered = e.delivered
	e.tremble.look(now, v.RTT, e.minRTT)
	if e.tremble.depth > 0 && e.endedTooSoon(now, v.RTT) {
		e.resumed, e.full, e.urge = true, false, true // that was no queue
		e.resumedAt, e.resumedBW = now, e.bw
		e.lastRound, e.stale = 0, 0
	}
	if v.Due && e.full && e.drainTo.IsZero() && e.tremble.depth == 0 && now.Sub(e.dueAt) > dueEvery {
		e.dueAt = now
		e.drain(now, v.RTT)
	}
	window := e.NetCap()
	if v.At.After(now) { // what was delivered by then counts for then
		now = v.At
	}
	if e.ebb.prove(now, v) {
		e.longer = v.RTT
	}
	e.ebb.look(now, v)
	e.unrest.look(now, v, window, e.tremble.lately)
	e.bunch.look(now, v)
	e.lull.look(now, v, e.holds())
	e.calm.look(now, v, e.tremble.depth > 0 || e.unrest.restless(now))
	e.sure.look(now, v, window, max(bwWindow, 10*e.srtt))
	e.short.look(v)
	switch {
	case e.Omit.Follower || !e.unrest.restless(now):
		e.follower = Follower{}
	case e.follower.Window() == 0 && v.RTT > 0:
		e.follower.begin(now, v, e.NetCap(), e.unrest.last, e.unrest.base)
	default:
		e.follower.bound, e.follower.bunched = e.ebb.most(uncapped), e.bunch.on(now)
		measures := e.follower.drains > 0
		if e.follower.Look(now, v); measures && e.follower.drains == 0 {
			e.ebb.measured(e.follower.base, v.InFlight)
		}
	}
}

// Urge reports whether the transport should be asked to look for more than its
// own congestion control lets pass; once in a while only.
func (e *Estimator) Urge() bool {
	urge := e.urge
	e.urge = false
	return e.follower.Urge() || urge || e.follower.Window() == 0 && e.short.urge()
}

// trembling is NetCap on a path whose round trips vary by themselves: what a
// usual one of them holds.
func (e *Estimator) trembling(depth time.Duration) int {
	span := e.minRTT + depth + e.slack()
	if !e.full {
		span *= 2
	}
	return max(startCap, int(e.bw*span.Seconds()))
}

func (e *Estimator) slack() time.Duration { return slackAt(e.bw) }

// slackAt is the time that the ends' own processing takes. On a slow line it is
// little, and what is in flight for it waits in the uplink's queue. On a fast
// one the ends are what is slow, and there is no queue.
func slackAt(rate float64) time.Duration { return slackOf(rate, slackFast) }

// slackOf is slackMin, and so much more at fastRate and above.
func slackOf(rate float64, fast time.Duration) time.Duration {
	return slackMin + time.Duration(float64(fast)*min(1, rate/fastRate))
}

// Renew prepares for a new connection on the same uplink: the path may have
// changed, so the rates are believed by half and the start is made again. After a
// connection that has measured none they are no older than they were, and not halved once
// more: an uplink that connects again and again, or at rest, would seem to carry nothing.
func (e *Estimator) Renew() {
	e.unrest.renew()
	believed := 1.0
	if e.tried {
		believed = 0.5
	}
	*e = Estimator{Omit: e.Omit, unrest: e.unrest, lull: e.lull.renewed(), minRTT: e.minRTT, minRTTAt: e.minRTTAt, srtt: e.srtt, rttvar: e.rttvar, rate: believed * e.rate, bw: believed * e.bw}
}

// MinRTT is the smallest round trip of the last ten seconds.
func (e *Estimator) MinRTT() time.Duration { return orElse(e.minRTT, initialRTT) }

// SRTT is the smoothed round trip.
func (e *Estimator) SRTT() time.Duration { return orElse(e.srtt, initialRTT) }

// RTTVar is the smoothed deviation of the round trip.
func (e *Estimator) RTTVar() time.Duration { return orElse(e.rttvar, initialRTT/2) }

// Rate is the predicted delivery rate in bytes per second.
func (e *Estimator) Rate() float64 {
	if e.rate == 0 {
		return initialRate
	}
	return e.ebb.least(e.rate)
}

// Swift is the rate in bytes per second that the link may carry once it is busy, at least
// Rate. An object's first bytes after a rest take the prediction down; what the window
// goes by they do not, and in the start that is what the link is given in a round trip.
// Where the rate changes every second, or round trips tremble, neither may hold any more,
// and only Rate counts.
func (e *Estimator) Swift(now time.Time) float64 {
	if e.rate == 0 || e.unrest.base == 0 || e.unrest.restless(now) || e.tremble.lately > 0 {
		return e.Rate()
	}
	top := e.bw
	if !e.full && e.minRTT > 0 && !e.Omit.Caps {
		top = max(top, float64(e.Cap())/e.minRTT.Seconds())
	}
	return max(e.Rate(), e.ebb.least(top))
}

// Measured reports whether a round trip was measured yet.
func (e *Estimator) Measured() bool { return e.srtt != 0 }

// PTO is the probe time-out: srtt + max(4 rttvar, 10 ms) (RFC 9002 section 6.2.1).
func (e *Estimator) PTO() time.Duration {
	return e.SRTT() + max(4*e.RTTVar(), 10*time.Millisecond)
}

func orElse(d, other time.Duration) time.Duration {
	if d == 0 {
		return other
	}
	return d
}
