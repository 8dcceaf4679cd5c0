package scheduler

import "time"

// ECF is path choice by earliest completion first (Lim et al., CoNEXT'17): a
// slow link is used only if what is left of the flow would not be complete
// sooner by waiting for the fast one. With k the bytes left, x = max(k, cwnd):
//
//	wait if srtt_f (x_f + cwnd_f) < (1 + beta waiting) cwnd_f (srtt_s + delta)
//	    and srtt_s x_s >= cwnd_s (2 srtt_f + delta)
//
// with delta the larger deviation of the two round trips, and beta = 0.25 a
// hysteresis in favour of the decision before.
type ECF struct{ waiting bool }

const ecfBeta = 0.25

// Pick implements Path.
func (e *ECF) Pick(links []Link, c Chunk) (int, bool) {
	f, s := fastest(links)
	switch {
	case s < 0:
		return 0, false
	case f == s:
		return f, true
	}
	if e.wait(links[f], links[s], c.Left) {
		return 0, false
	}
	return s, true
}

func (e *ECF) wait(f, s Link, left int) bool {
	delta := max(f.RTTVar, s.RTTVar)
	cf, cs := float64(f.window()), float64(s.window())
	xf, xs := max(float64(left), cf), max(float64(left), cs)
	slack := 1.0
	if e.waiting {
		slack += ecfBeta
	}
	if seconds(f.SRTT)*(xf+cf) >= slack*cf*seconds(s.SRTT+delta) {
		e.waiting = false
		return false
	}
	e.waiting = seconds(s.SRTT)*xs >= cs*seconds(2*f.SRTT+delta)
	return e.waiting
}

func seconds(d time.Duration) float64 { return d.Seconds() }
