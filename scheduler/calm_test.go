package scheduler

import (
	"testing"
	"time"
)

// TestSteady: a path counts as steady after it was in use for two seconds without
// trembling; one that idles shows nothing.
func TestSteady(t *testing.T) {
	now := time.Unix(1000, 0)
	var e Estimator
	e.Ack(now, Sample{RTT: 60 * time.Millisecond})
	look := func(d time.Duration, flying int, swing time.Duration) {
		for end, i := now.Add(d), 0; now.Before(end); i++ {
			rtt := 60 * time.Millisecond
			if i%100 < 50 {
				rtt += swing
			}
			now = now.Add(2 * time.Millisecond)
			e.Look(now, View{RTT: rtt, Flying: flying, InFlight: flying, Delivered: uint64(i)})
		}
	}
	for _, c := range []struct {
		what   string
		d      time.Duration
		flying int
		swing  time.Duration
		want   bool
	}{
		{"at first", 0, 0, 0, false},
		{"after idling", 5 * time.Second, 0, 0, false},
		{"after a second of use", time.Second, 100_000, 0, false},
		{"after three", 2 * time.Second, 100_000, 0, true},
		{"idle again", 5 * time.Second, 0, 0, true},
		{"trembling", 2 * time.Second, 100_000, 25 * time.Millisecond, false},
		{"a second after that", time.Second, 100_000, 0, false},
		{"long after that", 4 * time.Second, 100_000, 0, true},
	} {
		if look(c.d, c.flying, c.swing); e.Steady() != c.want {
			t.Errorf("%s: steady %v", c.what, e.Steady())
		}
	}
	if e.Renew(); e.Steady() {
		t.Error("another connection's path is steady at once")
	}
}

// TestSteadyIsSlow: a fast path in use never counts as steady.
func TestSteadyIsSlow(t *testing.T) {
	for _, k := range []struct {
		mbit float64
		want bool
	}{{50, true}, {300, false}} {
		now := time.Unix(1000, 0)
		var e Estimator
		for i := range 2000 {
			now = now.Add(2 * time.Millisecond)
			bytes := int(k.mbit / 8 * 2000)
			e.Look(now, View{RTT: 20 * time.Millisecond, Flying: 100_000, InFlight: 100_000, Delivered: uint64(i * bytes)})
			e.Ack(now, Sample{RTT: 20 * time.Millisecond, Delivered: 10 * bytes, Interval: 20 * time.Millisecond, Round: i%10 == 0})
		}
		if e.Steady() != k.want {
			t.Errorf("%.0f Mbit/s: steady %v", k.mbit, e.Steady())
		}
	}
}
