package tunnel

import (
	"slices"
	"testing"
)

// TestTremblingStart: of these starts of a download over trembling lines the first is
// ended by the first swings, before it shows that these are no queue. The rate is
// found all the same.
func TestTremblingStart(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	g := terrains()[slices.IndexFunc(terrains(), func(g terrain) bool { return g.name == "jitter" })]
	o := g.run(everything, 1, 2, 3)
	t.Logf("%.1f Mbit/s", o.goodput)
	if least := slices.Min(o.goodput); least < 52 {
		t.Errorf("%.1f Mbit/s, wanted 52", least)
	}
}
