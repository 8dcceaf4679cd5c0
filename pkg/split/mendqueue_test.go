package split

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// bottleneck is where a wire's data waits. The zero bottleneck has no limit.
type bottleneck struct {
	rate       float64                       // in bit/s; 0: without limit
	queue      time.Duration                 // what waits at most: what comes then is lost
	over       atomic.Int64                  // packets that were lost so
	congestion tcpip.CongestionControlOption // of the ends; "": netstack's own choice
	sender     tcpip.TCPStats                // of the end that sends
	timeouts   uint64                        // of that, until all data had arrived

	waits sync.Mutex
	free  time.Time // when all that waits has left
}

// leaves is when a packet of so many bytes that is sent now has left; false: it is lost.
func (b *bottleneck) leaves(from, size int) (at time.Time, ok bool) {
	now := time.Now()
	if from != 0 || b.rate == 0 {
		return now, true
	}
	b.waits.Lock()
	defer b.waits.Unlock()
	if b.free.Before(now) {
		b.free = now
	}
	if b.free.Sub(now) > b.queue {
		b.over.Add(1)
		return now, false
	}
	b.free = b.free.Add(time.Duration(8 * float64(size) / b.rate * float64(time.Second)))
	return b.free, true
}

// TestMendQueue: over a line whose queue overflows and that loses single packets besides,
// netstack slows down, and neither waits for its timer nor sends again what the mender does.
// On a busy machine the line itself stands still at times: half of the transfers count, and
// none where the machine is too slow to fill the queue.
func TestMendQueue(t *testing.T) {
	if raceDetector {
		t.Skip("netstack is too slow for the line with the race detector: make unit runs it without")
	}
	const n, tries, rate = 6 << 20, 8, 100e6
	good, full := 0, 0
	for seed := uint64(0); seed < tries && good < tries/2; seed++ {
		w := newWire(true, 0.01, 150*time.Microsecond)
		w.rng = rand.New(rand.NewPCG(seed, 3))
		w.rate, w.queue, w.congestion = rate, 20*time.Millisecond, "reno"
		var client [16]byte
		put(&client, netip.MustParseAddr("10.1.0.2").AsSlice())
		w.mend.peers.note(&client, 0)
		took, _ := transfer(t, w, n)
		slowed, again, mended := w.sender.SACKRecovery.Value(), w.sender.Retransmits.Value(), w.count.mended.Load()
		t.Logf("%d MB in %v: slowed down %d times, %d timeouts, %d packets of netstack's sent again, %d mended, %d did not fit the queue",
			n>>20, took, slowed, w.timeouts, again, mended, w.over.Load())
		if w.over.Load() < 100 {
			continue
		}
		full++
		if w.timeouts == 0 && slowed > 0 && again < mended/4 {
			good++
		}
	}
	if full == 0 {
		t.Skip("the machine is too slow to fill the queue: nothing is shown")
	}
	if 2*good < full {
		t.Error("netstack waits for its timer, or repairs by itself")
	}
}
