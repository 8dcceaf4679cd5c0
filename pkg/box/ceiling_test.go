package box

import (
	"math"
	"runtime/debug"
	"testing"
)

// TestCeiling: the limit follows the flows, by steps, and is gone afterwards; who
// has set one in the environment keeps it.
func TestCeiling(t *testing.T) {
	now := func() int64 { return debug.SetMemoryLimit(-1) }
	t.Setenv("GOMEMLIMIT", "")
	debug.SetMemoryLimit(math.MaxInt64)
	c := newCeiling(512 << 20)
	for _, step := range []struct{ flows, counted int }{{0, 0}, {100, 0}, {10_000, 10_000}, {9_900, 10_000}, {200_000, 200_000}, {50, 50}} {
		c.follow(step.flows)
		if want := max(512<<20-ceilingOutside, int64(step.counted)*flowMemory); now() < want || now() > want*5/4 {
			t.Errorf("%d flows: %d bytes, want %d or a little more", step.flows, now(), want)
		}
	}
	c.lift()
	if now() != math.MaxInt64 {
		t.Errorf("%d bytes stay", now())
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	if newCeiling(256 << 20).follow(10_000); now() != math.MaxInt64 {
		t.Errorf("%d bytes although GOMEMLIMIT is set", now())
	}
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	percent := func() int { p := debug.SetGCPercent(77); debug.SetGCPercent(p); return p }
	if c := newCeiling(1 << 20); percent() != ceilingPercent {
		t.Errorf("the collector waits for %d %%", percent())
	} else if c.lift(); percent() != 100 {
		t.Errorf("%d %% stay", percent())
	}
	t.Setenv("GOGC", "100")
	if newCeiling(1 << 20).lift(); percent() != 100 {
		t.Errorf("%d %% although GOGC is set", percent())
	}
	if n := (&ceiling{memory: 64 << 20}).limit(0); n < 48<<20 {
		t.Errorf("%d bytes are too few for any agent", n)
	}
}
