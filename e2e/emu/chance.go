package emu

import (
	"math/rand/v2"
	"time"
)

// dice draws the random loss of one direction. Each process has its own sequence, so
// that switching one on does not change what the other loses.
type dice struct {
	loss  *rand.Rand
	chain *rand.Rand
	bad   bool // state of the Gilbert-Elliott chain
}

func newDice(seed uint64) dice {
	return dice{loss: rand.New(rand.NewPCG(seed, 1)), chain: rand.New(rand.NewPCG(seed, 2))}
}

// roll returns Kept or the cause for which the next packet is lost.
func (d *dice) roll(p *Params) Fate {
	fate := Kept
	if p.Burst != (Burst{}) && d.burst(&p.Burst) {
		fate = BurstLoss
	}
	if p.Loss > 0 && d.loss.Float64() < p.Loss {
		fate = Loss
	}
	return fate
}

func (d *dice) burst(b *Burst) bool {
	turn := b.Enter
	if d.bad {
		turn = b.Leave
	}
	if d.chain.Float64() < turn {
		d.bad = !d.bad
	}
	lose := b.GoodLoss
	if d.bad {
		lose = b.BadLoss
	}
	return d.chain.Float64() < lose
}

// minWander is the shortest time between two points of the wandering delay.
const minWander = 10 * time.Millisecond

// wander is a delay offset that moves linearly between uniform random points. The
// points are at least two jitters apart, so the delay never falls faster than time
// passes and no packet overtakes another; its mean stays zero at any packet rate,
// which independent draws held back in order would not give.
type wander struct {
	rng      *rand.Rand
	from, to time.Duration // times of the two points
	a, b     float64       // their offsets, -1 to 1
}

// at returns the offset at time t, which does not go back between calls.
func (w *wander) at(t, jitter time.Duration) time.Duration {
	if jitter == 0 {
		return 0
	}
	step := max(minWander, 2*jitter)
	if t-w.to > step {
		w.to = t - step // idle: do not replay every point since then
	}
	for t >= w.to {
		w.from, w.to = w.to, w.to+step
		w.a, w.b = w.b, 2*w.rng.Float64()-1
	}
	share := float64(t-w.from) / float64(w.to-w.from)
	return time.Duration((w.a + (w.b-w.a)*share) * float64(jitter))
}
