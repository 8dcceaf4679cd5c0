package simlink

import "time"

// bbr is congestion control as the kernel's BBR has it (version 1, tcp_bbr.c):
// a window of two bandwidth-delay products and a pacing rate that probes in one
// round of eight; losses mean nothing to it. Links of the pair have it by
// default.
type bbr struct {
	bw      [rateRounds]float64 // the largest rate by round, bytes per second
	round   int
	roundTo uint64 // delivered at its end
	minRTT  time.Duration
	minAt   time.Time
	best    float64 // bandwidth at the last growth, in the start
	stale   int     // rounds without growth
	state   bbrState
	phase   int // of the probing cycle
	phaseAt time.Time
	drainTo time.Time // the least round trip is measured until then
}

type bbrState int

const (
	bbrStart bbrState = iota
	bbrDrain
	bbrProbe
)

// Constants of tcp_bbr.c.
const (
	rateRounds = 10
	highGain   = 2.885
	windowGain = 2
	minWindow  = 10 * time.Second
	minDrain   = 200 * time.Millisecond
	leastSegs  = 4
)

var bbrCycle = [8]float64{1.25, 0.75, 1, 1, 1, 1, 1, 1}

// rateSample is what an acknowledgement tells.
type rateSample struct {
	now       time.Time
	rtt       time.Duration // 0: unknown
	rate      float64       // bytes per second; 0: unknown
	limited   bool          // the sender had nothing more to send
	sentAt    uint64        // delivered when the packet was sent
	delivered uint64        // now
	inFlight  int
}

func (b *bbr) rate() (most float64) {
	for _, r := range b.bw {
		most = max(most, r)
	}
	return most
}

func (b *bbr) acked(s rateSample) {
	newRound := s.sentAt >= b.roundTo
	if newRound {
		b.roundTo = s.delivered
		b.round++
		b.bw[b.round%rateRounds] = 0
	}
	if s.rate > b.rate() || !s.limited {
		at := &b.bw[b.round%rateRounds]
		*at = max(*at, s.rate)
	}
	b.measure(s)
	switch b.state {
	case bbrStart:
		if newRound && !s.limited {
			b.checkFull()
		}
	case bbrDrain:
		if s.inFlight <= b.product(1) {
			b.state, b.phase, b.phaseAt = bbrProbe, 2, s.now
		}
	case bbrProbe:
		b.cycle(s)
	}
}

func (b *bbr) measure(s rateSample) {
	switch {
	case s.rtt == 0:
	case b.minRTT == 0 || s.rtt <= b.minRTT:
		b.minRTT, b.minAt = s.rtt, s.now
	case s.now.Sub(b.minAt) > minWindow && b.drainTo.IsZero():
		b.drainTo, b.minRTT = s.now.Add(minDrain+s.rtt), s.rtt
	}
	if !b.drainTo.IsZero() && s.now.After(b.drainTo) {
		b.drainTo, b.minAt = time.Time{}, s.now
	}
}

func (b *bbr) checkFull() {
	if r := b.rate(); r >= 1.25*b.best {
		b.best, b.stale = r, 0
	} else if b.stale++; b.stale >= 3 {
		b.state = bbrDrain
	}
}

func (b *bbr) cycle(s rateSample) {
	passed := s.now.Sub(b.phaseAt) > b.minRTT
	switch gain := bbrCycle[b.phase]; {
	case gain > 1:
		passed = passed && s.inFlight >= b.product(1.2)
		passed = passed || s.now.Sub(b.phaseAt) > 2*b.minRTT // it has too little to fill that
	case gain < 1:
		passed = passed || s.inFlight <= b.product(1)
	}
	if passed {
		b.phase, b.phaseAt = (b.phase+1)%len(bbrCycle), s.now
	}
}

// product is the bandwidth-delay product times a gain, bytes.
func (b *bbr) product(gain float64) int { return int(gain * b.rate() * b.minRTT.Seconds()) }

// window is what may be in flight.
func (b *bbr) window() int {
	switch {
	case !b.drainTo.IsZero():
		return leastSegs * segment
	case b.rate() == 0:
		return 10 * segment
	case b.state == bbrStart:
		return max(b.product(highGain), 10*segment) + 3*segment
	}
	return max(b.product(windowGain), leastSegs*segment) + 3*segment
}

// pace is the rate at which to send, with the round trip of the handshake. In the
// start it does not fall below that of the first window: what little was sent
// before says nothing.
func (b *bbr) pace(rtt time.Duration) float64 {
	switch b.state {
	case bbrStart:
		return highGain * max(b.rate(), 10*segment/rtt.Seconds())
	case bbrDrain:
		return b.rate() / highGain
	}
	return bbrCycle[b.phase] * b.rate() * 0.99
}
