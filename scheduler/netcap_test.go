package scheduler

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// fluid drives an estimator's NetCap against a line without packets: what is in
// flight beyond one bandwidth-delay product waits in the queue.
type fluid struct {
	e     Estimator
	now   time.Time
	rate  float64 // bytes per second
	path  time.Duration
	bunch float64       // acknowledgements show a rate that is off by up to that part; the transport tells what has arrived, then
	rng   *rand.Rand    // of bunch
	late  time.Duration // one look at the transport of ten is made so much after its time was taken, then
	told  bool          // of all looks any may be late, up to that, and say when they were made, then
	sent  float64
}

// run lets d pass while the base round trip is base(t) and returns the share of
// the rate that was used, and the median queue, in the last half of it.
func (f *fluid) run(d time.Duration, base func(time.Duration) time.Duration) (used float64, queue time.Duration) {
	var delivered, span float64
	var queues []time.Duration
	for t := time.Duration(0); t < d; {
		b := base(t)
		n := float64(f.e.NetCap())
		q := math.Max(0, n/f.rate-b.Seconds())
		rtt := b + time.Duration(q*1e9)
		got := math.Min(f.rate*rtt.Seconds(), n)
		if f.path == 0 {
			f.path = rtt
		}
		f.path += (rtt - f.path) / 4
		f.e.See(f.path)
		t += rtt
		f.now = f.now.Add(rtt)
		seen := got
		if f.bunch > 0 {
			f.sent += got
			v := View{RTT: f.path, Flying: int(n), InFlight: int(n)}
			late := time.Duration(0)
			switch {
			case f.told:
				late = time.Duration(f.rng.Int64N(int64(f.late)))
				v.At = f.now.Add(late)
			case f.rng.IntN(10) == 0:
				late = f.late
			}
			v.Delivered = uint64(f.sent + late.Seconds()*f.rate)
			f.e.Look(f.now, v)
			seen *= 1 + f.bunch*(2*f.rng.Float64()-1)
		}
		f.e.Ack(f.now, Sample{RTT: rtt, Path: rtt, Delivered: int(seen), Interval: rtt, Round: true})
		if t > d/2 {
			delivered += got
			span += rtt.Seconds()
			queues = append(queues, time.Duration(q*1e9))
		}
	}
	slices.Sort(queues)
	return delivered / (f.rate * span), queues[len(queues)/2]
}

func flat(d time.Duration) func(time.Duration) time.Duration {
	return func(time.Duration) time.Duration { return d }
}

// TestNetCap: the line is used, and its queue stays short, whether round trips
// are steady, long, trembling or have just become longer.
func TestNetCap(t *testing.T) {
	trembling := func(d time.Duration) time.Duration {
		return 60*ms + time.Duration(30*math.Sin(d.Seconds()*7))*ms
	}
	for _, c := range []struct {
		name  string
		mbit  float64
		base  func(time.Duration) time.Duration
		least float64
	}{
		{"20 ms", 50, flat(20 * ms), 0.99},
		{"80 ms", 20, flat(80 * ms), 0.99},
		{"600 ms", 20, flat(600 * ms), 0.98},
		{"slow", 2, flat(60 * ms), 0.99},
		{"30 to 90 ms", 50, trembling, 0.85},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fluid{now: time.Unix(1000, 0), rate: c.mbit * 125_000}
			used, queue := f.run(30*time.Second, c.base)
			if used < c.least || queue > 50*ms {
				t.Errorf("%.3f of the rate is used, wanted %.2f, with a queue of %v, wanted at most 50ms", used, c.least, queue)
			}
		})
	}
}

// TestNetCapOfBunches: a queue stays short although acknowledgements that bunch show
// rates that are too high by up to a tenth; and a path that has become longer is found
// all the same.
func TestNetCapOfBunches(t *testing.T) {
	for _, c := range []struct {
		mbit  float64
		base  time.Duration
		queue time.Duration
	}{{50, 20 * ms, 16 * ms}, {300, 20 * ms, 20 * ms}, {20, 80 * ms, 40 * ms}, {5, 60 * ms, 32 * ms}} {
		f := &fluid{now: time.Unix(1000, 0), rate: c.mbit * 125_000, bunch: 0.1, rng: rand.New(rand.NewPCG(5, 6))}
		used, queue := f.run(20*time.Second, flat(c.base))
		t.Logf("%v Mbit/s, %v: %.3f of the rate is used, with a queue of %v", c.mbit, c.base, used, queue)
		if used < 0.99 || queue > c.queue {
			t.Errorf("%v Mbit/s, %v: %.3f of the rate is used, with a queue of %v, wanted at most %v", c.mbit, c.base, used, queue, c.queue)
		}
		if used, _ = f.run(4*time.Second, flat(3*c.base)); used < 0.9 {
			t.Errorf("%v Mbit/s, %v: %.3f of the rate is used 2 to 4 s after the path has become three times as long", c.mbit, c.base, used)
		}
	}
}

