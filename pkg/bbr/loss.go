package bbr

import "math"

// What loss means. See the package's departures from the draft.
const (
	lossThreshold    = 0.02 // LossThresh: of what is in flight, above the background
	heavyThreshold   = 0.10
	startupRanges    = 6 // BBRStartupFullLossCnt
	toleratedPackets = 2
	deviations       = 2    // of the background, see lostTooMuch
	backgroundMost   = 0.05 // a path that loses more is congested or useless
	backgroundGain   = 1.0 / 16
)

// lossRound counts the losses of a round that begins with the first of them
// (5.5.10.3).
type lossRound struct {
	began bool  // with the present event a new round began
	next  int64 // as round.next
	any   bool  // something was lost

	lost   int   // bytes
	ranges int   // gaps between losses, plus one
	last   int64 // number of the packet that was lost last
	from   int64 // delivered when the round began
}

// note is NoteLoss of 5.5.10.2.
func (l *lossRound) note(delivered int64, size int, gap bool) {
	if !l.any {
		l.clear(delivered)
		l.any, l.next = true, delivered
	}
	l.lost += size
	if gap {
		l.ranges++
	}
}

func (l *lossRound) clear(delivered int64) {
	l.any, l.lost, l.ranges, l.from = false, 0, 0, delivered
}

// volume is what the round sent, as far as it is known by now.
func (l *lossRound) volume(delivered int64) int { return int(delivered-l.from) + l.lost }

// background is the share that the path loses while we do not press it: the
// mean over rounds in Cruise and the later part of Down. A round counts at
// most lossThreshold more than the mean so far, so that a rival's burst says
// little and a lasting loss is learned within some tens of rounds.
type background struct {
	share float64
	seen  int

	delivered, lost int64 // when the present round began
}

func (b *background) add(share float64) {
	b.seen++
	gain := max(1/float64(b.seen+1), backgroundGain)
	b.share += gain * (min(share, b.share+lossThreshold, backgroundMost) - b.share)
}

// updateBackground closes a round trip's account.
func (c *Controller) updateBackground() {
	if !c.round.began {
		return
	}
	b := &c.background
	delivered, lost := c.sampler.delivered-b.delivered, c.sampler.lostBytes-b.lost
	b.delivered, b.lost = c.sampler.delivered, c.sampler.lostBytes
	quiet := c.state == ProbeCruise || c.state == ProbeDown && c.phase == acksOrdinary
	if quiet && delivered > 0 {
		b.add(float64(lost) / float64(delivered+lost))
	}
}

// threshold is the share of loss that means congestion.
func (c *Controller) threshold() float64 { return lossThreshold + c.background.share }

// handleLost is HandleLostPacket of 5.5.10.2: it notices as early as possible
// that a probe has put too much in flight.
func (c *Controller) handleLost(p sent, number int64) {
	c.loss.note(c.sampler.delivered, int(p.size), number != c.loss.last+1)
	c.loss.last = number
	if !c.probeSample {
		return
	}
	lost := int(c.sampler.lostBytes - p.lost)
	if c.lostTooMuch(lost, int(p.inFlight)) {
		c.handleTooHigh(c.inFlightAtLoss(p, lost), p.limited)
	}
}

// lostTooMuch is IsInflightTooHigh: whether so much lost out of so much sent
// is more than the background and its chance variation, which is that of a
// Poisson process, explain.
func (c *Controller) lostTooMuch(lost, volume int) bool {
	packet := float64(c.packet)
	chance := deviations * packet * math.Sqrt(c.background.share*float64(volume)/packet)
	return float64(lost) > max(c.threshold()*float64(volume)+chance, toleratedPackets*packet)
}

// inFlightAtLoss is InflightAtLoss: how much was in flight when the losses
// crossed the threshold, which may be within p.
func (c *Controller) inFlightAtLoss(p sent, lost int) int {
	before := float64(p.inFlight - p.size)
	lostBefore := float64(lost - int(p.size))
	share := c.threshold()
	prefix := max(0, (share*before-lostBefore)/(1-share))
	return int(before + prefix)
}

// handleTooHigh is HandleInflightTooHigh.
func (c *Controller) handleTooHigh(inFlight int, limited bool) {
	c.tooHigh, c.probeSample = true, false
	if !limited {
		c.inFlightLong = max(inFlight, int(beta*float64(c.target())))
	}
	if c.state == ProbeUp {
		c.enter(ProbeDown)
	}
}

// heavy reports whether a round lost so much that its path is certainly full.
func heavy(lost, volume int) bool { return float64(lost) > heavyThreshold*float64(volume) }

// adaptShortTerm is AdaptLowerBoundsFromCongestion of 5.5.10.3, once per round
// that lost more than the path does by itself. A round in which data was short,
// as after ProbeRTT, has measured no rate to fall back to: it counts only when
// it lost so much that the path must be overfull.
func (c *Controller) adaptShortTerm() {
	volume := c.loss.volume(c.sampler.delivered)
	kept := c.collapse.close(c.loss.lost, volume)
	switch {
	case c.state.accelerating() || !c.loss.any || !c.lostTooMuch(c.loss.lost, volume):
		return
	case c.rs.limited && !heavy(c.loss.lost, volume):
		return
	}
	if math.IsInf(c.bwShort, 1) {
		c.bwShort = c.maxBW.max()
	}
	if c.inFlightShort == unbounded {
		c.inFlightShort = c.window
	}
	c.bwShort = max(c.latestBW, kept*c.bwShort)
	c.inFlightShort = max(c.latestVolume, int(kept*float64(c.inFlightShort)))
}

func (c *Controller) forgetShortTerm() { c.bwShort, c.inFlightShort = math.Inf(1), unbounded }

// checkStartupLoss ends the search by loss (5.3.1.3).
func (c *Controller) checkStartupLoss() {
	l := &c.loss
	if !l.began || l.ranges < startupRanges || !heavy(l.lost, l.volume(c.sampler.delivered)) {
		return
	}
	c.full.reached = true
	c.inFlightLong = max(c.bdp(1), c.latestVolume)
}
