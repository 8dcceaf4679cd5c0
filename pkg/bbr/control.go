package bbr

import "time"

// setRate is SetPacingRateWithGain of 5.6.2. Until the path has been full the
// rate only grows, lest samples of a trickle slow the search down.
func (c *Controller) setRate(gain float64) {
	rate := gain * c.bw * pacingMargin
	if rate > 0 && (c.full.reached || rate > c.rate) {
		c.rate = rate
	}
}

// setWindow is SetCwnd of 5.6.4.6.
func (c *Controller) setWindow() {
	most := c.quantized(c.bdp(c.state.gains().window) + c.aggregate.max())
	switch {
	case c.full.reached:
		c.window = min(c.window+c.rs.acked, most)
	case c.window < most || c.sampler.delivered < int64(c.initial):
		c.window += c.rs.acked
	}
	c.window = max(c.window, c.leastWindow())
	if c.state == ProbeRTT {
		c.window = min(c.window, c.probeRTTWindow())
	}
	c.window = min(c.window, c.volumeCap())
}

// volumeCap is the bound of BoundCwndForModel, 5.6.4.7.
func (c *Controller) volumeCap() int {
	most := unbounded
	switch c.state {
	case ProbeDown, ProbeRefill, ProbeUp:
		most = c.inFlightLong
	case ProbeRTT, ProbeCruise:
		most = c.withHeadroom()
	}
	return max(min(most, c.inFlightShort), c.leastWindow())
}

func (c *Controller) leastWindow() int { return leastPackets * c.packet }

// product is what a rate fills the path with, times gain.
func (c *Controller) product(bw, gain float64) int {
	if c.minRTT == 0 {
		return int(gain * float64(c.initial))
	}
	return int(gain * bw * c.minRTT.Seconds())
}

// bdp is the bandwidth-delay product of the model, times gain.
func (c *Controller) bdp(gain float64) int { return c.product(c.bw, gain) }

// quantized is QuantizationBudget of 5.6.4.2.
func (c *Controller) quantized(volume int) int {
	volume = max(volume, Quantum(c.rate, c.packet), c.leastWindow())
	if c.state == ProbeUp {
		volume += 2 * c.packet
	}
	return volume
}

func (c *Controller) inflight(gain float64) int { return c.quantized(c.bdp(gain)) }

// target is TargetInflight of 5.3.3.8.
func (c *Controller) target() int { return min(c.bdp(1), c.window) }

// withHeadroom is InflightWithHeadroom.
func (c *Controller) withHeadroom() int {
	if c.inFlightLong == unbounded {
		return unbounded
	}
	free := max(c.packet, int(headroom*float64(c.inFlightLong)))
	return max(c.inFlightLong-free, c.leastWindow())
}

// probeRTTWindow is ProbeRTTCwnd of 5.6.4.5.
func (c *Controller) probeRTTWindow() int { return max(c.bdp(probeRTTGain), c.leastWindow()) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
