package scheduler

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// watch shows tremble round trips for d, one each 2 ms, and returns the share of
// the second half in which the path trembles, and the last depth.
func watch(d time.Duration, base time.Duration, rtt func(time.Duration) time.Duration) (share float64, depth time.Duration) {
	var t tremble
	begin := time.Unix(1000, 0)
	n, hits := 0, 0
	for at := time.Duration(0); at < d; at += 2 * ms {
		t.look(begin.Add(at), rtt(at), base)
		if at < d/2 {
			continue
		}
		n++
		if t.depth > 0 {
			hits++
			depth = t.depth
		}
	}
	return float64(hits) / float64(n), depth
}

// TestTremble: round trips that rise and fall by themselves are told from queues
// of our own, and from paths that change.
func TestTremble(t *testing.T) {
	wander := func(base, jitter time.Duration) func(time.Duration) time.Duration {
		rng := rand.New(rand.NewPCG(3, 4))
		points := make([]float64, 1000)
		for i := range points {
			points[i] = rng.Float64() + rng.Float64()
		}
		return func(at time.Duration) time.Duration {
			i, share := int(at/(40*ms)), float64(at%(40*ms))/float64(40*ms)
			off := points[i]*(1-share) + points[i+1]*share
			return base + time.Duration(off*float64(jitter))
		}
	}
	saw := func(base, high, period time.Duration) func(time.Duration) time.Duration {
		return func(at time.Duration) time.Duration {
			return base + time.Duration(float64(high)*float64(at%period)/float64(period))
		}
	}
	for _, c := range []struct {
		name string
		base time.Duration
		rtt  func(time.Duration) time.Duration
		want bool
	}{
		{"60 ms, each way 20 ms more or less", 22 * ms, wander(20*ms, 40*ms), true},
		{"80 ms, the same", 42 * ms, wander(40*ms, 40*ms), true},
		{"20 ms, each way 3 ms", 20 * ms, wander(17*ms, 6*ms), false},
		{"steady", 20 * ms, saw(29*ms, 4*ms, 100*ms), false},
		{"a standing queue that trembles", 20 * ms, wander(90*ms, 40*ms), false},
		{"a queue that fills and empties each second", 40 * ms, saw(40*ms, 50*ms, time.Second), false},
		{"a deep one, three times a second", 40 * ms, saw(40*ms, 300*ms, 300*ms), false},
		{"a path that changes twice a second", 40 * ms, func(at time.Duration) time.Duration {
			return 50*ms + time.Duration(30*math.Copysign(1, math.Sin(at.Seconds()*2*math.Pi)))*ms
		}, false},
	} {
		share, depth := watch(10*time.Second, c.base, c.rtt)
		t.Logf("%s: trembles %.2f of the time, by %v", c.name, share, depth)
		if c.want && share < 0.7 || !c.want && share > 0 {
			t.Errorf("%s: trembles %.2f of the time", c.name, share)
		}
	}
}

// TestTrembleStart: a round trip that a trembling path has lengthened does not
// end the start for good, and the transport is asked to look for more; once, unless
// that has found more.
func TestTrembleStart(t *testing.T) {
	var e Estimator
	now := time.Unix(1000, 0)
	ack := func(rtt, path time.Duration, bytes int) {
		now = now.Add(20 * ms)
		e.Look(now, View{RTT: path, Delivered: 1, Flying: bytes, InFlight: bytes})
		e.Ack(now, Sample{RTT: rtt, Path: path, Delivered: bytes, Interval: rtt, Round: true, InFlight: bytes})
	}
	ack(30*ms, 30*ms, 32<<10)
	for range 12 { // the path might have become longer: that is measured first
		ack(70*ms, 70*ms, 32<<10)
		e.minRTT = 30 * ms
	}
	if !e.full || e.Urge() {
		t.Fatalf("full %v after a round trip of 70 ms on a path of 30 ms", e.full)
	}
	before := e.NetCap()
	urged := false
	for i := 0; i < 8 && !urged; i++ {
		ack(40*ms, 40*ms, 32<<10)
		ack(70*ms, 70*ms, 32<<10)
		urged = e.Urge()
	}
	if e.full || !urged || e.Urge() {
		t.Errorf("full %v on a path that trembles; the transport was asked to look for more: %v", e.full, urged)
	}
	if got := e.NetCap(); got < 3*before/2 {
		t.Errorf("%d bytes in flight, %d before it was known", got, before)
	}
	asked := func(bytes int) (n int) {
		for range 60 {
			ack(40*ms, 40*ms, bytes)
			ack(70*ms, 70*ms, bytes)
			if e.Urge() {
				n++
			}
		}
		return n
	}
	if n := asked(32 << 10); n != 0 || !e.full {
		t.Errorf("asked %d times at the same rate, full %v", n, e.full)
	}
	if n := asked(96 << 10); n != 1 || !e.full {
		t.Errorf("asked %d times at three times the rate, full %v", n, e.full)
	}
}

// TestTrembleIsNotFar: round trips that are usually far above the least one, because
// they vary by so much, are no reason to drain the line and measure that anew; where a
// path has become longer they are.
func TestTrembleIsNotFar(t *testing.T) {
	for _, c := range []struct {
		name      string
		low, high time.Duration // of the round trips, after the first
		every     time.Duration // from the one to the other
		want      bool
	}{
		{"it trembles", 55 * ms, 100 * ms, 60 * ms, false},
		{"it has become longer", 75 * ms, 75 * ms, 60 * ms, true},
		{"it has become longer, and trembles a little", 85 * ms, 100 * ms, 60 * ms, true},
	} {
		var e Estimator
		now := time.Unix(1000, 0)
		const bytes = 400 << 10
		path, drained := 25*ms, false
		step := func(rtt time.Duration) {
			now = now.Add(10 * ms)
			path += (rtt - path) / 8
			e.See(path)
			e.Look(now, View{RTT: rtt, Delivered: 1, Flying: bytes, InFlight: bytes})
			e.Ack(now, Sample{RTT: rtt, Path: rtt, Delivered: bytes, Interval: rtt, Round: now.UnixNano()/int64(10*ms)%8 == 0, InFlight: bytes})
		}
		e.full = true
		step(25 * ms)
		for at := time.Duration(0); at < 8*time.Second; at += 10 * ms {
			rtt := c.low
			if at/c.every%2 == 1 {
				rtt = c.high
			}
			step(rtt)
			drained = drained || !e.drainTo.IsZero()
		}
		if drained != c.want {
			t.Errorf("%s: the line was drained: %v", c.name, drained)
		}
	}
}
