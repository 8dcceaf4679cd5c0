package scheduler

import "time"

// Constants of lull.
const (
	lullMin    = 40 * time.Millisecond  // of silence before a link is doubted, at least
	lullGain   = 4                      // times the longest lull lately
	lullMost   = 400 * time.Millisecond // longer ones are outages, which to doubt was right
	lullSpan   = 4 * time.Second        // lulls of the last one or two of them count
	lullKnown  = time.Second            // of use, before which nothing is known
	lullSettle = 500 * time.Millisecond // of use after an outage, or of a connection, that says nothing
	lullLook   = 10 * time.Millisecond  // between looks counts at most: the rest may be this end's own
	lullLeast  = packet                 // bytes, no more of which tell nothing: a receiver answers the last packet before a silence 40 ms later
	lullShare  = 0.6                    // of what the path holds in the network: the link is busy
	lullRounds = 1.25                   // round trips for which it has been, so that what comes has no gap of the sender's making
)

// lull keeps for how long nothing comes of a busy link that is well, and so after what
// silence it is likely to be dead: lines of one rate bring something every few
// milliseconds, those of radio pause.
type lull struct {
	seen    uint64           // delivered when it last grew by more than a packet
	moved   time.Time        // when it did
	silent  time.Duration    // since then, as far as anybody looked
	at      time.Time        // of the look before
	idle    time.Time        // when the link was last not busy
	rtt     time.Duration    // the transport's
	settled time.Duration    // of use since an outage
	known   time.Duration    // of use that longest is of, up to lullKnown
	from    time.Time        // of the present span
	longest [2]time.Duration // of the span before, and of the present one
}

// look takes in a look at a transport whose path holds so many bytes; 0: not known yet.
func (u *lull) look(now time.Time, v View, holds float64) {
	if now.Sub(u.from) > lullSpan {
		u.longest, u.from = [2]time.Duration{u.longest[1]}, now
	}
	u.silent += max(min(now.Sub(u.at), lullLook), 0)
	u.at, u.rtt = now, v.RTT
	if v.Delivered-u.seen > lullLeast {
		u.move()
		u.seen, u.moved, u.silent = v.Delivered, now, 0
	}
	if holds == 0 || float64(v.InFlight) < max(evidence, lullShare*holds) {
		u.idle = now
	}
}

// busy reports whether the link was busy, for long enough, when something last came.
func (u *lull) busy() bool {
	return u.moved.Sub(u.idle) > time.Duration(lullRounds*float64(u.rtt))
}

// move takes in that something has come again.
func (u *lull) move() {
	switch {
	case u.silent > lullMost:
		u.settled = 0
	case !u.busy():
	case u.settled < lullSettle:
		u.settled += u.silent
	default:
		u.longest[1] = max(u.longest[1], u.silent)
		u.known = min(u.known+u.silent, lullKnown)
	}
}

// renewed is what is known once another connection was made.
func (u *lull) renewed() lull { return lull{known: u.known, longest: u.longest, from: u.from} }

// Doubted reports whether a link has been silent for far longer than it ever is while it
// is busy, so that it is likely to be dead.
func (e *Estimator) Doubted() bool {
	u := &e.lull
	return u.known >= lullKnown && u.settled >= lullSettle && u.busy() &&
		u.silent > max(lullMin, lullGain*max(u.longest[0], u.longest[1]))
}

// holds is how many bytes the path holds, or 0 while that is not known.
func (e *Estimator) holds() float64 {
	if !e.full {
		return 0
	}
	return e.bw * e.minRTT.Seconds()
}
