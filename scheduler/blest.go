package scheduler

import "time"

// BLEST is path choice by blocking estimation (Ferlin et al., Networking'16):
// a slow link is used only if what the fast one could send during the slow
// one's round trip still fits into the flow's window beside it:
//
//	fast bytes = MSS (cwnd_f + (n-1)/2) n, n = srtt_s/srtt_f + 1
//	use s if lambda * fast bytes <= window - (in flight on s + chunk)
//
// lambda grows by 4 % for a round trip in which the window blocked the flow all
// the same, and falls by 1 % for one in which it did not, between 1.0 and 1.3.
type BLEST struct {
	lambda  float64
	blocked bool
	next    time.Time // when lambda changes again
}

const (
	blestStart = 1.2
	blestLeast = 1.0
	blestMost  = 1.3
	blestBad   = 0.04
	blestGood  = 0.01
)

// NewBLEST returns the policy in its first state.
func NewBLEST() *BLEST { return &BLEST{lambda: blestStart} }

// Pick implements Path.
func (b *BLEST) Pick(links []Link, c Chunk) (int, bool) {
	f, s := fastest(links)
	if s < 0 {
		return 0, false
	}
	b.adapt(links[f].MinRTT, c)
	if f == s {
		return f, true
	}
	free := float64(c.Window - links[s].InFlight - c.Size)
	if b.lambda*fastBytes(links[f], links[s]) <= free {
		return s, true
	}
	return 0, false
}

// adapt moves lambda once per round trip.
func (b *BLEST) adapt(rtt time.Duration, c Chunk) {
	b.blocked = b.blocked || c.Blocked
	if c.Now.Before(b.next) {
		return
	}
	if b.blocked {
		b.lambda = min(b.lambda+blestBad, blestMost)
	} else {
		b.lambda = max(b.lambda-blestGood, blestLeast)
	}
	b.blocked, b.next = false, c.Now.Add(rtt)
}

// fastBytes is what the fast link can send during a round trip of the slow one
// when its window grows by a packet per round trip.
func fastBytes(f, s Link) float64 {
	n := 1.0
	if f.SRTT > 0 {
		n += seconds(s.SRTT) / seconds(f.SRTT)
	}
	return (float64(f.window()) + packet*(n-1)/2) * n
}
