package scheduler

import "time"

// Overdue is data order by re-injection: a chunk that blocks the head of its
// flow and is later than predicted is sent a second time on another link, as
// long as the budget for copies lasts. (XLINK, SIGCOMM'21, re-injects by age;
// here the prediction already contains the queue, so that a long queue is not
// mistaken for a fault.)
type Overdue struct {
	tokens float64 // bytes that copies may still take
	urgent float64 // bytes that copies made at once may still take
}

// Budget of copies: a share of what was delivered, and what may be saved up.
const (
	budgetShare = 0.03
	budgetDepth = 512 << 10
	budgetStart = 64 << 10
	urgentShare = 0.01
	heardShare  = 0.0025 // of what has come
	urgentDepth = 64 << 10
	lateMin     = 40 * time.Millisecond
	lateMax     = 500 * time.Millisecond
	lateSlack   = 20 * time.Millisecond
	mendTime    = 0.75                   // of a round trip, in which a transport makes good a loss
	silentMin   = 50 * time.Millisecond  // without anything that has arrived: what is late may not come
	wrongBy     = 350 * time.Millisecond // that a prediction was wrong by: so may be the rate
	mendSilence = 10 * time.Millisecond  // beyond it the path may be dead
	stuckMin    = 150 * time.Millisecond // that a flow's head has not moved for, before bulk goes twice on a link that delivers
	stuckQuiet  = 90 * time.Millisecond  // the same where nothing has come for as long, or behind a gap
	stuckLong   = 250 * time.Millisecond // after that what was predicted says no more
)

// NewOverdue returns a policy with a small starting budget.
func NewOverdue() Overdue { return Overdue{tokens: budgetStart, urgent: urgentDepth} }

// Delivered earns budget.
func (o *Overdue) Delivered(n int) {
	o.tokens = min(o.tokens+budgetShare*float64(n), budgetDepth)
	o.urgent = min(o.urgent+urgentShare*float64(n), urgentDepth)
}

// Received earns the budget of copies made at once by what has come from the peer: the
// requests beside a download are little, and are waited for as its answers are.
func (o *Overdue) Received(n int) { o.urgent = min(o.urgent+heardShare*float64(n), urgentDepth) }

// Late returns the age at which a chunk with prediction pred (the expected age
// at its acknowledgement) is overdue.
func Late(pred, rttvar time.Duration) time.Duration {
	return min(max(pred+max(4*rttvar, lateSlack), lateMin), max(lateMax, pred+lateMin))
}

// Told is what a transport tells of bulk that is late.
type Told uint8

// What it tells.
const (
	Nothing Told = iota // or it is not bulk that is late
	Whole               // what has come, and of no gap
	Gap                 // of a gap, which it is about to fill
)

// Stuck tells whether a chunk of an age is overdue, where its flow's head has not moved for
// so long. late is what Late says. Where the transport delivers bulk, and the head moves,
// nothing is gained: most copies were of what came soon after by itself, behind a gap, too,
// that is being filled. And where the head has not, a chunk that was predicted to take
// seconds, on a line that has nearly died, is late all the same.
func Stuck(age, late, stuck, silence time.Duration, told Told) bool {
	switch told {
	case Whole:
		return age >= min(late, stuckLong) && (stuck >= stuckMin || min(stuck, silence) >= stuckQuiet)
	case Gap:
		return age >= late && (stuck >= stuckQuiet || silence >= silentMin)
	}
	return age >= late
}

// Mending is how much longer than predicted a chunk may take because its transport
// is busy making good a loss, or 0. It hears of what it sent later, and either of a
// gap before that, or it does not tell what has arrived: then a chunk that is late has
// a gap. A copy made before that has had its time arrives after the original in half
// of all cases, and in the others a few milliseconds before it. silence is the time
// since the transport heard anything: where a path dies copies are made at once.
func Mending(s Sense, silence time.Duration) time.Duration {
	if !s.Known || silence > mendSilence || s.Arrived > 0 && s.Ahead == 0 {
		return 0
	}
	return time.Duration(mendTime * float64(s.RTT))
}

