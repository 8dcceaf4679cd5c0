// Package bbr is a congestion controller for one connection: BBR version 3 of
// draft-ietf-ccwg-bbr-06 as a pure value. It is told which packets were sent,
// acknowledged and lost, and answers with a congestion window and a pacing
// rate. Section numbers in this package are those of the draft.
//
// The model has two numbers: the largest recent delivery rate and the least
// recent round trip. Their product is what the path itself holds; all that is
// in flight beyond it waits in a queue. The states of [State] are experiments
// that keep the two numbers fresh.
//
// # Departures from the draft
//
// The uplinks that this controller is for lose packets for reasons other than
// congestion. The draft answers each round with a loss by slowing down to what
// was delivered, and takes 2 % loss for an overfull path: with 3 % random loss
// the rate decays in every cycle. Here:
//   - the background loss is measured, see background: loss counts as
//     congestion when it exceeds the background by the draft's 2 %;
//   - the short-term bounds (5.5.10.3) follow only rounds whose loss does;
//   - Startup ends by loss (5.3.1.3) only above 10 %: it overshoots so far that
//     a full path loses more than that; and short of data, as after ProbeRTT,
//     the short-term bounds do not follow less;
//   - two lost packets in one round are never congestion: on a small window
//     they would be more than any percentage;
//   - on a steady path a queue ends Startup and tells the rate, see queue.go;
//   - a path that has become much slower is believed earlier, see slump.go;
//   - on a path that loses more than it delivers no more is sent than arrives, see collapse.go;
//   - a path that carries much more is believed at once where the caller has packets sent
//     in volleys, see volley.go;
//   - ProbeRTT ends after a round that has confirmed the least round trip: 200 ms
//     with half of the path's product in flight cost 2 % of a link; and it comes half
//     as often, as in version 1, where the caller measures that round trip as well.
//
// An ECN mark, which the draft leaves open (3.7), counts as one lost packet.
// Spurious losses (5.5.11) are not undone: the QUIC library does not tell.
//
// All times are durations since an origin of the caller's choice, volumes are
// bytes, rates bytes per second. A Controller belongs to one goroutine, reads
// no clock and starts nothing.
//
// # Files
//
//   - bbr: the Controller; state: its states; model: rate and round trip; filter: the largest
//     rate
//   - sample: delivery rates; control: window and pace; pacer: when to send; loss: what losses
//     mean
//   - queue, slump, collapse, volley: departures, above; recall: what a path carried, for the
//     next connection
//   - renewal: when a connection should begin anew
package bbr

import (
	"math"
	"time"
)

// Config is what a Controller starts from.
type Config struct {
	Packet int            // size of the largest packet, bytes
	Window int            // initial window, bytes; 0 is 32 packets
	RTT    time.Duration  // a round trip that was measured before; 0 if none
	Random func() float64 // in [0, 1): keeps flows from probing in step
	// Measured: the caller lets the queue drain every ten seconds or so, and sooner where
	// round trips stay far above the least one.
	Measured bool
}

// Constants of sections 2.8 to 2.16.
const (
	initialPackets  = 32
	leastPackets    = 4    // MinPipeCwnd
	pacingMargin    = 0.99 // PacingMarginPercent
	fullGrowth      = 1.25 // growth of a round that keeps a probe going
	fullRounds      = 3    // rounds without it that end the probe
	drainRounds     = 3
	headroom        = 0.15 // of the long-term bound, left free for others
	beta            = 0.7  // the most that one round of loss takes away
	roundsPerProbe  = 63
	probeWait       = 2 * time.Second // plus up to one more
	rttWindow       = 10 * time.Second
	probeRTTEvery   = 5 * time.Second
	probeRTTSeldom  = 10 * time.Second // where the caller measures, too
	probeRTTTime    = 200 * time.Millisecond
	probeRTTGain    = 0.5
	probeRTTSame    = 16 // that part of a round trip more than the least is the same
	aggregateRounds = 10
	quantumTime     = time.Millisecond
	quantumMost     = 64 << 10
)

// unbounded is the draft's "Infinity" for volumes.
const unbounded = math.MaxInt

// Controller is the state of one connection.
type Controller struct {
	random  func() float64
	packet  int           // largest packet
	probing time.Duration // from one ProbeRTT to the next
	initial int           // initial window

	now      time.Duration // of the present event
	inFlight int
	sampler  sampler
	rs       sample // of the present event

	state       State
	cycleAt     time.Duration // when the probing cycle began
	probeAfter  time.Duration // when to probe again, after cycleAt
	drainRound  int64         // when Drain began
	phase       ackPhase
	idleRestart bool

	round round
	bw    float64 // what the model believes in: bounded by the short term
	maxBW bandwidthFilter
	full  fullPipe

	minRTT     time.Duration // 0: unknown
	minRTTAt   time.Duration
	probeRTT   minDelay
	priorWnd   int // before ProbeRTT
	aggregate  aggregation
	loss       lossRound
	collapse   collapse
	background background
	slump      slump
	standing   standing

	// Bounds, section 2.9.
	bwShort       float64 // math.Inf: none
	inFlightShort int
	inFlightLong  int
	latestBW      float64 // largest of the present round
	latestVolume  int

	// Probing upwards, 5.3.3.5 and 5.3.3.6.
	probeSample     bool // what is acknowledged now was sent while probing
	tooHigh         bool // the last probe lost too much
	precautionary   bool // it ended before it could
	upRounds        int
	upAcked         int
	upPerIncrement  int
	roundsSinceUp   int64
	windowLimited   bool // the present or the last round used all of the window
	windowLimitedIn bool // the present one did

	rate   float64
	window int
}

