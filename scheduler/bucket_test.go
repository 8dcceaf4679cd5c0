package scheduler

import (
	"testing"
	"time"
)

// TestDRRGuaranteeAfterPlenty: who has long had more than its guarantee, as nobody else
// wanted anything, has that at least when others come.
func TestDRRGuaranteeAfterPlenty(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	sure := plainTerms(0)
	sure.Guarantee = 2e6
	l.join(0, sure)
	for range 10 { // minutes alone
		l.serve(10_000, 60*10e6, 10e6)
	}
	for u := 1; u < 40; u++ {
		l.join(u, plainTerms(u))
	}
	if got := l.serve(10_000, 50e6, 10e6)[0]; got < 9.5e6 || got > 11.5e6 {
		t.Errorf("the guaranteed user got %d in 5 s, want 10000000 at least", got)
	}
}

// TestDRRGuaranteeSmall: the same where chunks are larger than what the guarantee lets
// wait in its bucket: no more than that is served before others.
func TestDRRGuaranteeSmall(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	sure := plainTerms(0)
	sure.Guarantee = 100e3
	l.join(0, sure)
	l.serve(48_000, 60*10e6, 10e6)
	for u := 1; u < 400; u++ {
		l.join(u, plainTerms(u))
	}
	if got := l.serve(48_000, 1000e6, 10e6)[0]; got < 9.5e6 || got > 12e6 {
		t.Errorf("the guaranteed user got %d in 100 s, want 10000000 at least", got)
	}
}

// TestDRRRatesChange: whatever rates a peer names, one after the other, time goes on. A user
// whose bucket would be full within less than a nanosecond was woken again and again, and
// so was one that would wait for longer than a time.Duration lasts.
func TestDRRRatesChange(t *testing.T) {
	rates := []float64{0, 1, 1e3, 1e6, 1e11, 1e13, 1e14, 1 << 62}
	for _, first := range rates {
		for _, second := range rates {
			for _, limit := range []bool{false, true} {
				done := make(chan struct{})
				go func() {
					defer close(done)
					changeRates(t, first, second, limit)
				}()
				select {
				case <-done:
				case <-time.After(10 * time.Second):
					t.Fatalf("from %g to %g bytes per second, limit %v: it never ends", first, second, limit)
				}
			}
		}
	}
}

func changeRates(t *testing.T, first, second float64, limit bool) {
	l := newLineup(t, NewDRR[int](0))
	terms := func(rate float64) Terms {
		s := plainTerms(0)
		if s.Guarantee = rate; limit {
			s.Guarantee, s.Limit = 0, rate
		}
		return s
	}
	a := l.join(0, terms(first))
	for range 5 {
		l.o.Charge(a, 3*Quantum)
	}
	l.join(1, terms(second))
	l.join(2, terms(second)) // at the same time
	for _, n := range l.nodes {
		l.o.Charge(n, 3*Quantum)
	}
	l.o.Begin(l.now)
	for range 10 {
		if due := l.o.Wake(); due.After(l.now) {
			l.now = due
		}
		l.o.Begin(l.now)
	}
}
