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

// TestTremblingStartFoundLate: of these starts the second link's is ended at 1 or 2 Mbit/s
// by the first swing. So few answers come then that it takes more than two seconds until
// they show that the path trembles. The start goes on all the same, and the line is filled.
func TestTremblingStartFoundLate(t *testing.T) {
	if raceDetector {
		t.Skip("runs on one goroutine, and takes long with the race detector: make unit runs it without")
	}
	g, o := lineNamed("jitter"), bulkOutcome{}
	for _, seed := range []uint64{265, 312} {
		g.bulk(false, seed, &o)
	}
	t.Logf("%.1f Mbit/s after the first two seconds", o.then)
	if o.wrong > 0 {
		t.Errorf("%d pieces with wrong bytes", o.wrong)
	}
	if least := slices.Min(o.then); least < 58 {
		t.Errorf("%.1f Mbit/s after the first two seconds, 58 wanted", o.then)
	}
}
