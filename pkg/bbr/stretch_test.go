package bbr

import (
	"testing"
	"time"
)

// TestStretch: a path that has become five times as long is full again soon once the caller
// says so, and a shorter one changes nothing.
func TestStretch(t *testing.T) {
	after := func(told bool) float64 {
		n := newNetwork(1, 20, 20*ms, 5)
		g := n.measured()
		n.add(g, -1)
		n.runUntil(5 * time.Second)
		n.rtt = 100 * ms
		n.runUntil(n.now + 500*ms)
		if told {
			g.c.Stretch(n.rtt)
		}
		g.c.Stretch(ms)
		n.goodputs(500 * ms)
		return n.goodputs(2 * time.Second)[0]
	}
	told, untold := after(true), after(false)
	t.Logf("%.2f of the capacity, %.2f if it is not told", told, untold)
	if told < 0.9 || untold > 0.7 {
		t.Errorf("%.2f of the capacity, %.2f if it is not told", told, untold)
	}
}
