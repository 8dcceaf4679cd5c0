package link

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"hawser/pkg/bbr"
)

// starvedAfter is how long a connection that may send must send nothing before
// it counts as short of data: between two packets it only reads others' first.
const starvedAfter = 2 * time.Millisecond

// ledMost is how many times its controller's own rate a connection that is led sends at,
// at most: where the path has that, the controller's rate has grown a round trip later.
const ledMost = 1.25

// wholeSlack is by how many bytes a packet that is full may be less than the largest.
const wholeSlack = 16

// governor is the congestion control of one QUIC connection: BBR, paced, and
// held to the rate that pace was last asked for. limit, stats and their fields
// may be used by any goroutine, the rest by the connection's own.
type governor struct {
	controller *bbr.Controller
	pacer      bbr.Pacer
	packet     int           // largest packet, bytes
	now        time.Duration // newest that was told
	open       bool          // an acknowledgement is being taken in

	spoilt  spoilt
	unbatch func() // has packets sent one by one; nil: nobody does. Set before the first packet

	ackedBefore uint64 // bytes, by those in whose place it has come

	measured uint64        // times that volleys have told a rate, as the controller counts
	asks     int           // in a row that were allowed and not followed by a packet
	askedAt  time.Duration // the first of them

	most        atomic.Uint64 // bits of the highest rate, bytes per second; 0: no limit
	window      atomic.Int64
	flying      atomic.Int64
	delivery    atomic.Int64
	arrived     atomic.Uint64 // packets acknowledged
	whole       atomic.Uint64 // those as large as may be
	ackedBytes  atomic.Uint64 // their bytes
	lostPackets atomic.Uint64 // packets declared lost; the library counts only for a controller of its own
	limited     atomic.Bool
	urged       atomic.Bool
	stretched   atomic.Int64 // a longer path's round trip that the controller is to be told; 0: none
	isSteady    atomic.Bool
	inVolleys   atomic.Bool   // packets are sent in volleys
	carries     atomic.Int64  // by these, bytes per second
	volleys     atomic.Uint64 // times that this was measured
	isLed       atomic.Bool   // most is what packets are paced at
}

// newGovernor starts with packets of the given size and, unless it is 0, a
// round trip that the handshake has measured.
func newGovernor(now time.Duration, packet int, rtt time.Duration) *governor {
	g := &governor{
		controller: bbr.New(bbr.Config{Packet: packet, RTT: rtt, Random: rand.Float64, Measured: true}, now), // by scheduler.Estimator
		packet:     packet, now: now,
	}
	g.window.Store(int64(g.controller.Window()))
	return g
}

// succeed goes on counting where the one before has stopped: who looks at the connection
// takes a figure that has fallen for nothing new, until it has risen above what it was.
func (g *governor) succeed(before *governor) {
	g.lostPackets.Store(before.lostPackets.Load())
	g.volleys.Store(before.volleys.Load())
	g.arrived.Store(before.arrived.Load())
	g.spoilt = spoilt{lost: before.lostPackets.Load(), arrived: before.arrived.Load()}
	g.whole.Store(before.whole.Load())
	g.ackedBefore = before.ackedBytes.Load()
	g.ackedBytes.Store(g.ackedBefore)
}

// limit holds the rate, 0 lifts the limit.
func (g *governor) limit(rate float64) { g.most.Store(math.Float64bits(max(rate, 0))) }

// urge has the controller look for more at its next event.
func (g *governor) urge() { g.urged.Store(true) }

// stretch tells the controller at its next event that the path has become longer.
func (g *governor) stretch(rtt time.Duration) { g.stretched.Store(int64(rtt)) }

// rate is what packets are paced at, bytes per second. Where the caller of limit
// follows a rate that changes it may be more than the controller's own, which cruises for
// seconds at what the path has carried. Its window bounds what is in flight all the same.
func (g *governor) rate() float64 {
	own := g.controller.Rate()
	most := math.Float64frombits(g.most.Load())
	switch {
	case most == 0:
		return own
	case g.isLed.Load():
		return min(ledMost*own, most)
	}
	return min(own, most)
}

