package scheduler

import (
	"math/rand/v2"
	"testing"
	"time"
)

// bunches is a line as a radio cell that serves others in between: it pauses for 40 to 120
// ms three times a second or so, and carries four times as much in some seconds.
func bunches(seed uint64, length time.Duration) func(time.Duration) weather {
	rng := rand.New(rand.NewPCG(seed, 1))
	dead := make([]bool, length/ms+1)
	for at := time.Duration(0); at < length; at += 180*ms + time.Duration(rng.Int64N(int64(240*ms))) {
		for i := range 40 + rng.IntN(80) {
			if k := int(at/ms) + i; k < len(dead) {
				dead[k] = true
			}
		}
	}
	return func(at time.Duration) weather {
		rate := 500_000.0
		if at/(2*time.Second)%2 == 1 {
			rate /= 4
		}
		if dead[at/ms] {
			rate = 0
		}
		return weather{rate, 50 * ms}
	}
}

// TestBunch: a line that delivers in bunches is used, as a pause at a round's end shows
// neither a queue nor a rate.
func TestBunch(t *testing.T) {
	const length = 30 * time.Second
	used := 0.0
	for seed := range uint64(4) {
		u := &tube{limit: 0.5}
		u.e.unrest.until = time.Unix(2000, 0) // it is followed
		u.run(length, bunches(seed, length))
		part, p50, p95 := u.result()
		if u.e.Bunches() != u.e.bunch.on(u.now) {
			t.Error("it is not said that the line delivers in bunches, or for too long")
		}
		t.Logf("used %.3f, queue %v / %v, restless %v", part, p50, p95, u.restless)
		used += part / 4
	}
	if used < 0.8 {
		t.Errorf("%.3f of the line used, wanted 0.8", used)
	}
}
