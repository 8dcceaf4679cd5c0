package bbr

// State is what the controller tries out at present (5.3).
//
// Startup (5.3.1) doubles the rate each round until three rounds have brought
// no quarter more, or until a full path shows by heavy loss or, where the caller says
// that the path is steady, by a round without growth in which a queue has stood. It is
// left for Drain.
//
// Drain (5.3.2) sends at half the rate until the queue that Startup built is
// gone, that is, until no more is in flight than the path holds, or for three
// rounds. It is left for ProbeDown.
//
// ProbeDown (5.3.3.1) sends a tenth less than the path delivers until what the
// last probe has queued is gone and, where loss has shown a bound, until there
// is room below it for others. It is left for ProbeCruise, or for ProbeRefill
// when a probe is due already.
//
// ProbeCruise (5.3.3.2) sends what the path delivers. Loss beyond the
// background lowers the short-term bounds. It is left for ProbeRefill after two
// to three seconds, or earlier on a path so small that Reno would have probed.
//
// ProbeRefill (5.3.3.3) forgets the short-term bounds and fills the path for
// one round, so that what ProbeUp meets is the path's limit and not a hole of
// our own. It is left for ProbeUp.
//
// ProbeUp (5.3.3.5) sends a quarter more than the path has delivered, and
// raises the long-term bound slowly at first, then twice as fast every round.
// It is left for ProbeDown when the delivery rate has not grown for three
// rounds, when loss shows that too much is in flight, or, if the last probe
// ended by loss, as soon as the bound is reached (5.3.3.6).
//
// ProbeRTT (5.3.4) halves what is in flight for 200 ms and a round, when no
// round trip as short as the least has been seen for five seconds, or for ten where the
// caller measures it, too: a queue that
// all senders keep standing would pass for distance otherwise. A round suffices
// where the round trip shows that there is none. Every other
// state may be left for it. It is left for ProbeCruise, or for Startup if the
// path has never been full.
type State uint8

// States.
const (
	Startup State = iota
	Drain
	ProbeDown
	ProbeCruise
	ProbeRefill
	ProbeUp
	ProbeRTT
)

// String returns the state's name.
func (s State) String() string {
	return [...]string{"startup", "drain", "probe-down", "probe-cruise", "probe-refill", "probe-up", "probe-rtt"}[s]
}

// probing reports whether the state belongs to the cycle of 5.3.3.
func (s State) probing() bool { return s >= ProbeDown && s <= ProbeUp }

// accelerating reports whether the state looks for more bandwidth.
func (s State) accelerating() bool { return s == Startup || s == ProbeRefill || s == ProbeUp }

// gains multiply the bandwidth and the bandwidth-delay product.
type gains struct{ pacing, window float64 }

// gains of a state, 5.6.1.
func (s State) gains() gains {
	return [...]gains{
		Startup: {2.77, 2}, Drain: {0.5, 2}, ProbeDown: {0.9, 2}, ProbeCruise: {1, 2},
		ProbeRefill: {1, 2}, ProbeUp: {1.25, 2.25}, ProbeRTT: {1, probeRTTGain},
	}[s]
}

// ackPhase says to what the present acknowledgements are the answer.
type ackPhase uint8

const (
	acksOrdinary ackPhase = iota
	acksRefilling
	acksStarting // to what was sent before the probe
	acksFeedback // to the probe
	acksStopping // to the probe, which has ended
)

// enter is the one place that changes the state.
func (c *Controller) enter(s State) {
	switch s {
	case Drain:
		c.drainRound = c.round.count
	case ProbeDown:
		c.loss.clear(c.sampler.delivered)
		c.latestBW, c.latestVolume = 0, 0
		c.upPerIncrement = unbounded
		c.pickWait()
		c.cycleAt, c.phase = c.now, acksStopping
		c.startRound()
	case ProbeRefill:
		c.forgetShortTerm()
		c.upRounds, c.upAcked, c.precautionary = 0, 0, false
		c.phase = acksRefilling
		c.startRound()
	case ProbeUp:
		c.probeSample, c.phase = true, acksStarting
		c.startRound()
		c.full.reset(c.rs.rate)
	case ProbeRTT:
		c.priorWnd = c.window
		c.probeRTT.until, c.probeRTT.roundDone = 0, false
		c.phase = acksStopping
		c.startRound()
	}
	c.state = s
	if s == ProbeUp {
		c.raiseSlope()
	}
}

// pickWait is PickProbeWait of 5.3.3.8.
func (c *Controller) pickWait() {
	c.roundsSinceUp = int64(2 * c.random())
	c.probeAfter = probeWait + seconds(c.random())
}

// updateState moves the state machine after an acknowledgement, in the order
// of 5.2.3.
func (c *Controller) updateState() {
	if c.state == Startup {
		c.checkStartupLoss()
		if c.full.reached {
			c.enter(Drain)
		}
	}
	if c.state == Drain && (c.inFlight <= c.inflight(1) || c.round.count > c.drainRound+drainRounds) {
		c.enter(ProbeDown)
	}
	if c.full.reached && !c.adaptLongTerm() && !c.checkSlump() {
		c.stepCycle()
	}
	c.updateMinRTT()
	c.checkProbeRTT()
}

