package bbr

import (
	"testing"
	"time"
)

// TestTrembling: a line whose round trips vary by 20 ms each way is filled, by
// the controller alone and under the tunnel's window.
func TestTrembling(t *testing.T) {
	for _, c := range []struct {
		mbit float64
		rtt  time.Duration
	}{{50, 60 * ms}, {20, 80 * ms}} {
		var alone, followed float64
		const seeds = 3
		for seed := range uint64(seeds) {
			n := newNetwork(seed, c.mbit, c.rtt, 1)
			n.there.jitter, n.back.jitter = 20*ms, 20*ms
			n.add(n.bbr(), -1)
			n.runUntil(2 * time.Second)
			alone += n.goodputs(8 * time.Second)[0] / seeds

			n = newNetwork(seed, c.mbit, c.rtt, 1)
			n.there.jitter, n.back.jitter = 20*ms, 20*ms
			n.follow()
			n.runUntil(2 * time.Second)
			followed += n.goodputs(8 * time.Second)[0] / seeds
		}
		t.Logf("%g Mbit/s, %v: %.3f of the capacity alone, %.3f under the tunnel's window", c.mbit, c.rtt, alone, followed)
		if alone < 0.88 || followed < 0.88 {
			t.Errorf("%g Mbit/s, %v: %.3f of the capacity alone, %.3f under the tunnel's window, wanted 0.88", c.mbit, c.rtt, alone, followed)
		}
	}
}