// TestNetCapOfLateLooks: a queue stays short although the machine is busy, so that looks
// at the transport show more than had been delivered when their time was taken.
func TestNetCapOfLateLooks(t *testing.T) {
	for _, c := range []struct {
		name string
		late time.Duration
		told bool
	}{{"one of ten", 10 * ms, false}, {"all, and they say so", 15 * ms, true}} {
		t.Run(c.name, func(t *testing.T) {
			f := &fluid{now: time.Unix(1000, 0), rate: 50 * 125_000, bunch: 0.06, late: c.late, told: c.told, rng: rand.New(rand.NewPCG(5, 6))}
			used, queue := f.run(20*time.Second, flat(20*ms))
			t.Logf("%.3f of the rate is used, with a queue of %v", used, queue)
			if used < 0.99 || queue > 16*ms {
				t.Errorf("%.3f of the rate is used, wanted 0.99, with a queue of %v, wanted at most 16ms", used, queue)
			}
		})
	}
}

// TestNetCapFollowsALongerPath: a path that has become three times as long is
// used again before the ten seconds of the least round trip are over.
func TestNetCapFollowsALongerPath(t *testing.T) {
	f := &fluid{now: time.Unix(1000, 0), rate: 6.25e6}
	f.run(6*time.Second, flat(40*ms))
	used, queue := f.run(4*time.Second, flat(120*ms))
	if used < 0.9 || queue > 50*ms {
		t.Errorf("%.3f of the rate is used 2 to 4 s after the path has become longer, with a queue of %v", used, queue)
	}
}

// TestNetCapFindsMore: a line that becomes ten times as fast is used within two
// seconds.
func TestNetCapFindsMore(t *testing.T) {
	f := &fluid{now: time.Unix(1000, 0), rate: 0.625e6}
	f.run(6*time.Second, flat(50*ms))
	f.rate = 6.25e6
	used, _ := f.run(4*time.Second, flat(50*ms))
	if used < 0.9 {
		t.Errorf("%.3f of the rate is used 2 to 4 s after it has grown", used)
	}
}

// TestUrgent: what is small and alone, and the first bytes of a flow, go out on
// two links, as long as the budget lasts.
func TestUrgent(t *testing.T) {
	links := []Link{up(20*ms, 50, 0, 1<<20), up(80*ms, 20, 0, 1<<20), up(40*ms, 20, 0, 1<<20)}
	o := NewOverdue()
	for _, c := range []struct {
		name   string
		off, n int
		alone  bool
		want   int // -1: none
	}{
		{"a small message", 1 << 20, 1200, true, 2},
		{"a flow's first bytes", 0, UrgentHead, false, 2},
		{"a small chunk of a bulk flow", 1 << 20, 1200, false, -1},
		{"a large chunk", 1 << 20, 16 << 10, true, -1},
	} {
		j, ok := o.Urgent(links, 0, c.off, c.n, c.alone)
		if !ok {
			j = -1
		}
		if j != c.want {
			t.Errorf("%s: copy on link %d, want %d", c.name, j, c.want)
		}
	}
	for range 1000 {
		o.Urgent(links, 0, 1<<20, 1200, true)
	}
	if _, ok := o.Urgent(links, 0, 1<<20, 1200, true); ok {
		t.Error("copies without end and without anything delivered")
	}
	o.Delivered(1 << 20)
	if _, ok := o.Urgent(links, 0, 1<<20, 1200, true); !ok {
		t.Error("no copy though a megabyte was delivered")
	}
	if _, ok := o.Urgent(links, 0, 0, UrgentHead, false); ok {
		t.Error("a flow's first bytes may not use the rest of the budget")
	}
}

// TestBeside: what has come lets small messages be copied, and the copies by the same
// link leave half of the budget to those elsewhere.
func TestBeside(t *testing.T) {
	links := []Link{up(20*ms, 50, 0, 1<<20), up(80*ms, 20, 0, 1<<20)}
	o := NewOverdue()
	if !o.Beside(1<<20, 1200, true) || o.Beside(1<<20, 1200, false) || o.Beside(0, UrgentHead, false) {
		t.Error("not for small messages alone")
	}
	for range 1000 {
		o.Beside(1<<20, 1200, true)
	}
	n := 0
	for range 1000 {
		if _, ok := o.Urgent(links, 0, 1<<20, 1200, true); ok {
			n++
		}
	}
	if want := urgentDepth / 2 / 1200; n < want || n > want+1 {
		t.Errorf("%d copies elsewhere are left, want %d", n, want)
	}
	o.Received(1 << 20)
	if _, ok := o.Urgent(links, 0, 1<<20, 1200, true); !ok {
		t.Error("no copy though a megabyte has come")
	}
}

// TestHealthOneWay: what the other end says is no proof that it hears us, and a
// peer that has all and does not answer is slow, not cut off.
func TestHealthOneWay(t *testing.T) {
	var e Estimator
	now := time.Unix(1000, 0)
	for range 20 {
		e.Ack(now, Sample{RTT: 20 * ms})
	}
	ev := Evidence{Connected: true, Heard: now, Oldest: now, Arrived: true}
	var h Health
	h.Step(now, ev, &e)
	h.Step(now.Add(300*ms), ev, &e)
	if h.State() != Up {
		t.Errorf("%v though all has arrived", h.State())
	}
	ev.Arrived = false
	h.Step(now.Add(300*ms), ev, &e)
	if h.State() != Suspect {
		t.Errorf("%v though nothing was acknowledged for 300 ms", h.State())
	}
	ev.Arrived = true
	h.Step(now.Add(4*time.Second), ev, &e)
	if h.State() != Probing {
		t.Errorf("%v though there was no answer for 4 s", h.State())
	}
}
