package scheduler

import "time"

// Constants of the follower.
const (
	baseWindow    = 10 * time.Second        // for which the least round trip is believed, at least
	baseRounds    = 50                      // round trips for which it is, at least
	shiftWindow   = 1500 * time.Millisecond // for which one is believed that was only inferred
	guessRounds   = 4                       // round trips before another one may be inferred
	roundMin      = 10 * time.Millisecond   // of what counts as a round trip
	midMost       = 15 * time.Millisecond   // of the wanted queue, beside slack
	usedShare     = 0.7                     // of the window under way: the window is what holds the link
	sentShare     = 0.5                     // of it in the network, then
	waitMost      = 24 << 10                // bytes that wait at the transport: that holds the link then
	patience      = 12                      // rounds of a search that it may hold
	limitedRounds = 1                       // rounds of that before the transport is asked for more
	limitedRest   = 5                       // rounds after that, before it is asked again
	noGrowth      = 1.1                     // times the rate of the round before is no growth
	fruitless     = 3                       // rounds without it end a search
	restRounds    = 4                       // after that, before the next
	unusedMost    = 2                       // times what flew at most: a window that was not filled
	shrunk        = 0.9                     // of the rate: less than that is less
	tryGain       = 1.25                    // of the window, tried now and then
	tryEvery      = 2                       // rounds before that
	tryPatience   = 4                       // more rounds if the transport holds it
	tryRounds     = 2                       // rounds until it shows
	drainGuess    = 0.5                     // of what the path holds, while that is measured anew
	drainSure     = 0.75                    // the same when it is about as much as believed
	slowVolume    = 24 * packet             // bytes that the path holds: less is a slow line
	settleRounds  = 2                       // at most, until what flies has come down to a smaller window
	settleSlack   = 4 * packet              // bytes
	blindFor      = 200 * time.Millisecond  // of silence, after which a round says nothing
)

// View is what a look at the transport shows.
type View struct {
	RTT       time.Duration // smoothed, without the ends' own time; 0: unknown
	Delivered uint64        // bytes that the peer's end has acknowledged so far, in order or not
	Flying    int           // bytes in the network or on their way there
	InFlight  int           // bytes in the network, as the transport counts
	Due       bool          // as Sense has it
	Carries   float64       // the same
	Volleys   uint64        // the same
	At        time.Time     // the same
}

// waiting is how many bytes the transport has not sent, or has to send again.
func (v View) waiting() int { return max(v.Flying-v.InFlight, 0) }

// Follower finds how much a link may have in flight: what the path holds, and a
// little more, which waits in the uplink's queue. It wants that queue short, but
// not empty: an empty one means that the link carries more than it gets, and
// then twice as much is tried every round trip, as in slow start, until a queue
// shows. A long queue means that the rate has fallen: what is delivered is the
// rate then, and the window becomes what that fills. (The idea of FAST TCP, ToN
// 2006, with a search of its own.) So it follows a rate that changes every
// second within a few round trips.
//
// A queue is the round trip beyond the least one. Where the path itself has
// become longer there is none: then the smaller window lowers the rate and not
// the round trip, which shows within two rounds.
type Follower struct {
	window float64
	bound  int           // bytes that may be in flight, whatever the window: see ebb
	rate   float64       // what the link delivered when it was last busy, bytes per second
	base   time.Duration // the least round trip
	baseAt time.Time
	guess  bool // base was inferred, and is measured soon

	search  int     // rounds of it that brought nothing
	rest    int     // rounds until the next search
	finding bool    // a search is on
	best    float64 // the largest rate of this search

	held     int           // rounds in a row with the queue that is wanted
	over     bool          // the last round showed a long queue
	overRate float64       // its rate
	overPath time.Duration // its round trip
	eager    bool          // a search follows when base is known
	weighing bool          // a search has just met a queue
	settling bool          // more is in flight than the window allows by now
	volleys  uint64        // that were taken in
	bunched  bool          // the line delivers in bunches
	drains   int           // rounds in which base is measured anew, this one included

	// The present round.
	at           time.Time // its begin
	from         uint64    // delivered then
	seen         uint64    // delivered at the last look
	moved        time.Time // when it last grew
	path         time.Duration
	least        time.Duration
	looks, fills int // looks, and those that found the window full
	waits        int // those in which much waited at the transport
	peak         int // most that flew
	flew         int // the same of the transport's own count
	limited      int // rounds in a row in which the transport held the link
	patience     int // rounds that it may still hold this search
	skip         int // rounds that say nothing
}

