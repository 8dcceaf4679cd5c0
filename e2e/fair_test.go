package e2e

import (
	"fmt"
	"testing"
	"time"
)

// A measurement that is out of its bounds while the machine gave the test, the
// emulator or an agent no processor tells of the machine. It is made again, at
// most lateTries times in all; one that is out of bounds in a calm machine fails
// at once. A share of the lines' rates is measured anew in any case, fairTries
// times, and up to lateTries times in a machine that has no time. Where programs
// that do not belong to the test took a third of it and more to the last, the test is skipped, with the reason.
const (
	fairTries = 3
	lateTries = 6
)

// fairly runs a measurement, which returns what is out of bounds.
func (r *rig) fairly(t *testing.T, measure func() []string) {
	t.Helper()
	for try := 1; ; try++ {
		watch := r.watch(t)
		complaints := measure()
		late := watch.end(t)
		if len(complaints) == 0 {
			return
		}
		if late.hopeless() && try == lateTries {
			t.Skipf("not judged, %v: %q", late, complaints)
		}
		if try == lateTries || !late.busy() {
			for _, c := range complaints {
				t.Error(c)
			}
			t.Logf("try %d: %v", try, late)
			return
		}
		t.Logf("once more, %v: %q", late, complaints)
		time.Sleep(time.Duration(try) * 500 * ms)
	}
}

// atLeast measures a share until it is as large as wanted.
func (r *rig) atLeast(t *testing.T, want float64, what string, measure func() float64) {
	t.Helper()
	best := 0.0
	for try := 1; ; try++ {
		watch := r.watch(t)
		best = max(best, measure())
		late := watch.end(t)
		if best >= want {
			return
		}
		if late.hopeless() && try == lateTries {
			t.Skipf("not judged, %.3f of %s, %v", best, what, late)
		}
		if try == lateTries || try >= fairTries && !late.busy() {
			t.Errorf("%.3f of %s, at least %.2f is wanted; in try %d %v", best, what, want, try, late)
			return
		}
		t.Logf("once more, %.3f of %s, %v", best, what, late)
	}
}

// bounds collects what is out of bounds.
type bounds []string

// within checks one figure.
func (b *bounds) within(what string, got, most time.Duration) {
	if got > most {
		*b = append(*b, fmt.Sprintf("%s: %v, at most %v is wanted", what, got.Round(ms), most))
	}
}
