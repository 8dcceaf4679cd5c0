package scheduler

import (
	"testing"
	"time"
)

// TestLonger: a path that has become longer for good begins anew and is told of, once; one
// whose round trips are long for the queue that stands there is not.
func TestLonger(t *testing.T) {
	for _, queue := range []bool{false, true} {
		var e Estimator
		now, path, told := time.Unix(1000, 0), 20*ms, 0
		const rate, bytes = 2.5e6, 200 << 10
		step := func(rtt time.Duration) {
			now = now.Add(10 * ms)
			path += (rtt - path) / 8
			e.See(path)
			e.Ack(now, Sample{RTT: rtt, Path: rtt, Delivered: bytes, Interval: time.Second * bytes / rate, Round: now.UnixNano()/int64(10*ms)%8 == 0, InFlight: bytes})
			if rtt := e.Longer(); rtt > 0 {
				told++
				if rtt != 100*ms || e.full {
					t.Errorf("told of %v, full %v", rtt, e.full)
				}
			}
		}
		for range 100 {
			step(20 * ms)
		}
		e.full = true
		for range 800 {
			rtt := 100 * ms
			if queue && !e.drainTo.IsZero() {
				rtt = 20 * ms // it has drained
			}
			step(rtt)
			e.full = e.full || told > 0
		}
		if want := map[bool]int{false: 1, true: 0}[queue]; told != want {
			t.Errorf("queue %v: told %d times, want %d", queue, told, want)
		}
	}
}
