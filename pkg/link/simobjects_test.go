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
	objectSeeds = flag.Uint64("objects", 0, "TestObjects: seeds; 0: skip")
	objectTaken = flag.Duration("objects-taken", 2*ms, "TestObjects: for how long processors are taken away, in the mean")
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

// TestObjects says how long objects take over two QUIC links, after many smaller ones,
// on ends that wait for a processor now and then. It is an instrument and judges nothing:
// docs/findings-paths.md, "100 KB by QUIC", has what it shows.
func TestObjects(t *testing.T) {
	if *objectSeeds == 0 {
		t.Skip("no -args -objects")
	}
	line := simLine{rate: 50e6 / 8, limit: 20 * ms, delay: 10 * ms}
	for seed := range *objectSeeds {
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
				t.Logf("seed %d, %4d KB: p50 %v, p90 %v, the last %v", seed, k.size/1000, quantileOf(all, 0.5), quantileOf(all, 0.9), all[len(all)-1])
			}
		})
	}
}