// Window is how many bytes may be in flight; 0: it does not work.
func (f *Follower) Window() int { return int(f.window) }

// Rate is the rate in bytes per second with which the window would be filled in
// a round trip.
func (f *Follower) Rate() float64 {
	return max(f.rate, f.window/(f.base+f.mid()).Seconds())
}

// Urge reports whether the transport should be asked to look for more: a search
// is on, and the transport's own congestion control is what holds it. It does so
// once in a while only.
func (f *Follower) Urge() bool {
	switch {
	case f.finding && f.limited >= limitedRounds && !f.queued():
	case f.held >= tryEvery && f.limited > 0:
	default:
		return false
	}
	f.limited = -limitedRest
	return true
}

// mid is the queue that is wanted, in time: the ends' own processing and a little
// of the round trip.
func (f *Follower) mid() time.Duration {
	return min(f.base/8, midMost) + slackAt(f.rate)
}

// queued reports whether as long a queue shows as is wanted, or a longer one.
func (f *Follower) queued() bool { return f.path > f.base+f.mid() }

// tooLong reports whether a queue shows that is longer than one that varies a little.
func (f *Follower) tooLong() bool { return f.path-f.base > f.mid()*3/2+slackMin/2 }

// begin starts with a rate and a least round trip that are known so far, and with
// a round that measures the latter anew: a search follows.
func (f *Follower) begin(now time.Time, v View, window int, rate float64, base time.Duration) {
	*f = Follower{bound: uncapped, window: float64(max(window, capFloor)), rate: rate, base: min(base, v.RTT), baseAt: now, guess: true}
	if rate == 0 {
		f.rate = f.window / (f.base + f.mid()).Seconds()
	}
	f.seen, f.moved, f.path, f.volleys = v.Delivered, now, v.RTT, v.Volleys
	f.eager = true
	f.measure()
	f.open(now)
}

// open starts a round.
func (f *Follower) open(now time.Time) {
	f.at, f.from, f.least = now, f.seen, 0
	f.looks, f.fills, f.waits, f.peak, f.flew = 0, 0, 0, 0, 0
}

// Look takes in one look. Looks may come at any time.
func (f *Follower) Look(now time.Time, v View) {
	if v.RTT == 0 || f.window == 0 {
		return
	}
	f.path = v.RTT
	f.jump(now, v)
	if f.path <= f.base {
		f.base = f.path
		if !f.guess {
			f.baseAt = now
		}
	}
	if f.least == 0 || f.path < f.least {
		f.least = f.path
	}
	window := min(f.window, float64(f.bound))
	if full(v, window) {
		f.fills++
	}
	f.looks++
	if v.waiting() > max(waitMost, v.Flying/8) || idle(v, window) {
		f.waits++
	}
	f.peak, f.flew = max(f.peak, v.Flying), max(f.flew, v.InFlight)
	if v.Delivered <= f.seen {
		return
	}
	came := float64(v.Delivered - f.seen)
	f.seen = v.Delivered
	if now.Sub(f.moved) > max(blindFor, 2*f.path) {
		f.moved = now
		f.open(now) // it was silent: what comes now says nothing about the rate
		return
	}
	f.moved = now
	if f.finding {
		f.grow(came, v)
	}
	switch {
	case f.settling && (f.settled(v) || now.Sub(f.at) > settleRounds*f.path):
		f.settling = false // what flies from now on is what the window allows
		f.open(now)
	case !f.settling && now.Sub(f.at) >= max(f.path, roundMin):
		f.close(now)
		f.open(now)
	}
}

