package bbr

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"hawser/scheduler"
)

// offered is what a line could carry, in bytes, while a script changes it.
type offered struct {
	net   *network
	since time.Duration
	bytes float64
}

func (o *offered) change(mbit float64, rtt time.Duration) {
	o.bytes += o.net.rate * (o.net.now - o.since).Seconds()
	o.since = o.net.now
	o.net.rate, o.net.rtt = mbit*125_000, rtt
	o.net.limit = int(0.3 * o.net.rate)
}

// rail is thirty seconds of an operator along a railway: 2 to 60 Mbit/s and 40
// to 120 ms, which change every second or two.
func rail(seed uint64, o *offered) {
	rng := rand.New(rand.NewPCG(seed, 7))
	for at := time.Duration(0); at < 30*time.Second; at += time.Second + time.Duration(rng.Int64N(int64(time.Second))) {
		rate := 2 + 58*rng.Float64()*rng.Float64()
		rtt := 40*time.Millisecond + time.Duration(rng.Int64N(int64(80*time.Millisecond)))
		o.net.after(at, func() { o.change(rate, rtt) })
	}
}

// followed is a controller under the tunnel's own window, as pkg/tunnel has it.
type followed struct {
	*governed
	flow   *flow
	e      scheduler.Estimator
	origin time.Time
	steady func() bool // nil: as the estimator has it

	roundAt   time.Duration
	roundFrom int64
}

func (g *followed) window() int { return min(g.governed.window(), g.e.NetCap()) }

func (g *followed) rate() float64 {
	if pace := g.e.Pace(); pace > 0 {
		return min(g.c.Rate(), pace)
	}
	return g.c.Rate()
}

func (g *followed) sent(now time.Duration, number int64, size, inFlight int) {
	g.c.Sent(now, number, size, inFlight)
	g.pacer.Sent(now, g.rate(), simPacket, size)
}

func (g *followed) budget(now time.Duration) int {
	g.pacer.Volley = g.volley()
	if !g.pacer.May(now, g.rate(), simPacket) {
		return 0
	}
	return g.pacer.Budget(now, g.rate(), simPacket)
}

func (g *followed) next() time.Duration {
	return g.pacer.Next(g.rate(), max(Quantum(g.rate(), simPacket), g.volley()))
}

func (g *followed) volley() int {
	if !g.e.Volleys() {
		return 0
	}
	return Volley(g.rate(), simPacket)
}

// settle tells the tunnel's estimator what pkg/tunnel would: what is in flight,
// and that up to two batches wait where the window has room.
func (g *followed) settle(now, rtt time.Duration, inFlight int) {
	g.c.Steady(g.e.Steady())
	if g.steady != nil {
		g.c.Steady(g.steady())
	}
	if g.e.Urge() {
		g.c.Restart()
	}
	g.c.Volleys(g.volley() > 0)
	g.governed.settle(now, rtt, inFlight)
	carries, times := g.c.Carries()
	waiting := min(max(g.e.NetCap()-inFlight, 0), 32<<10)
	if waiting == 0 {
		g.c.Starved()
	}
	at, srtt, got := g.origin.Add(now), g.flow.srtt, g.c.Delivered()
	g.e.See(srtt)
	g.e.Look(at, scheduler.View{RTT: srtt, Delivered: uint64(got), Flying: inFlight + waiting, InFlight: inFlight, Carries: carries, Volleys: times})
	if now-g.roundAt >= srtt && got > g.roundFrom {
		g.e.Ack(at, scheduler.Sample{RTT: srtt, Path: srtt, Delivered: int(got - g.roundFrom), Interval: now - g.roundAt, Round: true})
		g.roundAt, g.roundFrom = now, got
	}
}

func (n *network) follow() *followed {
	ctl := &followed{governed: n.measured(), origin: time.Unix(1000, 0)}
	ctl.flow = n.add(ctl, -1)
	return ctl
}

// TestRail: a line along a railway under the tunnel's window: how much of it is
// used, and with how short a queue.
func TestRail(t *testing.T) {
	const seeds = 6
	mean := 0.0
	for seed := range uint64(seeds) {
		n := newNetwork(seed, 20, 80*time.Millisecond, 3)
		o := &offered{net: n}
		rail(seed, o)
		ctl := n.follow()
		n.runUntil(30 * time.Second)
		o.change(1, time.Second)
		used := float64(ctl.flow.delivered) / o.bytes
		mean += used / seeds
		slices.Sort(n.delays)
		p50 := n.delays[len(n.delays)/2]
		t.Logf("seed %d: %.3f used; queue p50 %v", seed, used, p50.Round(time.Millisecond))
		if used < 0.5 || p50 > 60*time.Millisecond {
			t.Errorf("seed %d: %.3f used, wanted 0.5; queue p50 %v, wanted at most 60ms", seed, used, p50)
		}
	}
	if mean < 0.80 { // 0.775 without volleys
		t.Errorf("%.3f used in the mean, wanted 0.80", mean)
	}
}

// TestRestart: a line that has begun to carry ten times as much is used within
// six hundred milliseconds when the controller is told that it is not full.
func TestRestart(t *testing.T) {
	n := newNetwork(1, 4, 80*time.Millisecond, 3)
	ctl := n.bbr()
	f := n.add(ctl, -1)
	n.runUntil(6 * time.Second)
	n.rate, n.limit = 40*125_000, 1_200_000
	ctl.c.Restart()
	n.runUntil(6600 * time.Millisecond)
	before := f.delivered
	n.runUntil(7600 * time.Millisecond)
	if used := float64(f.delivered-before) / n.rate; used < 0.9 {
		t.Errorf("%.3f of the new rate is used", used)
	}
}
