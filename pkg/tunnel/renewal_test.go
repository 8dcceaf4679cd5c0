package tunnel

import (
	"slices"
	"testing"
	"time"
)

// TestNoPause: a download that lasts for longer than BBR believes a least round trip,
// ten seconds, has no pause in which BBR measures that, and messages beside it wait
// for none.
func TestNoPause(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	g := terrains()[slices.IndexFunc(terrains(), func(g terrain) bool { return g.name == "unlike" })]
	g.d = 13 * time.Second
	o := g.run(everything, 1)
	t.Logf("%.1f Mbit/s, longest stall %.0f ms, messages p50 %.0f ms, the longest %.0f", o.goodput[0], o.stall[0], quantile(o.message, 0.5), quantile(o.message, 1))
	if o.goodput[0] < 64 || o.stall[0] > 100 || quantile(o.message, 1) > 100 {
		t.Errorf("%.1f Mbit/s, wanted 64; longest stall %.0f ms and longest message %.0f ms, wanted at most 100", o.goodput[0], o.stall[0], quantile(o.message, 1))
	}
}
