package scheduler

import (
	"testing"
	"time"
)

// TestFollowerHeld: a search that the transport's own congestion control holds does
// not wait for ever for a window to be filled that is far too large, while the path
// has become longer or the transport makes a queue: the window comes down to what the
// link delivers, and then shows which of the two it was.
func TestFollowerHeld(t *testing.T) {
	const rate, base = 725_000, 64 * ms // bytes per second, and the round trip until now
	for _, c := range []struct {
		name  string
		path  time.Duration // of an empty queue
		queue bool          // what the transport has in the network beyond it waits in a queue
	}{{"a longer path", 89 * ms, false}, {"the transport's queue", base, true}} {
		t.Run(c.name, func(t *testing.T) {
			var f Follower
			now, delivered := time.Unix(1000, 0), 0.0
			f.begin(now, View{RTT: base}, 400_000, 5_500_000, base) // a rate of long ago
			asked, least := 0, f.Window()
			for i := range 3000 {
				now = now.Add(ms)
				was := i < 200
				flying := f.Most() // much more is given to the transport than it sends
				path := c.path
				if was {
					path = base
				}
				sent := min(flying, rate*int(path/ms)/1000)
				if c.queue && !was {
					sent = min(flying, 140_000)
					path = max(base, time.Duration(float64(sent)/rate*1e9))
				}
				delivered += min(rate, float64(sent)/path.Seconds()) * ms.Seconds()
				f.Look(now, View{RTT: path, Flying: min(flying, sent+60_000), InFlight: sent, Delivered: uint64(delivered)})
				if f.Urge() {
					asked++
				}
				least = min(least, f.Window())
			}
			t.Logf("asked %d times, window %d at least, %d at the end, a least round trip of %v", asked, least, f.Window(), f.base)
			if c.queue && least > 80_000 {
				t.Errorf("the window was %d bytes at least, wanted 80000 at most", least)
			}
			if !c.queue && f.base < 80*ms {
				t.Errorf("the path's length was not found: %v", f.base)
			}
		})
	}
}

// TestFollowerHeldOnASlowLine: where the window is small what the transport holds back is
// little, too. It is noticed all the same, and the transport is asked for more: else the
// link stays at what the transport had found before the line became quick.
func TestFollowerHeldOnASlowLine(t *testing.T) {
	const rate, base = 1_500_000, 60 * ms // bytes per second by now, and the round trip
	var f Follower
	now, delivered, sends, asked := time.Unix(1000, 0), 0.0, 15_000, 0
	f.begin(now, View{RTT: base}, startCap, 250_000, base)
	for range 3000 {
		now = now.Add(ms)
		sent := min(f.Most(), sends) // its congestion window
		path := max(base, time.Duration(float64(sent)/rate*1e9))
		delivered += float64(sent) / path.Seconds() * ms.Seconds()
		f.Look(now, View{RTT: path, Flying: f.Most(), InFlight: sent, Delivered: uint64(delivered)})
		if f.Urge() {
			asked++
			sends *= 2
		}
	}
	t.Logf("asked %d times, window %d", asked, f.Window())
	if got := float64(min(f.Most(), sends)) / base.Seconds(); got < 0.8*rate {
		t.Errorf("%.0f bytes per second are under way, wanted %d: the transport was asked %d times", got, rate, asked)
	}
}