// Wait is how much longer a chunk that is late is likely to be on its way: age is its age,
// pred its prediction, ahead the bytes before its end that have not arrived, and silence
// for how long nothing has. A link that delivers goes on as it does, and one that is silent
// is so for as long again, at least. Where it is silent for longer than its rate explains, or
// was predicted all wrong, one late by x is expected late by another x.
func (l Link) Wait(ahead int, age, pred, silence time.Duration) time.Duration {
	wait := l.drain(ahead) - l.MinRTT/2
	if silence > mendSilence {
		wait = max(wait, silence) // as long again
	}
	if silence > max(silentMin, l.drain(2*packet)) || age-pred > wrongBy {
		wait = max(wait, age-pred)
	}
	return wait
}

// Guess is Wait where less is known: the chunk itself may be lost, or is so small that a
// copy costs less than somebody's waiting.
func (l Link) Guess(age, pred time.Duration) time.Duration {
	return max(lateSlack, age-pred, l.drain(l.InFlight))
}

// Copy says on which link a chunk of n bytes that is late on links[on] should
// be sent again, or false. A copy is worth it when it arrives before the original is
// likely to, which takes another wait.
func (o *Overdue) Copy(links []Link, on, n int, wait time.Duration) (int, bool) {
	if o.tokens < float64(n) {
		return 0, false
	}
	for _, lane := range [...]bool{false, true} {
		if best := soonest(links, on, n, false, lane); best >= 0 && links[best].ETA(n) < wait {
			return best, true
		}
	}
	return 0, false
}

// Again says whether the budget has n bytes left for a copy by the same link.
func (o *Overdue) Again(n int) bool { return o.tokens >= float64(n) }

// Spend takes a copy's bytes off the budget.
func (o *Overdue) Spend(n int) { o.tokens -= float64(n) }

// Sizes of what is urgent, in bytes.
const (
	// UrgentHead is how much of a flow's beginning is.
	UrgentHead = 4 << 10
	// urgentSmall is the largest message that is.
	urgentSmall = 2 << 10
)

// Presses reports whether people wait for a chunk of n bytes at offset off of its
// flow: it is of the first bytes, or a small message that is all that its flow has
// under way (alone).
func Presses(off, n int, alone bool) bool {
	return off < UrgentHead || n <= urgentSmall && alone
}

// Urgent says whether a chunk should be sent on two links at once, and where
// else than on links[on]: one that presses. A copy saves those who wait the time
// in which a dead or slow link is found out. off is the chunk's offset in its
// flow. Small messages may spend the whole budget, and need
// no room; a flow's first bytes may spend only the upper half.
func (o *Overdue) Urgent(links []Link, on, off, n int, alone bool) (int, bool) {
	small := n <= urgentSmall
	switch {
	case !Presses(off, n, alone):
		return 0, false
	case small && o.urgent < float64(n), !small && o.urgent < urgentDepth/2+float64(n):
		return 0, false
	}
	best := soonest(links, on, n, small, false)
	if best < 0 {
		best = soonest(links, on, n, small, true) // a lost packet holds up one lane
	}
	if best < 0 {
		return 0, false
	}
	o.urgent -= float64(n)
	return best, true
}

// Beside says whether a small chunk that presses should go once more by the same link,
// where it has another strand: if its packet is lost there, the copy elsewhere may have
// far to go. It leaves half of the budget to those.
func (o *Overdue) Beside(off, n int, alone bool) bool {
	if n > urgentSmall || !Presses(off, n, alone) || o.urgent < urgentDepth/2+float64(n) {
		return false
	}
	o.urgent -= float64(n)
	return true
}

// soonest is the link other than links[on] on which n bytes arrive first, of
// those that are up and have room, or, with full, even if they have none; -1:
// none. It is another lane of the same uplink, or else one of another uplink: what
// an uplink loses when it dies is safe only there.
func soonest(links []Link, on, n int, full, lane bool) int {
	best := -1
	for i, l := range links {
		if i == on || l.State != Up || l.Room <= 0 && !full {
			continue
		}
		if same := on >= 0 && l.Uplink == links[on].Uplink; same != lane {
			continue
		}
		if best < 0 || l.ETA(n) < links[best].ETA(n) {
			best = i
		}
	}
	return best
}
