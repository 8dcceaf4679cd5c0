package procs

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// rig feeds a gauge.
type rig struct {
	*Gauge
	now  time.Time
	load Load
}

func newRig(all int) *rig {
	now := time.Unix(1_700_000_000, 0)
	return &rig{Gauge: NewGauge(all, now, Load{}), now: now}
}

// run lets time pass under a load and returns the number of processors then, and
// how long it has been that.
func (r *rig) run(d time.Duration, share float64, contended, calm uint64) (n int, since time.Duration) {
	const step = 7 * ms
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(step)
		r.load.CPU += time.Duration(share * float64(step))
		r.load.Contended += contended
		r.load.Calm += calm
		was := n
		if n = r.Look(r.now, r.load); n == was {
			since += step
		} else {
			since = 0
		}
	}
	return n, since
}

func TestOneWhileThatIsEnough(t *testing.T) {
	r := newRig(4)
	if n, _ := r.run(rest-20*ms, 0.5, 0, 1); n != 4 {
		t.Fatalf("%d processors before the first rest is over, want 4", n)
	}
	if n, _ := r.run(100*ms, 0.5, 0, 1); n != 1 {
		t.Fatalf("%d processors for half of one, want 1", n)
	}
	if n, _ := r.run(10*time.Second, 0.8, 0, 1); n != 1 {
		t.Errorf("%d processors for 0.8 of one, want 1", n)
	}
}

func TestAllAtOnceForALoad(t *testing.T) {
	r := newRig(4)
	r.run(2*rest, 0, 0, 0)
	if n, since := r.run(100*ms, 1, 0, 0); n != 4 || since < 80*ms {
		t.Errorf("%d processors for %v, want 4 from the first windows on", n, since)
	}
	// Several processors use less than one's time now and then: they stay.
	for range 20 {
		if n, _ := r.run(rest/2, 0.2, 0, 1); n != 4 {
			t.Fatalf("%d processors in a pause, want 4", n)
		}
		r.run(20*ms, 1.5, 0, 0)
	}
	if n, _ := r.run(rest+50*ms, 0.2, 0, 1); n != 1 {
		t.Errorf("%d processors after the load, want 1", n)
	}
}

// Where other programs take most of the processor, the share stays small however
// much there is to do; but who wants to wait always finds others at work.
func TestCrowdedMachine(t *testing.T) {
	r := newRig(2)
	r.run(2*rest, 0, 0, 0)
	if n, _ := r.run(50*ms, 0.3, 5, 2); n != 2 {
		t.Errorf("%d processors while goroutines wait for each other, want 2", n)
	}
	if n, _ := r.run(2*rest, 0.3, 1, 9); n != 1 {
		t.Errorf("%d processors when they seldom do, want 1", n)
	}
}

// TestStarved: timers that are late again and again say the same.
func TestStarved(t *testing.T) {
	r := newRig(2)
	r.run(2*rest, 0.1, 0, 1)
	for range 5 { // now and then is chance
		r.load.Late++
		if n, _ := r.run(2*between, 0.1, 0, 1); n != 1 {
			t.Fatalf("%d processors after a late timer, want 1", n)
		}
	}
	for range 20 {
		r.load.Late++
		r.run(between/3, 0.1, 0, 1)
	}
	if n, _ := r.run(10*ms, 0.1, 0, 1); n != 2 {
		t.Errorf("%d processors while timers are late, want 2", n)
	}
}

// A pause between two looks is no proof of a light load before the last one, nor a
// burst after it of a heavy one.
func TestLooksFarApart(t *testing.T) {
	r := newRig(2)
	r.now = r.now.Add(time.Hour)
	r.load.CPU += 10 * ms
	if n := r.Look(r.now, r.load); n != 1 {
		t.Errorf("%d processors after an hour at rest, want 1", n)
	}
	r.load.CPU += 2 * ms
	if n := r.Look(r.now.Add(ms), r.load); n != 1 {
		t.Errorf("%d processors within a window, want 1", n)
	}
}

func TestSingleProcessor(t *testing.T) {
	r := newRig(1)
	for _, share := range []float64{0, 1, 0} {
		if n, _ := r.run(2*rest, share, 9, 0); n != 1 {
			t.Errorf("%d processors of 1", n)
		}
	}
}