// stepCycle is UpdateProbeBWCyclePhase of 5.3.3.9.
func (c *Controller) stepCycle() {
	switch c.state {
	case ProbeDown:
		if c.timeToProbe() {
			c.enter(ProbeRefill)
		} else if c.inFlight <= c.withHeadroom() && c.inFlight <= c.quantized(c.product(c.maxBW.max(), 1)) {
			c.enter(ProbeCruise)
		}
	case ProbeCruise:
		if c.timeToProbe() {
			c.enter(ProbeRefill)
		}
	case ProbeRefill:
		if c.round.began {
			c.enter(ProbeUp)
		}
	case ProbeUp:
		if c.timeToGoDown() {
			c.tooHigh = false
			c.enter(ProbeDown)
		}
	}
}

// timeToProbe is IsTimeToProbeBW of 5.3.3.8.
func (c *Controller) timeToProbe() bool {
	reno := min(int64(c.target()/c.packet), roundsPerProbe)
	return c.now > c.cycleAt+c.probeAfter || c.roundsSinceUp >= reno
}

// timeToGoDown is IsTimeToGoDown.
func (c *Controller) timeToGoDown() bool {
	if c.tooHigh && c.inFlight >= c.inFlightLong {
		c.precautionary = true
		return true
	}
	if c.windowLimited && c.window >= c.inFlightLong {
		c.full.reset(c.rs.rate) // not the path has held us but the bound
		return false
	}
	return c.full.now
}

// adaptLongTerm is AdaptLongTermModel; true if it has chosen the state.
func (c *Controller) adaptLongTerm() bool {
	if c.phase == acksStarting && c.round.began {
		c.phase = acksFeedback
	}
	if c.phase == acksStopping && c.round.began {
		c.probeSample, c.phase = false, acksOrdinary
		if c.state.probing() && !c.rs.limited {
			c.maxBW.advance()
		}
		if c.state.probing() && c.precautionary && !c.tooHigh {
			c.enter(ProbeRefill)
			return true
		}
	}
	if c.inFlightLong == unbounded || c.lostTooMuch(c.rs.lost, c.rs.inFlight) {
		return false
	}
	c.inFlightLong = max(c.inFlightLong, c.rs.inFlight)
	if c.state == ProbeUp {
		c.raiseLongTerm()
	}
	return false
}

// raiseSlope is RaiseInflightLongtermSlope.
func (c *Controller) raiseSlope() {
	c.upPerIncrement = max(c.window>>c.upRounds, c.packet)
	c.upRounds = min(c.upRounds+1, 30)
}

// raiseLongTerm is ProbeInflightLongtermUpward.
func (c *Controller) raiseLongTerm() {
	if !c.windowLimited || c.window < c.inFlightLong {
		return
	}
	c.upAcked += c.rs.acked
	c.inFlightLong += c.upAcked / c.upPerIncrement * c.packet
	c.upAcked %= c.upPerIncrement
	if c.round.began {
		c.raiseSlope()
	}
}

// checkProbeRTT is CheckProbeRTT of 5.3.4.3.
func (c *Controller) checkProbeRTT() {
	if c.state != ProbeRTT && c.probeRTT.expired && !c.idleRestart {
		c.enter(ProbeRTT)
	}
	if c.state == ProbeRTT {
		c.holdProbeRTT()
	}
	c.idleRestart = false
}

// holdProbeRTT is HandleProbeRTT.
func (c *Controller) holdProbeRTT() {
	c.sampler.limit(c.inFlight) // we are short of data by our own will
	p := &c.probeRTT
	if p.until == 0 {
		if c.inFlight <= c.probeRTTWindow() {
			p.until, p.roundDone = c.now+probeRTTTime, false
			c.startRound()
		}
		return
	}
	if c.round.began {
		p.roundDone = true
	}
	if p.roundDone {
		if p.confirmed() {
			p.until = min(p.until, c.now-1)
		}
		c.endProbeRTT()
	}
}

// confirmed reports whether the round trip is as short again as was believed: there
// is no queue of others, whom a longer ProbeRTT would give the time to drain it, too.
func (p *minDelay) confirmed() bool { return p.delay <= p.known+p.known/probeRTTSame }

// endProbeRTT is CheckProbeRTTDone and ExitProbeRTT.
func (c *Controller) endProbeRTT() {
	if c.probeRTT.until == 0 || c.now <= c.probeRTT.until {
		return
	}
	c.probeRTT.at = c.now
	c.window = max(c.window, c.priorWnd)
	c.forgetShortTerm()
	if !c.full.reached {
		c.enter(Startup)
		return
	}
	c.enter(ProbeDown)
	c.enter(ProbeCruise)
}
