package bbr

import (
	"testing"
	"time"
)

// TestRenewal: what is asked for at an age of the least round trip, which is 20 ms.
func TestRenewal(t *testing.T) {
	for name, c := range map[string]struct {
		age        time.Duration
		rtt        time.Duration
		flying     int
		due, renew bool
	}{
		"young":                              {8 * time.Second, 20 * ms, 50, false, false},
		"with a queue":                       {9 * time.Second, 32 * ms, 50, true, false},
		"drained":                            {9 * time.Second, 21 * ms, 50, false, true},
		"drained as it is about to measure":  {10*time.Second + 100*ms, 21 * ms, 50, false, true},
		"with a queue while it measures":     {10*time.Second + 100*ms, 32 * ms, 50, false, false},
		"while it measures":                  {10*time.Second + 100*ms, 20 * ms, 4, false, false},
		"at rest":                            {9 * time.Second, 20 * ms, 0, false, false},
		"without a round trip":               {9 * time.Second, 0, 50, false, false},
		"after it has measured, with others": {11 * time.Second, 20 * ms, 50, false, false},
	} {
		var r Renewal
		r.Look(time.Second, 20*ms, 20*ms, 50)
		if due, renew := r.Look(time.Second+c.age, c.rtt, 20*ms, c.flying); due != c.due || renew != c.renew {
			t.Errorf("%s: due %v, renew %v; want %v, %v", name, due, renew, c.due, c.renew)
		}
	}
}

// TestRenewalCounts: BBR is young again once it has begun anew for any reason, has
// seen a shorter round trip, or has measured by itself.
func TestRenewalCounts(t *testing.T) {
	for name, c := range map[string]struct {
		event     func(r *Renewal)
		at, least time.Duration
	}{
		"another reason":  {func(r *Renewal) { r.Begun(9 * time.Second) }, 9 * time.Second, 20 * ms},
		"a shorter one":   {func(r *Renewal) { r.Look(8*time.Second, 30*ms, 19*ms, 50) }, 8 * time.Second, 19 * ms},
		"it was renewed":  {func(r *Renewal) { r.Look(9*time.Second, 20*ms, 20*ms, 50) }, 9 * time.Second, 20 * ms},
		"it has measured": {func(r *Renewal) { r.Look(11*time.Second, 32*ms, 20*ms, 50) }, 11 * time.Second, 20 * ms},
	} {
		var r Renewal
		r.Look(0, 20*ms, 20*ms, 50)
		c.event(&r)
		if due, renew := r.Look(c.at+8*time.Second, 32*ms, c.least, 50); due || renew {
			t.Errorf("%s: due %v, renew %v when it is young", name, due, renew)
		}
		if due, _ := r.Look(c.at+9*time.Second, 32*ms, c.least, 50); !due {
			t.Errorf("%s: never due again", name)
		}
	}
}
