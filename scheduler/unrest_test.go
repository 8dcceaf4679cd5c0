package scheduler

import (
	"testing"
	"time"
)

// TestUnrestNeedsAPath: a full link whose rate changes fourfold every two
// seconds is restless on an uplink's round trip, and is not on a LAN's, where
// such changes are those of the processors that the programs get.
func TestUnrestNeedsAPath(t *testing.T) {
	for _, k := range []struct {
		path time.Duration
		want bool
	}{{100 * time.Microsecond, false}, {2 * time.Millisecond, false}, {20 * time.Millisecond, true}, {80 * time.Millisecond, true}} {
		var u unrest
		const step, window = 5 * time.Millisecond, 1 << 20
		now, delivered, got := time.Unix(1, 0), 0.0, false
		u.look(now, View{RTT: k.path}, window)
		for i := range 2000 {
			now = now.Add(step)
			rate := 1e6
			if i/400%2 == 1 {
				rate = 4e6
			}
			delivered += rate * step.Seconds()
			u.look(now, View{RTT: k.path + 40*time.Millisecond, Delivered: uint64(delivered), Flying: window, InFlight: window}, window)
			got = got || u.restless(now)
		}
		if got != k.want {
			t.Errorf("round trip %v: restless %v, want %v", k.path, got, k.want)
		}
	}
}
