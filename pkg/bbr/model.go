package bbr

// updateModel takes the sample into the model of the path (5.5). What the
// state does with it follows in updateState.
func (c *Controller) updateModel() {
	c.updateLatest()
	c.updateRound()
	c.standing.add(c.now, &c.rs, c.round.began, c.sampler.delivered, c.minRTT)
	switch {
	case c.standing.queued && c.full.reached:
		if c.round.began {
			c.maxBW.add(c.standing.last)
		}
	case c.rs.rate > 0 && (c.rs.rate >= c.maxBW.max() || !c.rs.limited):
		c.maxBW.add(c.rs.rate) // 5.5.5
	}
	c.updateBackground()
	if c.loss.began {
		c.adaptShortTerm()
	}
	c.updateAggregation()
	if !c.full.now && c.round.began && !c.rs.limited && c.rs.rate > 0 {
		c.full.check(c.rs.rate)
	}
	if c.state == Startup && c.round.began && c.standing.queued && c.rs.rate < c.full.base*fullGrowth {
		c.full.reached = true
	}
}

// updateLatest is UpdateLatestDeliverySignals of 5.5.10.3.
func (c *Controller) updateLatest() {
	c.latestBW = max(c.latestBW, c.rs.rate)
	c.latestVolume = max(c.latestVolume, c.rs.delivered)
	c.loss.began = c.rs.priorDelivered >= c.loss.next
	if c.loss.began {
		c.loss.next = c.sampler.delivered
	}
}

// advanceLatest is AdvanceLatestDeliverySignals: a round of loss ends here.
func (c *Controller) advanceLatest() {
	if c.loss.began {
		c.latestBW, c.latestVolume = c.rs.rate, c.rs.delivered
		c.loss.clear(c.sampler.delivered)
	}
}

// updateRound is UpdateRound of 5.5.1.
func (c *Controller) updateRound() {
	c.round.began = c.rs.priorDelivered >= c.round.next
	if !c.round.began {
		return
	}
	c.startRound()
	c.round.count++
	c.roundsSinceUp++
	c.windowLimited, c.windowLimitedIn = c.windowLimitedIn, false
}

func (c *Controller) startRound() { c.round.next = c.sampler.delivered }

// updateAggregation is UpdateACKAggregation of 5.5.9.
func (c *Controller) updateAggregation() {
	a := &c.aggregate
	expected := c.bw * (c.now - a.since).Seconds()
	if a.delivered <= expected {
		a.delivered, a.since, expected = 0, c.now, 0
	}
	a.delivered += float64(c.rs.acked)
	length := int64(1)
	if c.full.reached {
		length = aggregateRounds
	}
	a.add(min(int(a.delivered-expected), c.window), c.round.count, length)
}

// updateMinRTT is UpdateMinRTT of 5.3.4.3.
func (c *Controller) updateMinRTT() {
	p := &c.probeRTT
	p.expired = c.now > p.at+c.probing
	if p.expired && c.state != ProbeRTT {
		p.known = c.minRTT
	}
	if p.delay == 0 || c.rs.rtt <= p.delay || p.expired {
		p.delay, p.at = c.rs.rtt, c.now
	}
	if c.minRTT == 0 || p.delay <= c.minRTT || c.now > c.minRTTAt+rttWindow {
		c.minRTT, c.minRTTAt = p.delay, p.at
	}
}

// restart is HandleRestartFromIdle of 5.4.1: nothing was in flight, so that
// the first packets go at the model's rate, whatever the state was at.
func (c *Controller) restart() {
	c.idleRestart = true
	if c.state == Startup && !c.full.reached && c.minRTT > 0 {
		// Beyond the draft: 5.6.2's InitPacingRate by the window there is now. A
		// little that was asked for until now says nothing about the path.
		c.rate = max(c.rate, c.state.gains().pacing*float64(c.window)/c.minRTT.Seconds())
	}
	c.aggregate.since, c.aggregate.delivered = c.now, 0
	switch {
	case c.state.probing():
		c.setRate(1)
	case c.state == ProbeRTT:
		c.endProbeRTT()
	}
}
