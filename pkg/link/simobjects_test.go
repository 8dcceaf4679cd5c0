package link

import (
	"flag"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/stream"
	"hawser/pkg/wire"
)

var (
	objectSeeds = flag.Uint64("objects", 3, "TestObjects: seeds")
	objectTaken = flag.Duration("objects-taken", 3*ms, "TestObjects: for how long processors are taken away, in the mean")
)

// fetch downloads an object over a new flow and says how long that took.
func (w *simWorld) fetch(size int) time.Duration {
	from := time.Now()
	id, u := w.begin(&simUser{size: size, lastGot: from})
	for w.got(u) < size {
		time.Sleep(ms / 10)
	}
	took := time.Since(from)
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.edge.Post([]stream.Command{{Kind: stream.CmdReset, Flow: id, Code: stream.CodeAbort}})
	return took
}

// TestObjects: over two QUIC links objects take at most 1.3 times what the lines need,
// after many smaller ones, on ends that wait for a processor now and then. The bursts of
// such objects end the start of a link's estimator, and are all it has to learn from.
func TestObjects(t *testing.T) {
	line := simLine{rate: 50e6 / 8, limit: 20 * ms, delay: 10 * ms}
	seeds := *objectSeeds
	if raceDetector { // takes long with it; make unit runs all without
		seeds = min(seeds, 1)
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			w := newSimWorld(t, seed, wire.VersionMax, line, line)
			defer w.close()
			for side, cpu := range w.ups.net.cpus {
				w.wg.Go(func() { cpu.take(w.ctx, rand.New(rand.NewPCG(seed, uint64(100+side))), *objectTaken) })
			}
			time.Sleep(time.Second)
			for _, k := range []struct{ size, n int }{{10_000, 100}, {16_000, 100}, {100_000, 50}, {1_000_000, 20}} {
				var all []time.Duration
				for range k.n {
					all = append(all, w.fetch(k.size))
					time.Sleep(50 * ms)
				}
				p50 := quantileOf(all, 0.5)
				t.Logf("seed %d, %4d KB: p50 %v, p90 %v, the last %v", seed, k.size/1000, p50, quantileOf(all, 0.9), all[len(all)-1])
				least := 2*line.delay + time.Duration(float64(k.size)/(2*line.rate)*float64(time.Second))
				if p50 > least*13/10 {
					t.Errorf("seed %d: %d KB take %v, the lines need %v", seed, k.size/1000, p50, least)
				}
			}
		})
	}
}
