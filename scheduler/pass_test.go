package scheduler

import (
	"math/rand/v2"
	"testing"
)

// TestPass: a flow that waits lets others go, lower classes too, and nobody is
// asked for ever.
func TestPass(t *testing.T) {
	for _, k := range []OrderKind{OrderDRR, OrderRoundRobin, OrderStrict} {
		l := newLineup(t, NewOrder[int](k, 0))
		for i := range 50 {
			terms := plainTerms(i % 7)
			terms.Class = Class(i % int(classCount))
			l.join(i, terms)
		}
		seen := map[int]bool{}
		asked := 0
		l.o.Begin(l.now)
		for n := l.o.Next(); n != nil; n = l.o.Next() {
			seen[n.Flow] = true
			l.o.Pass(n)
			if asked++; asked > 4*maxPasses {
				t.Fatalf("%v: asks for ever", k)
			}
		}
		if len(seen) < 12 {
			t.Errorf("%v: only %d flows were asked", k, len(seen))
		}
		l.o.Begin(l.now)
		if l.o.Next() == nil {
			t.Errorf("%v: nobody is asked in the next round", k)
		}
	}
}

// TestPassKeepsShares: users who let others go first, because only one of two links
// suits them, have their weight's part all the same.
func TestPassKeepsShares(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	weights := []int{1, 1, 2, 4, 8, 3}
	sum := 0
	for i, w := range weights {
		terms := plainTerms(i)
		terms.Weight = w
		l.join(i, terms)
		sum += w
	}
	const chunk = 12_000
	got, all := map[int]int{}, 0
	rng := rand.New(rand.NewPCG(3, 4))
	for range 50_000 {
		l.o.Begin(l.now)
		picky := rng.IntN(5) == 0 // a chunk in five is for the link that does not suit users 1, 3 and 5
		n := l.o.Next()
		for picky && n != nil && n.Flow%2 == 1 {
			l.o.Pass(n)
			n = l.o.Next()
		}
		if n == nil {
			continue // the link stays idle for now
		}
		l.o.Charge(n, chunk)
		got[n.Flow] += chunk
		all += chunk
	}
	for i, w := range weights {
		if part := float64(got[i]) / float64(all) * float64(sum) / float64(w); part < 0.98 || part > 1.02 {
			t.Errorf("user %d of weight %d has %.3f of its part", i, w, part)
		}
	}
}

// TestPassAsksOthers: where a user's new flow would rather wait, the old one is asked in
// the same round.
func TestPassAsksOthers(t *testing.T) {
	l := newLineup(t, NewDRR[int](0))
	l.join(0, plainTerms(1))
	fresh := &Node[int]{Flow: 1}
	l.o.Join(fresh, plainTerms(1), l.now)
	l.o.Activate(fresh, l.now)
	for round := range 100 {
		l.o.Begin(l.now)
		n := l.o.Next()
		if n == fresh {
			l.o.Pass(n)
			n = l.o.Next()
		}
		if n == nil || n == fresh {
			t.Fatalf("round %d: the new flow has let others go first, and nobody else is asked", round)
		}
		l.o.Charge(n, 1000)
	}
}

// TestPassInPlainOrders: who lets others go first now and then keeps its place there, too.
func TestPassInPlainOrders(t *testing.T) {
	for k, want := range map[OrderKind]float64{OrderRoundRobin: 0.25, OrderStrict: 0.8} {
		l := newLineup(t, NewOrder[int](k, 0))
		for i := range 4 {
			l.join(i, plainTerms(i))
		}
		rng, got := rand.New(rand.NewPCG(3, 4)), map[int]int{}
		const rounds = 20_000
		for range rounds {
			l.o.Begin(l.now)
			n := l.o.Next()
			if rng.IntN(5) == 0 && n.Flow == 0 { // a chunk in five is for a link that does not suit the first flow
				l.o.Pass(n)
				n = l.o.Next()
			}
			l.o.Charge(n, 4000)
			got[n.Flow]++
		}
		if part := float64(got[0]) / rounds; part < 0.98*want {
			t.Errorf("%v: the first flow has %.3f of the chunks, want %.2f: %v", k, part, want, got)
		}
	}
}
