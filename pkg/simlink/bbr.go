package simlink

import "time"

// bbr is congestion control as the kernel's BBR has it (version 1, tcp_bbr.c):
// a window of two bandwidth-delay products and what acknowledgements bunch
// together, and a pacing rate that probes in one round of eight. Losses take off
// the window only what is lost, until they are made good; a time-out takes all of
// it. Links of the pair have it by default.
type bbr struct {
	bw      maxFilter // bytes per second, by rounds
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
	paced   float64   // in the start the rate does not fall
	extra   bunching

	cwnd     int // bytes
	prior    int // cwnd before losses
	mend     mending
	mended   mending // at the last acknowledgement
	conserve bool    // as much is sent as has come
}

type bbrState int

const (
	bbrStart bbrState = iota
	bbrDrain
	bbrProbe
)

// mending is what a connection does about losses.
type mending int

const (
	mendNothing mending = iota
	mendHoles           // recovery: others have overtaken what was lost
	mendAll             // after a time-out
)

// Constants of tcp_bbr.c.
const (
	rateRounds = 10
	highGain   = 2.885
	windowGain = 2
	minWindow  = 10 * time.Second
	minDrain   = 200 * time.Millisecond
	leastSegs  = 4
	firstSegs  = 10
	extraMost  = 100 * time.Millisecond
	extraRound = 5
	margin     = 0.99
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
	acked     int           // bytes, newly
	lost      int           // bytes, newly found
	before    int           // bytes in flight before
	inFlight  int
}

// begin starts with the window that is there and a round trip; first or anew. The
// least round trip is the least of the last minutes, however old that is.
//
// The kernel takes the window that there is, however small (bbr_init leaves snd_cwnd
// alone), and none is made smaller by a rest (tcp_slow_start_after_idle is not for
// congestion controls that have cong_control). The model is kinder where the window was
// below ten packets: after a time-out, and on short paths.
func (b *bbr) begin(now time.Time, rtt, least time.Duration, delivered uint64) {
	cwnd := max(b.cwnd, firstSegs*segment)
	*b = bbr{cwnd: cwnd, minRTT: least, minAt: now, roundTo: delivered, mend: b.mend}
	b.paced = highGain * float64(cwnd) / rtt.Seconds()
}

func (b *bbr) full() bool { return b.state != bbrStart }

func (b *bbr) acked(s rateSample) {
	newRound := s.sentAt >= b.roundTo
	if newRound {
		b.roundTo = s.delivered
		b.round++
		b.conserve = false
	}
	if s.rate > 0 && (s.rate >= b.bw.most() || !s.limited) {
		b.bw.add(b.round, s.rate)
	}
	b.extra.acked(s, newRound, b.bw.most(), b.cwnd)
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
	if b.state == bbrStart {
		b.paced = max(b.paced, highGain*b.bw.most()*margin)
	}
	b.setWindow(s)
}

func (b *bbr) measure(s rateSample) {
	switch {
	case s.rtt == 0:
	case b.minRTT == 0 || s.rtt <= b.minRTT:
		b.minRTT, b.minAt = s.rtt, s.now
	case s.now.Sub(b.minAt) > minWindow && b.drainTo.IsZero():
		b.drainTo, b.minRTT = s.now.Add(minDrain+s.rtt), s.rtt
		b.save()
	}
	if !b.drainTo.IsZero() && s.now.After(b.drainTo) {
		b.drainTo, b.minAt = time.Time{}, s.now
		b.cwnd = max(b.cwnd, b.prior)
	}
}

func (b *bbr) checkFull() {
	if r := b.bw.most(); r >= 1.25*b.best {
		b.best, b.stale = r, 0
	} else if b.stale++; b.stale >= 3 {
		b.state = bbrDrain
	}
}

func (b *bbr) cycle(s rateSample) {
	passed := s.now.Sub(b.phaseAt) > b.minRTT
	switch gain := bbrCycle[b.phase]; {
	case gain > 1:
		passed = passed && (s.lost > 0 || s.before >= b.product(gain))
	case gain < 1:
		passed = passed || s.before <= b.product(1)
	}
	if passed {
		b.phase, b.phaseAt = (b.phase+1)%len(bbrCycle), s.now
	}
}

// save keeps the window for when losses are made good.
func (b *bbr) save() {
	if b.mended == mendNothing && b.drainTo.IsZero() {
		b.prior = b.cwnd
	} else {
		b.prior = max(b.prior, b.cwnd)
	}
}

