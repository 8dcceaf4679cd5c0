package proof

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestProof: After within Time is a proof, however it comes; a trickle is none, and
// what has come of it does not help later. One that is read on has it all the time, one
// that is not loses it after Time and at most a step, though nobody looks.
func TestProof(t *testing.T) {
	for _, origin := range []int64{0, 1_764_000_000_000, math.MaxUint32 - 3000} {
		var p Proof
		var all Tally
		now := origin
		for range 1000 { // 12.5 KB/s
			if p.Pass(125, now, 7, &all); p.Holds(now) || all.Sum(now) != 0 {
				t.Fatal("a trickle is a proof")
			}
			now += 10
		}
		now += Time
		p.Pass(After-1, now, 7, &all)
		now += Time + 1
		if p.Pass(After-1, now, 7, &all); p.Holds(now) {
			t.Error("what was read before counts")
		}
		if p.Pass(1, now, 7, &all); !p.Holds(now) || all.Sum(now) != 7 {
			t.Errorf("no proof, %d counted", all.Sum(now))
		}
		for range 1000 { // 26 KB/s
			now += 100
			if p.Pass(2621, now, 7, &all); !p.Holds(now) || all.Sum(now) != 7 {
				t.Fatalf("%d ms later: %v, %d counted", now-origin, p.Holds(now), all.Sum(now))
			}
		}
		stopped := now
		for ; p.Holds(now); now += 10 {
			if all.Sum(now) != 7 {
				t.Fatalf("%d counted", all.Sum(now))
			}
		}
		if took := now - stopped; took > Time+step || all.Sum(now) != 0 {
			t.Errorf("lapses %d ms after nothing is read any more, %d counted", took, all.Sum(now))
		}
		p.End(now, 7, &all)
		if all.Sum(now) != 0 {
			t.Errorf("%d counted at last", all.Sum(now))
		}
	}
}

// TestTally: the sum is what those have that hold a proof, whatever they do; and nothing
// once the clock was put back.
func TestTally(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var all Tally
	proofs, has := make([]Proof, 20), make([]int, 20)
	now := int64(12345)
	for range 100_000 {
		now += r.Int64N(200)
		i := r.IntN(len(proofs))
		p := &proofs[i]
		switch r.IntN(10) {
		case 0:
			by := r.IntN(100)
			p.Change(now, by, &all)
			has[i] += by
		case 1:
			p.End(now, has[i], &all)
			has[i] = 0
		default:
			p.Pass(r.IntN(After/4), now, has[i], &all)
		}
		want := 0
		for i := range proofs {
			if proofs[i].Holds(now) {
				want += has[i]
			}
		}
		if got := all.Sum(now); got != int64(want) {
			t.Fatalf("%d counted, want %d", got, want)
		}
	}
	if n := all.Sum(now - 1e9); n != 0 {
		t.Errorf("%d counted before all began", n)
	}
}
