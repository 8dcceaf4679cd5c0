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

// TestCopiesOnATrain: on lines that become slow for seconds what will come all the same
// is not sent twice.
func TestCopiesOnATrain(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	g := recorded(t)[slices.IndexFunc(recorded(t), func(g terrain) bool { return g.name == "train-trace" })]
	g.d = 30 * time.Second
	v := everything
	v.beside = true
	o := g.run(v, 1, 3)
	t.Logf("%.1f Mbit/s, longest stalls %.0f ms, extra %.2f %%", o.goodput, o.stall, o.extra)
	if mean(o.extra) > 2.75 || mean(o.goodput) < 2.6 {
		t.Errorf("%.2f %% were received twice, wanted at most 2.75; %.1f Mbit/s, wanted 2.6", mean(o.extra), mean(o.goodput))
	}
}