// settled reports whether no more flies than the window allows. Bytes that the
// transport sends once more are not counted, and it counts small packets as full.
func (f *Follower) settled(v View) bool {
	return min(v.Flying, v.InFlight) <= f.Most()+settleSlack
}

// grow makes the window larger while that brings more, and shows no queue.
func (f *Follower) grow(came float64, v View) {
	if f.queued() {
		return // the round's end judges
	}
	if full(v, f.window) {
		f.window += came
	}
}

// close judges a round.
func (f *Follower) close(now time.Time) {
	r := float64(f.seen-f.from) / now.Sub(f.at).Seconds()
	if f.bunched {
		f.path = f.least // the last may have a pause in it
	}
	if f.drains > 0 {
		f.endDrain(now)
		return
	}
	held := f.waits*2 > f.looks
	if held {
		f.limited++
	} else {
		f.limited = min(f.limited+1, 0)
	}
	if f.skip > 0 {
		f.skip--
		return
	}
	switch {
	case f.fills == 0:
		f.closeUnfilled(now, r, held)
		return
	case f.weighing && !f.steady():
		return
	case f.weighing:
		f.weighing = false // a queue has stood all the round: r is what the link delivers
		f.rate = r
		f.window = max(f.lower(r), capFloor)
		f.settling = true
		return
	}
	if !f.steady() {
		r = max(r, f.rate) // it had too little to do at times, and tells no lower rate
	}
	mid := f.mid()
	switch {
	case f.tooLong():
		f.tooMuch(now, r)
	case f.path-f.base > mid/2:
		f.over = false
		if !f.stop() {
			f.hold(now, r, held)
		}
	default:
		f.over, f.held = false, 0
		f.lookForMore(r, held)
	}
	f.window = max(f.window, capFloor)
	f.checkBase(now)
}

// closeUnfilled judges a round in which the window was never full: the link had too little
// to do, or the transport holds it. A window that is far from full would not tell when
// that changes.
func (f *Follower) closeUnfilled(now time.Time, r float64, held bool) {
	f.window = max(min(f.window, unusedMost*float64(f.peak)), startCap)
	switch {
	case held && !f.finding && !f.queued():
		f.weighing = false
		f.seek(r)
	case held && f.tooLong() && float64(f.flew) > f.fill(r):
		// The transport's own window makes a queue, or the path has become longer:
		// which of them, shows when it is this window that holds the link.
		f.finding, f.weighing = false, false
		f.tooMuch(now, r)
		f.window = max(f.window, capFloor)
	}
}

// steady reports whether the round had enough to do nearly all the time.
func (f *Follower) steady() bool { return f.fills*4 >= f.looks*3 }

// hold is for rounds that show the queue that is wanted. It may be none, but a
// path that has become a little longer. Therefore a quarter more is tried now and
// then: where that brings more there was no queue.
func (f *Follower) hold(now time.Time, r float64, held bool) {
	f.rate = r
	f.held++
	switch {
	case f.held == tryEvery:
		f.best, f.patience = r, tryPatience
		f.window *= tryGain
	case f.held > tryEvery && held && f.patience > 0:
		f.patience-- // the transport has not let it try yet
		f.held--
	case f.held >= tryEvery+tryRounds:
		f.held = 0
		if r > noGrowth*f.best {
			f.shift(now, r)
			return
		}
		f.window = f.fill(r)
	}
}

// fill is the window that a rate fills, with the queue that is wanted.
func (f *Follower) fill(r float64) float64 { return r * (f.base + f.mid()).Seconds() }

