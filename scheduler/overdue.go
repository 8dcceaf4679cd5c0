package scheduler

import "time"

// Overdue is data order by re-injection: a chunk that blocks the head of its
// flow and is later than predicted is sent a second time on another link, as
// long as the budget for copies lasts. (XLINK, SIGCOMM'21, re-injects by age;
// here the prediction already contains the queue, so that a long queue is not
// mistaken for a fault.)
type Overdue struct {
	tokens float64 // bytes that copies may still take
}

// Budget of copies: a share of what was delivered, and what may be saved up.
const (
	budgetShare = 0.05
	budgetDepth = 512 << 10
	budgetStart = 64 << 10
	lateMin     = 40 * time.Millisecond
	lateMax     = 500 * time.Millisecond
	lateSlack   = 20 * time.Millisecond
)

// NewOverdue returns a policy with a small starting budget.
func NewOverdue() Overdue { return Overdue{tokens: budgetStart} }

// Delivered earns budget.
func (o *Overdue) Delivered(n int) {
	o.tokens = min(o.tokens+budgetShare*float64(n), budgetDepth)
}

// Late returns the age at which a chunk with prediction pred (the expected age
// at its acknowledgement) is overdue.
func Late(pred, rttvar time.Duration) time.Duration {
	return min(max(pred+max(4*rttvar, lateSlack), lateMin), max(lateMax, pred+lateMin))
}

// Copy says on which link a chunk of n bytes that is late on links[on] should
// be sent again, or false. age is its age, pred its prediction. A copy is worth
// it when it arrives before the original is likely to: a chunk late by x is
// expected to be late by another x.
func (o *Overdue) Copy(links []Link, on, n int, age, pred time.Duration) (int, bool) {
	if o.tokens < float64(n) {
		return 0, false
	}
	best := -1
	for i, l := range links {
		if i == on || l.State != Up || l.Room <= 0 {
			continue
		}
		if best < 0 || l.ETA(n) < links[best].ETA(n) {
			best = i
		}
	}
	if best < 0 {
		return 0, false
	}
	wait := max(lateSlack, age-pred)
	if on >= 0 {
		wait = max(wait, links[on].drain(links[on].InFlight))
	}
	return best, links[best].ETA(n) < wait
}

// Spend takes a copy's bytes off the budget.
func (o *Overdue) Spend(n int) { o.tokens -= float64(n) }