// volley is how many bytes are sent at once; 0: one packet after the other.
func (g *governor) volley() int {
	if !g.inVolleys.Load() {
		return 0
	}
	return bbr.Volley(g.rate(), g.packet)
}

// maySend reports whether the pacing allows a packet now.
func (g *governor) maySend(now time.Duration) bool {
	g.now = now
	g.pacer.Volley = g.volley()
	if !g.pacer.May(now, g.rate(), g.packet) {
		g.asks = 0
		return false
	}
	if g.asks == 0 {
		g.askedAt = now
	}
	g.asks++
	return true
}

// hasRoom reports whether the window allows a packet.
func (g *governor) hasRoom(inFlight int) bool {
	if inFlight < g.controller.Window() {
		return true
	}
	g.asks = 0
	return false
}

// nextSend is when pacing allows the next batch of packets.
func (g *governor) nextSend() time.Duration {
	rate := g.rate()
	return g.pacer.Next(rate, max(bbr.Quantum(rate, g.packet), g.volley()))
}

// checkStarved tells the controller when the connection had nothing to send.
// The library does not say so. It shows in that the library asks whether it may
// send, may, and does not: for a while, or again and again.
func (g *governor) checkStarved(now time.Duration, asks int) {
	if g.asks >= asks || g.asks > 0 && now-g.askedAt > starvedAfter {
		g.controller.Starved()
	}
}

func (g *governor) sent(now time.Duration, number int64, size, inFlight int) {
	g.checkStarved(now, 3)
	g.asks = 0
	g.now = now
	g.pacer.Sent(now, g.rate(), g.packet, size)
	g.controller.Sent(now, number, size, inFlight)
}

func (g *governor) acked(now time.Duration, number int64) {
	g.now = now
	if !g.open { // before what is in flight changes
		g.open = true
		g.checkStarved(now, 2)
	}
	g.arrived.Add(1)
	g.controller.Acked(now, number)
}

func (g *governor) lost(number int64) {
	g.lostPackets.Add(1)
	g.controller.Lost(g.now, number)
}

func (g *governor) marked() { g.controller.Marked(g.now) }

// settle closes an event; rtt as in bbr.Controller.Settle.
func (g *governor) settle(now, rtt time.Duration, inFlight int) {
	g.now, g.open = now, false
	g.controller.Steady(g.isSteady.Load())
	if rtt := g.stretched.Swap(0); rtt > 0 {
		g.controller.Stretch(time.Duration(rtt))
	}
	if g.urged.Swap(false) {
		g.controller.Restart()
	}
	g.controller.Volleys(g.inVolleys.Load())
	g.controller.Settle(now, rtt, inFlight)
	if carries, times := g.controller.Carries(); times != g.measured {
		g.measured = times
		g.carries.Store(int64(carries))
		g.volleys.Add(1)
	}
	rate, limited := g.controller.Delivery()
	g.window.Store(int64(g.controller.Window()))
	g.flying.Store(int64(inFlight))
	g.delivery.Store(int64(rate))
	g.limited.Store(limited)
	g.ackedBytes.Store(g.ackedBefore + uint64(g.controller.Delivered()))
	if g.spoilt.look(g.lostPackets.Load(), g.arrived.Load()) && g.unbatch != nil {
		g.unbatch()
	}
}

func (g *governor) resize(packet int) {
	g.packet = packet
	g.controller.Resize(packet)
}

// sample enters the controller's figures.
func (g *governor) sample(s *Stats) {
	s.Window, s.InFlight = g.window.Load(), g.flying.Load()
	s.DeliveryRate, s.AppLimited = g.delivery.Load(), g.limited.Load()
	s.Lost = g.lostPackets.Load()
	s.Carries, s.Volleys = float64(g.carries.Load()), g.volleys.Load()
	s.Delivered, s.Acked, s.Whole = g.arrived.Load(), g.ackedBytes.Load(), g.whole.Load()
}