// stop ends a search. What it has found shows in the next round.
func (f *Follower) stop() bool {
	found := f.finding
	f.finding = false
	f.weighing = f.weighing || found
	return found
}

// lookForMore is for rounds that show no queue.
func (f *Follower) lookForMore(r float64, held bool) {
	f.rate = max(f.rate, r)
	switch {
	case f.finding && r > noGrowth*f.best:
		f.best, f.search = r, 0
	case f.finding && held && f.patience > 0:
		f.patience-- // the transport is what holds it
	case f.finding:
		if f.search++; f.search >= fruitless {
			f.finding = false
			f.rate, f.rest = r, restRounds
			f.window = f.fill(r)
		}
	case f.rest > 0:
		f.rest--
		f.rate = r
	default:
		f.seek(r)
	}
}

// seek begins a search.
func (f *Follower) seek(r float64) {
	f.finding, f.best, f.search, f.patience = true, r, 0, patience
}

// tooMuch is for rounds that show a long queue: what comes is all that the link
// delivers. Unless it is the path that has become longer: then less in flight
// means a lower rate and the same round trip.
func (f *Follower) tooMuch(now time.Time, r float64) {
	f.held = 0
	if f.stop() {
		return
	}
	moved := f.over && f.path-f.base > (f.overPath-f.base)/2 && (r < shrunk*f.overRate || f.window <= capFloor)
	switch {
	case moved && f.guess && now.Sub(f.baseAt) > f.path*guessRounds:
		f.over = false
		f.rate = f.overRate
		f.measure() // no guess upon a guess
		return
	case moved:
		f.shift(now, f.overRate)
		return
	}
	if !f.over || f.path-f.base < (f.overPath-f.base)/2 {
		f.overRate, f.overPath = r, f.path
	}
	f.over = true
	f.rate = r
	f.window = f.lower(r)
	f.settling = true
}

// lower is the window for a rate that is lower than before. Where the line delivers in
// bunches one round may have missed them: it halves the window at most.
func (f *Follower) lower(r float64) float64 {
	if f.bunched {
		return max(f.fill(r), f.window/2)
	}
	return f.fill(r)
}

// shift takes the path for longer than was believed, and looks for more at once.
func (f *Follower) shift(now time.Time, rate float64) {
	f.base, f.baseAt, f.guess = f.least, now, true
	f.over, f.rest, f.held = false, 0, 0
	f.rate = rate
	f.window = max(f.fill(rate), f.window)
	f.skip = 1
	f.seek(rate)
}

// checkBase has the least round trip measured anew when it is old.
func (f *Follower) checkBase(now time.Time) {
	age := max(baseWindow, baseRounds*f.path)
	if f.guess {
		age = shiftWindow
	}
	if now.Sub(f.baseAt) > age && !f.over && !f.finding && !f.weighing {
		f.measure()
	}
}

// measure begins to measure the least round trip with little in flight. On a slow
// line the smoothed round trip takes two of them to follow.
func (f *Follower) measure() {
	f.drains, f.settling = 1, true
	if f.rate*f.base.Seconds() < slowVolume {
		f.drains = 2
	}
}

// endDrain takes what was measured with little in flight.
func (f *Follower) endDrain(now time.Time) {
	if f.drains--; f.drains > 0 {
		return
	}
	f.guess = f.guess && f.least < f.base*9/10
	f.base, f.baseAt = f.least, now
	f.window = max(f.fill(f.rate), capFloor)
	f.weighing, f.skip = false, 1
	if f.eager {
		f.eager = false
		f.seek(0)
	}
}

// Most is Window, or less while the least round trip is measured.
func (f *Follower) Most() int {
	switch {
	case f.drains == 0:
	case f.guess:
		return max(capFloor, int(drainGuess*f.rate*f.base.Seconds()))
	default:
		return max(capFloor, int(drainSure*f.rate*f.base.Seconds()))
	}
	return f.Window()
}
