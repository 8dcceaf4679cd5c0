package scheduler

import (
	"testing"
	"time"
)

// TestJump: what volleys say lets a follower's rate and window grow at once, by twice at
// most, and once for each of them; not by what it has found itself, and not where the line
// delivers in bunches.
func TestJump(t *testing.T) {
	const rate = 250_000.0
	for _, c := range []struct {
		name    string
		carries float64
		bunched bool
		times   []uint64
		want    float64
	}{
		{"none", 10 * rate, false, []uint64{7, 7}, rate},
		{"one", 10 * rate, false, []uint64{8, 8, 8}, 2 * rate},
		{"two", 10 * rate, false, []uint64{8, 9}, 4 * rate},
		{"all that there is", 3 * rate, false, []uint64{8, 9, 10}, 3 * rate},
		{"no news", 1.2 * rate, false, []uint64{8, 9}, rate},
		{"bunches", 10 * rate, true, []uint64{8, 9}, rate},
	} {
		var f Follower
		now, v := time.Unix(1000, 0), View{RTT: 60 * ms, Volleys: 7, Carries: c.carries}
		f.begin(now, v, 20_000, rate, 60*ms)
		f.bunched = c.bunched
		before := f.Window()
		for _, v.Volleys = range c.times {
			now = now.Add(ms)
			f.Look(now, v)
		}
		if f.rate != c.want {
			t.Errorf("%s: a rate of %.0f, wanted %.0f", c.name, f.rate, c.want)
		}
		if jumped := c.want > rate; jumped && float64(f.Most()) < c.want*0.06 || !jumped && f.Window() > before {
			t.Errorf("%s: a window of %d after %d", c.name, f.Most(), before)
		}
	}
}
