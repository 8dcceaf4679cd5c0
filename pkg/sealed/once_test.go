package sealed

import (
	"math/rand/v2"
	"testing"
)

// Every number is taken once, in any order within reach, and never again.
func TestOnce(t *testing.T) {
	var o once
	const n = 200_000
	order := make([]uint64, n)
	for i := range order {
		order[i] = uint64(i + 1)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range order { // each at most a few thousand places off
		k := min(i+rng.IntN(5000), n-1)
		order[i], order[k] = order[k], order[i]
	}
	for i, f := range order {
		if !o.take(f) {
			t.Fatalf("flow %d, number %d in order, is refused", f, i)
		}
		if o.take(f) {
			t.Fatalf("flow %d is taken twice", f)
		}
		if i > 0 && o.take(order[rng.IntN(i)]) {
			t.Fatal("a flow of before is taken again")
		}
	}
}

// After a jump what lay before it is too old, what lies beyond is fresh.
func TestOnceJumps(t *testing.T) {
	var o once
	for _, c := range []struct {
		flow uint64
		want bool
	}{
		{1, true}, {1 << 40, true}, {1<<40 - reach, true}, {1<<40 - reach, false}, {1, false}, {1<<40 - reach - blockFlows, false},
		{1<<40 + 1, true}, {1<<63 + 5, true}, {1 << 40, false}, {1<<64 - 1, true}, {1<<64 - 1, false}, {1<<64 - 2, true},
	} {
		if got := o.take(c.flow); got != c.want {
			t.Errorf("flow %d: %v, want %v", c.flow, got, c.want)
		}
	}
}
