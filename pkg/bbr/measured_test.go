package bbr

import (
	"testing"
	"time"
)

// TestMeasured: a controller that is told that its caller measures the least round trip
// does so by itself after ten seconds without one, not after five; and beside a Cubic
// that was first at a deep queue a flow under the tunnel's window has no less for that.
func TestMeasured(t *testing.T) {
	until := func(g func(*network) *governed) time.Duration {
		n := newNetwork(4, 50, 20*ms, 4)
		c := g(n)
		n.add(c, -1)
		n.runUntil(3 * time.Second)
		n.rtt = 80 * ms
		for n.now < 30*time.Second && c.c.State() != ProbeRTT {
			n.runUntil(n.now + ms)
		}
		return n.now
	}
	alone, told := until((*network).bbr), until((*network).measured)
	t.Logf("after %v alone, after %v if told", alone, told)
	if alone > 6*time.Second || told < 9*time.Second || told > 11*time.Second {
		t.Errorf("it measures after %v, wanted 5 s, and after %v if told, wanted 10 s", alone, told)
	}
	share := func(g func(*network) *governed) float64 {
		n := newNetwork(3, 50, 40*ms, 4)
		n.add(newCubic(), -1)
		n.after(2*time.Second, func() {
			ctl := &followed{governed: g(n), origin: time.Unix(1000, 0)}
			ctl.flow = n.add(ctl, -1)
		})
		n.runUntil(6 * time.Second)
		return n.goodputs(10 * time.Second)[1]
	}
	before, now := share((*network).bbr), share((*network).measured)
	t.Logf("beside Cubic %.2f of the line, %.2f if not told", now, before)
	if now < before-0.01 {
		t.Errorf("beside Cubic %.2f of the line, %.2f if not told", now, before)
	}
}
