package bbr

import (
	"math"
	"testing"
	"time"
)

// TestVolleys: what a path carries shows although a fifth of it is used, also where
// packets and acknowledgements get lost. Where round trips tremble it is less at times, and
// not much more.
func TestVolleys(t *testing.T) {
	for _, test := range []struct {
		name   string
		jitter time.Duration
		loss   float64
		low    float64 // of what the path carries
		high   float64
	}{{"clean", 0, 0, 0.98, 1.02}, {"lossy", 0, 0.01, 0.9, 1.1}, {"trembling", 5 * time.Millisecond, 0, 0.3, 1.3}} {
		for seed := range uint64(5) {
			n := newNetwork(seed, 20, 60*time.Millisecond, 2)
			n.there.jitter, n.back.jitter, n.loss, n.ackLoss = test.jitter, test.jitter, test.loss, test.loss
			ctl := &slow{governed: n.measured(), rate: n.rate / 5}
			ctl.c.Volleys(true)
			n.add(ctl, -1)
			n.runUntil(4 * time.Second)
			carries, times := ctl.c.Carries()
			if times < 50 || carries < n.rate*test.low || carries > n.rate*test.high {
				t.Errorf("%s, seed %d: %.1f Mbit/s of 20, measured %d times", test.name, seed, carries/125_000, times)
			}
		}
	}
}

// slow sends volleys at a rate of its own.
type slow struct {
	*governed
	rate float64
}

func (s *slow) sent(now time.Duration, number int64, size, inFlight int) {
	s.c.Sent(now, number, size, inFlight)
	s.pacer.Sent(now, s.rate, simPacket, size)
}

func (s *slow) budget(now time.Duration) int {
	s.pacer.Volley = Volley(s.rate, simPacket)
	if !s.pacer.May(now, s.rate, simPacket) {
		return 0
	}
	return s.pacer.Budget(now, s.rate, simPacket)
}

func (s *slow) next() time.Duration { return s.pacer.Next(s.rate, Volley(s.rate, simPacket)) }

// TestVolleysWrap: the number of a volley may become negative.
func TestVolleysWrap(t *testing.T) {
	v := volleys{on: true, n: math.MaxInt32 - 10}
	now := time.Duration(0)
	for range 40 {
		now += 10 * time.Millisecond
		id := v.sent(now)
		v.acked(id, int64(now), 1000)
		v.settle(now + time.Millisecond)
	}
	if v.n >= 0 {
		t.Errorf("volley %d: it has not wrapped", v.n)
	}
}
