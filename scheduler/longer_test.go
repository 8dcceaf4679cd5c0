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

// TestLongerFollowed: the transport of a link that is followed is told of a path that has become
// longer, too, though no start is made; not of one that is only somewhat longer, as after a queue.
func TestLongerFollowed(t *testing.T) {
	for _, c := range []struct{ rtt, want time.Duration }{{200 * ms, 200 * ms}, {35 * ms, 0}} {
		now := time.Unix(1000, 0)
		e := Estimator{full: true, far: farRounds, minRTT: 20 * ms, minRTTAt: now, srtt: c.rtt, follower: Follower{window: 100_000}}
		now = now.Add(farEvery + time.Second)
		for range 10 {
			e.addRTT(now, Sample{RTT: c.rtt, Path: c.rtt})
			now = now.Add(c.rtt)
		}
		if got := e.Longer(); got != c.want || !e.full || e.minRTT != c.rtt {
			t.Errorf("%v: told of %v, want %v; least %v, full %v", c.rtt, got, c.want, e.minRTT, e.full)
		}
	}
}
