package bbr

import (
	"testing"
	"time"
)

// TestCollapse: a path whose rate falls to a fortieth, with a buffer of three packets, loses
// about what was under way and what was sent until that showed, not six times as much.
func TestCollapse(t *testing.T) {
	for _, rtt := range []time.Duration{40 * ms, 100 * ms} {
		under, lost := 0, 0
		for seed := range uint64(4) {
			n := newNetwork(seed, 20, rtt, 1)
			f := n.add(n.measured(), -1)
			n.runUntil(5*time.Second + time.Duration(seed)*300*ms)
			under, lost = under+f.inFlight/simPacket, lost-f.lostCount
			n.rate /= 40
			n.limit = 3 * simPacket
			n.runUntil(n.now + 2*time.Second)
			lost += f.lostCount
		}
		t.Logf("%v: %d packets were under way, and %d were lost in 2 s", rtt, under, lost)
		if lost > 4*under {
			t.Errorf("%v: %d packets were under way, and %d were lost", rtt, under, lost)
		}
	}
}

// TestCollapseClose: only what is lost in two rounds running takes all of the bounds, and
// a round that delivers as much as it loses begins anew.
func TestCollapseClose(t *testing.T) {
	var l collapse
	for i, r := range []struct {
		lost, volume int
		kept         float64
	}{{60, 100, beta}, {50, 100, beta}, {51, 100, beta}, {90, 100, 0}, {100, 100, 0}, {0, 0, beta}, {99, 100, beta}} {
		if kept := l.close(r.lost, r.volume); kept != r.kept {
			t.Errorf("round %d: %v of the bounds is kept, want %v", i, kept, r.kept)
		}
	}
}

// TestConserve: what is in flight shrinks where packets are lost beside those that come, not
// where all that was sent before an outage is.
func TestConserve(t *testing.T) {
	for _, outage := range []bool{false, true} {
		n := newNetwork(1, 20, 40*ms, 1)
		g := n.bbr()
		n.add(g, -1)
		n.runUntil(5 * time.Second)
		k, now, last := g.c, n.now+40*ms, g.c.sampler.log.first+40
		for i := last - 40; i < last; i++ {
			k.Lost(now, i)
		}
		if outage {
			last = k.sampler.log.next
			k.Sent(now, last, simPacket, simPacket)
			now += 40 * ms
		}
		k.Acked(now, last)
		k.Settle(now, 0, 0)
		if kept := k.Window() > 2*k.leastWindow(); kept != outage {
			t.Errorf("outage %v: the window is %d bytes", outage, k.Window())
		}
	}
}
