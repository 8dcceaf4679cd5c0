package link

import (
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/wire"
)

// fallenLine has a download over a lone line of 20 Mbit/s and 40 ms whose rate falls to 0.5,
// with a buffer of 40 ms at either, and returns its longest stall in five seconds.
func fallenLine(t *testing.T, seed uint64) (stall time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		line := simMbit(20, 40*ms)
		line.limit = 40 * ms
		w := newSimWorld(t, seed, wire.VersionMax, line)
		defer w.close()
		_, bulk := w.open(false)
		time.Sleep(2*time.Second + time.Duration(seed)*300*ms)
		w.mu.Lock()
		bulk.gap = 0
		w.mu.Unlock()
		w.ups.links[0].down.change(func(l *simLine) { l.rate /= 40 })
		time.Sleep(5 * time.Second)
		w.mu.Lock()
		stall, w.over = max(bulk.gap, time.Since(bulk.lastGot)), true
		w.mu.Unlock()
	})
	return stall
}

// TestFallenLine: a download over a lone line whose rate has fallen to a fortieth goes on
// soon: what was under way at the old rate is lost and sent again, its head first.
func TestFallenLine(t *testing.T) {
	if raceDetector { // takes long with it; make unit runs all without
		t.Skip("takes 20 s under the race detector")
	}
	const seeds = 2
	var sum time.Duration
	for seed := range uint64(seeds) {
		stall := fallenLine(t, seed)
		t.Logf("longest stall %v", stall.Round(ms))
		sum += stall
	}
	if mean := sum / seeds; mean > 2*time.Second {
		t.Errorf("longest stalls of %v in the mean, wanted 2 s", mean)
	}
}