// New returns a controller at the start of a connection.
func New(cfg Config, now time.Duration) *Controller {
	c := &Controller{
		random: cfg.Random, packet: cfg.Packet, initial: cfg.Window, now: now,
		minRTT: cfg.RTT, minRTTAt: now,
		bwShort: math.Inf(1), inFlightShort: unbounded, inFlightLong: unbounded,
		upPerIncrement: unbounded,
	}
	if c.initial == 0 {
		c.initial = initialPackets * cfg.Packet
	}
	c.probing = probeRTTEvery
	if cfg.Measured {
		c.probing = probeRTTSeldom
	}
	c.window = c.initial
	c.probeRTT = minDelay{delay: cfg.RTT, at: now}
	c.aggregate.since = now
	rtt := cfg.RTT
	if rtt == 0 {
		rtt = time.Millisecond
	}
	c.enter(Startup)
	c.rate = c.state.gains().pacing * float64(c.initial) / rtt.Seconds() // 5.6.2, InitPacingRate
	return c
}

// Resize tells that the largest packet has another size now.
func (c *Controller) Resize(packet int) {
	c.packet = packet
	c.window = max(c.window, c.leastWindow())
}

// Sent tells of a packet that will be acknowledged. Numbers rise. inFlight is
// all that is in flight, this packet included.
func (c *Controller) Sent(now time.Duration, number int64, size, inFlight int) {
	c.now, c.inFlight = now, inFlight
	if inFlight <= size && c.sampler.limitedUntil != 0 {
		c.restart()
	}
	if inFlight+c.packet > c.window {
		c.windowLimited, c.windowLimitedIn = true, true
	}
	c.sampler.sent(now, number, size, inFlight)
}

// Starved tells that the sender had nothing to send although window and pacing
// would have let it: what is in flight says nothing about the path's rate
// (4.1.2.4).
func (c *Controller) Starved() { c.sampler.limit(c.inFlight) }

// Acked takes in one acknowledged packet. Settle follows.
func (c *Controller) Acked(now time.Duration, number int64) {
	c.now = now
	c.sampler.acked(now, number)
}

// Lost takes in one packet that was declared lost. Settle follows.
func (c *Controller) Lost(now time.Duration, number int64) {
	c.now = now
	if p, ok := c.sampler.lost(number); ok {
		c.handleLost(p, number)
	}
}

// Restart goes back to Startup, with the model as it is: the caller knows that
// the path is not full. What the short-term and long-term bounds remember of loss
// is forgotten.
func (c *Controller) Restart() {
	c.full = fullPipe{base: c.rs.rate}
	c.forgetShortTerm()
	c.inFlightLong, c.tooHigh = unbounded, false
	c.enter(Startup)
}

// Stretch takes it that the path has become longer: the caller has seen that with little in
// flight a round trip takes so long now. By itself the model believes in the shorter one for
// ten seconds, in which twice its product is all that is in flight.
func (c *Controller) Stretch(rtt time.Duration) {
	if rtt <= c.minRTT {
		return
	}
	c.minRTT, c.minRTTAt = rtt, c.now
	c.probeRTT.delay, c.probeRTT.at = rtt, c.now
	c.Restart()
}

// Forget takes in a packet that was lost and whose loss says nothing about
// the path, such as a probe for a larger packet size.
func (c *Controller) Forget(number int64) { c.sampler.log.take(number) }

// Marked takes in an ECN congestion mark. Settle follows.
func (c *Controller) Marked(now time.Duration) {
	c.now = now
	c.sampler.lostBytes += int64(c.packet)
	c.loss.note(c.sampler.delivered, c.packet, true)
}

// Settle closes an event after all its packets: it updates the model, the
// state, the window and the rate (5.2.3). inFlight is what is left in flight.
// rtt is the transport's own newest round trip without the peer's delay, 0 if
// there is none.
func (c *Controller) Settle(now, rtt time.Duration, inFlight int) {
	c.now, c.inFlight = now, inFlight
	c.rs = c.sampler.finish(now, c.minRTT)
	if c.rs.has {
		if rtt > 0 {
			c.rs.rtt = min(c.rs.rtt, rtt)
		}
		c.updateModel()
		c.updateState()
		c.advanceLatest()
		c.bw = min(c.maxBW.max(), c.bwShort)
		c.takeVolleys()
	}
	c.setRate(c.state.gains().pacing)
	c.setWindow()
	c.conserve()
}

// Window is the most that may be in flight, bytes.
func (c *Controller) Window() int { return c.window }

// Rate is the pacing rate in bytes per second.
func (c *Controller) Rate() float64 { return c.rate }

// State is the present state.
func (c *Controller) State() State { return c.state }

// Bandwidth is what the model believes the path delivers, bytes per second; 0
// before the first sample.
func (c *Controller) Bandwidth() float64 { return c.bw }

// MinRTT is what the model believes the path alone takes; 0 before the first
// sample.
func (c *Controller) MinRTT() time.Duration { return c.minRTT }

// Delivered is how many bytes were acknowledged so far.
func (c *Controller) Delivered() int64 { return c.sampler.delivered }

// Delivery is the delivery rate as last measured, bytes per second, and
// whether the sender was short of data meanwhile.
func (c *Controller) Delivery() (rate float64, limited bool) {
	return c.sampler.rate, c.sampler.rateLimited
}
