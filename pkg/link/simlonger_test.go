package link

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/wire"
)

// TestLongerPath: a lone line of 20 Mbit/s whose round trip rises from 20 to 100 ms, one way,
// is full again within some seconds, and nearly so where it rises to 200 ms.
func TestLongerPath(t *testing.T) {
	if raceDetector { // takes long with it; make unit runs all without
		t.Skip("takes 20 s under the race detector")
	}
	for _, c := range []struct {
		more, lasts time.Duration
		want        float64 // Mbit/s
	}{{80 * ms, 4 * time.Second, 11}, {180 * ms, 9 * time.Second, 12.5}} {
		if mid := longerPath(t, c.more, c.lasts); mid < c.want {
			t.Errorf("%v more: %.1f Mbit/s, wanted %.1f", c.more, mid, c.want)
		}
	}
}

// longerPath is the rate in Mbit/s of a path that has become longer, from the second second
// on: the median, as one reading in twelve is as low as they all were before.
func longerPath(t *testing.T, more, lasts time.Duration) float64 {
	rates := make([]float64, 5)
	for seed := range rates {
		synctest.Test(t, func(t *testing.T) {
			line := simMbit(20, 20*ms)
			line.limit = 100 * ms
			w := newSimWorld(t, uint64(seed), wire.VersionMax, line)
			defer w.close()
			_, bulk := w.open(false)
			time.Sleep(4 * time.Second)
			w.ups.links[0].down.change(func(l *simLine) { l.delay += more })
			time.Sleep(time.Second)
			before := w.got(bulk)
			time.Sleep(lasts)
			mbit := float64(w.got(bulk)-before) * 8 / 1e6 / lasts.Seconds()
			t.Logf("%v more: %.1f Mbit/s in the next %v", more, mbit, lasts)
			rates[seed] = mbit
			w.mu.Lock()
			w.over = true
			w.mu.Unlock()
		})
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}
