package scheduler

import (
	"testing"
	"time"
)

// TestUnrestNeedsAPath: a full link whose rate changes fourfold every two
// seconds is restless on an uplink's round trip, and is not on a LAN's, where
// such changes are those of the processors that the programs get. Nor is one whose
// round trips rise as far by themselves: it may not be full.
func TestUnrestNeedsAPath(t *testing.T) {
	for _, k := range []struct {
		path, swings time.Duration
		want         bool
	}{{100 * time.Microsecond, 0, false}, {2 * time.Millisecond, 0, false}, {20 * time.Millisecond, 0, true},
		{80 * time.Millisecond, 0, true}, {20 * time.Millisecond, 30 * time.Millisecond, true}, {20 * time.Millisecond, 45 * time.Millisecond, false}} {
		var u unrest
		const step, window = 5 * time.Millisecond, 1 << 20
		now, delivered, got := time.Unix(1, 0), 0.0, false
		u.look(now, View{RTT: k.path}, window, 0)
		for i := range 2000 {
			now = now.Add(step)
			rate := 1e6
			if i/400%2 == 1 {
				rate = 4e6
			}
			delivered += rate * step.Seconds()
			u.look(now, View{RTT: k.path + 40*time.Millisecond, Delivered: uint64(delivered), Flying: window, InFlight: window}, window, k.swings)
			got = got || u.restless(now)
		}
		if got != k.want {
			t.Errorf("round trip %v, swings %v: restless %v, want %v", k.path, k.swings, got, k.want)
		}
	}
}

// TestRestIsNoOutage: half a second in which nobody looked at a link, as it had nothing
// to carry, does not make it restless, though the last look saw more under way; the same
// half second under looks does.
func TestRestIsNoOutage(t *testing.T) {
	const path, window = 20 * time.Millisecond, 1 << 20
	for _, every := range []time.Duration{0, 25 * time.Millisecond} {
		var u unrest
		now, delivered := time.Unix(1, 0), uint64(0)
		look := func() {
			u.look(now, View{RTT: path, Delivered: delivered, Flying: 4 * evidence, InFlight: 4 * evidence}, window, 0)
		}
		for range 50 {
			now, delivered = now.Add(2*time.Millisecond), delivered+10_000
			look()
		}
		for rest := 570 * time.Millisecond; rest > 0 && every > 0; rest -= every {
			now = now.Add(every)
			look()
		}
		if every == 0 {
			now = now.Add(570 * time.Millisecond)
		}
		now, delivered = now.Add(2*time.Millisecond), delivered+10_000
		look()
		if got, want := u.restless(now), every > 0; got != want {
			t.Errorf("a look every %v (0: none): restless %v, want %v", every, got, want)
		}
	}
}