// timeout is told of when all in flight counts as lost.
func (b *bbr) timeout() {
	if b.mend != mendAll {
		b.save()
	}
	b.mend, b.mended, b.best = mendAll, mendAll, 0
	b.cwnd = segment
}

// holes is told of when others have overtaken a packet.
func (b *bbr) holes() {
	if b.mend == mendNothing {
		b.save()
		b.mend = mendHoles
	}
}

// whole is told of when all that was lost has come.
func (b *bbr) whole() { b.mend = mendNothing }

// setWindow follows bbr_set_cwnd.
func (b *bbr) setWindow(s rateSample) {
	if s.acked == 0 {
		return
	}
	b.cwnd = max(b.cwnd-s.lost, segment)
	switch {
	case b.mend == mendHoles && b.mended != mendHoles:
		b.conserve, b.roundTo = true, s.delivered
		b.cwnd = s.inFlight + s.acked
	case b.mend == mendNothing && b.mended != mendNothing:
		b.conserve = false
		b.cwnd = max(b.cwnd, b.prior)
	}
	b.mended = b.mend
	if b.conserve {
		b.cwnd = max(b.cwnd, s.inFlight+s.acked)
		return
	}
	gain := float64(windowGain)
	if b.state != bbrProbe {
		gain = highGain
	}
	target := b.product(gain) + 3*segment
	if b.full() {
		b.cwnd = min(b.cwnd+s.acked, target+b.extra.most(b.bw.most()))
	} else if b.cwnd < target || s.delivered < firstSegs*segment {
		b.cwnd += s.acked
	}
	b.cwnd = max(b.cwnd, leastSegs*segment)
}

// product is the bandwidth-delay product times a gain, bytes.
func (b *bbr) product(gain float64) int { return int(gain * b.bw.most() * b.minRTT.Seconds()) }

// window is what may be in flight.
func (b *bbr) window() int {
	if !b.drainTo.IsZero() {
		return min(b.cwnd, leastSegs*segment)
	}
	return b.cwnd
}

// pace is the rate at which to send.
func (b *bbr) pace() float64 {
	switch b.state {
	case bbrStart:
		return b.paced
	case bbrDrain:
		return b.bw.most() / highGain * margin
	}
	return bbrCycle[b.phase] * b.bw.most() * margin
}

// maxFilter is the largest of the last rateRounds rounds' values, as the kernel
// keeps it (win_minmax.c): it forgets only when something is added.
type maxFilter [3]struct {
	round int
	v     float64
}

func (m *maxFilter) most() float64 { return m[0].v }

func (m *maxFilter) add(round int, v float64) {
	at := m[0]
	at.round, at.v = round, v
	if v >= m[0].v || round-m[2].round > rateRounds {
		m[0], m[1], m[2] = at, at, at
		return
	}
	if v >= m[1].v {
		m[1], m[2] = at, at
	} else if v >= m[2].v {
		m[2] = at
	}
	switch age := round - m[0].round; {
	case age > rateRounds:
		m[0], m[1], m[2] = m[1], m[2], at
		if round-m[0].round > rateRounds {
			m[0], m[1], m[2] = m[1], m[2], at
		}
	case m[1].round == m[0].round && age > rateRounds/4:
		m[1], m[2] = at, at
	case m[2].round == m[1].round && age > rateRounds/2:
		m[2] = at
	}
}

// bunching is how much more is acknowledged at times than the rate explains
// (bbr_update_ack_aggregation).
type bunching struct {
	since  time.Time
	bytes  int
	rounds int
	recent [2]int // the most in five rounds, and in the five before
	now    int    // of recent
}

func (a *bunching) acked(s rateSample, newRound bool, bw float64, cwnd int) {
	if s.acked == 0 || bw == 0 {
		return
	}
	if newRound {
		if a.rounds++; a.rounds >= extraRound {
			a.rounds, a.now = 0, 1-a.now
			a.recent[a.now] = 0
		}
	}
	expected := int(bw * s.now.Sub(a.since).Seconds())
	if a.bytes <= expected {
		a.bytes, a.since, expected = 0, s.now, 0
	}
	a.bytes += s.acked
	a.recent[a.now] = max(a.recent[a.now], min(a.bytes-expected, cwnd))
}

func (a *bunching) most(bw float64) int {
	return min(max(a.recent[0], a.recent[1]), int(bw*extraMost.Seconds()))
}
