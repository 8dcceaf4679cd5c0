package link

import (
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/wire"
)

// TestLongerPath: a lone line of 20 Mbit/s whose round trip rises from 20 to 100 ms, one way,
// is full again within some seconds.
func TestLongerPath(t *testing.T) {
	if raceDetector { // takes long with it; make unit runs all without
		t.Skip("takes 20 s under the race detector")
	}
	const seeds = 2
	mean := 0.0
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			line := simMbit(20, 20*ms)
			line.limit = 100 * ms
			w := newSimWorld(t, seed, wire.VersionMax, line)
			defer w.close()
			_, bulk := w.open(false)
			time.Sleep(4 * time.Second)
			w.ups.links[0].down.change(func(l *simLine) { l.delay += 80 * ms })
			time.Sleep(time.Second)
			before := w.got(bulk)
			time.Sleep(4 * time.Second)
			mbit := float64(w.got(bulk)-before) * 8 / 1e6 / 4
			t.Logf("%.1f Mbit/s in the second to the fifth second", mbit)
			mean += mbit / seeds
			w.mu.Lock()
			w.over = true
			w.mu.Unlock()
		})
	}
	if mean < 11 {
		t.Errorf("%.1f Mbit/s, wanted 11", mean)
	}
}
