package tunnel

import (
	"slices"
	"testing"
	"time"
)

// TestCopiesUnderLoss: what a transport is about to make good is not sent twice.
func TestCopiesUnderLoss(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	g := terrains()[slices.IndexFunc(terrains(), func(g terrain) bool { return g.name == "loss" })]
	g.d = 4 * time.Second
	o := g.run(everything, 1)
	t.Logf("%.1f Mbit/s, longest stall %.0f ms, extra %.2f %%", o.goodput[0], o.stall[0], o.extra[0])
	if o.extra[0] > 1 || o.goodput[0] < 62 || o.stall[0] > 250 {
		t.Errorf("%.2f %% were received twice, wanted at most 1; %.1f Mbit/s, wanted 62; longest stall %.0f ms, wanted at most 250", o.extra[0], o.goodput[0], o.stall[0])
	}
}
