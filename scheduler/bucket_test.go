package scheduler

import "testing"

// TestDRRGuaranteeAfterPlenty: who has long had more than its guarantee, as nobody else
// wanted anything, has that at least when others come.
func TestDRRGuaranteeAfterPlenty(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	sure := plainTerms(0)
	sure.Guarantee = 2e6
	l.join(0, sure)
	l.serve(10_000, 10*60*10e6, 10e6) // ten minutes alone
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
