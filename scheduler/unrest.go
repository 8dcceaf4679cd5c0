package scheduler

import "time"

// Constants of unrest.
const (
	slotMin     = 300 * time.Millisecond // over which a rate is measured
	slotPaths   = 2                      // round trips of which it is, at least
	slotLooks   = 8                      // looks that it needs
	restlessFor = 15 * time.Second       // after the last change
	unrestSpan  = 10 * time.Second       // in which the rates that are compared were measured
	unrestRatio = 2                      // of the largest to the least of them
	outage      = 500 * time.Millisecond // without any progress
	fullQueue   = 15 * time.Millisecond  // beyond the least round trip: the link is full
	leastPath   = 5 * time.Millisecond   // round trip of a path that is followed
)

// unrest notices that a link changes its rate: that it was full twice within ten
// seconds, for more than half a second each time, and delivered less than half as
// much the one time as the other. Only a link that is full all the time tells its
// rate: its round trips never are as short as they could be. And only two
// slots in a row count, as the sender may have been short of a processor in one.
// A link that was dead for half a second is restless, too. One that nobody looked at
// meanwhile was not dead but at rest: what the last look saw under way had come soon after.
//
// Paths of less than leastPath are no uplinks by radio: what changes there is
// the share of a processor that the programs get, and to follow that took such
// links down to a tenth of their rate.
type unrest struct {
	moved  time.Time     // when anything was acknowledged last
	stuck  bool          // something was in flight then
	still  time.Duration // how long after it a look last found that nothing had come
	until  time.Time
	base   time.Duration // the least round trip of the last ten seconds or so
	baseAt time.Time

	least, most     float64 // of the rates; 0: none
	leastAt, mostAt time.Time
	last            float64 // of the slot before; 0: the link was not full

	// The present slot.
	at           time.Time
	from, seen   uint64
	lowest       time.Duration // round trip
	looks, fills int           // looks, and those that found the window full
}

// restless reports whether the rate has changed lately.
func (u *unrest) restless(now time.Time) bool { return u.base >= leastPath && now.Before(u.until) }

// renew prepares for another connection.
func (u *unrest) renew() { *u = unrest{until: u.until, moved: u.moved, stuck: u.stuck, still: u.still} }

// look takes in a look at a link that has a window. swings is how high round trips
// rise by themselves: that is no queue.
func (u *unrest) look(now time.Time, v View, window int, swings time.Duration) {
	if v.RTT == 0 {
		return
	}
	if u.base == 0 || v.RTT <= u.base || now.Sub(u.baseAt) > unrestSpan {
		u.base, u.baseAt = v.RTT, now
	}
	if v.Delivered == u.seen {
		u.still = now.Sub(u.moved)
	} else {
		if u.stuck && u.still > outage/2 && now.Sub(u.moved) > outage {
			u.until = now.Add(restlessFor)
		}
		u.moved, u.still = now, 0
	}
	if now.Sub(u.moved) < outage/2 {
		u.stuck = v.Flying > evidence
	}
	u.looks++
	if u.lowest == 0 || v.RTT < u.lowest {
		u.lowest = v.RTT
	}
	u.seen = v.Delivered
	if full(v, float64(window)) {
		u.fills++
	}
	if now.Sub(u.at) >= max(slotMin, slotPaths*v.RTT) {
		u.close(now, swings)
		*u = unrest{
			moved: u.moved, stuck: u.stuck, still: u.still, until: u.until, base: u.base, baseAt: u.baseAt, last: u.last,
			least: u.least, leastAt: u.leastAt, most: u.most, mostAt: u.mostAt,
			at: now, from: v.Delivered, seen: v.Delivered,
		}
	}
}

// close judges a slot.
func (u *unrest) close(now time.Time, swings time.Duration) {
	before := u.last
	u.last = 0
	if u.at.IsZero() || u.looks < slotLooks || u.fills*4 < u.looks*3 || u.lowest-u.base < max(fullQueue, u.base/4, swings) {
		return
	}
	u.last = float64(u.seen-u.from) / now.Sub(u.at).Seconds()
	if before == 0 || u.last == 0 {
		return
	}
	if high := min(before, u.last); high >= u.most || now.Sub(u.mostAt) > unrestSpan {
		u.most, u.mostAt = high, now
	}
	if low := max(before, u.last); u.least == 0 || low <= u.least || now.Sub(u.leastAt) > unrestSpan {
		u.least, u.leastAt = low, now
	}
	if u.most > unrestRatio*u.least {
		u.until = now.Add(restlessFor)
	}
}

// full reports whether a window is what holds a link: it is full, and not of
// bytes that the transport has yet to send, or to send again.
func full(v View, window float64) bool {
	return float64(v.Flying) > usedShare*window && float64(v.InFlight) > sentShare*window
}

// idle reports whether a window is full of bytes that the transport does not send. On a
// slow line they are fewer than always wait for a transport on a fast one.
func idle(v View, window float64) bool {
	return float64(v.Flying) > usedShare*window && float64(v.InFlight) <= sentShare*window
}
