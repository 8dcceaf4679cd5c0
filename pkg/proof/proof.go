// Package proof tells parties that read from those that only fill their buffers: what one that is
// read lets pass goes on, what the other does is over when all buffers on the way are full.
//
// The package starts no goroutines. Times are milliseconds since any moment, the same one
// for all that share a Tally.
package proof

import "sync"

const (
	// After is how much must pass within Time for that to be more than what a reader's own
	// buffers take and a trickle beside it, in bytes.
	After = 128 << 10
	// Time is how long a count of what passes goes on, and for how long a proof holds at
	// least, in milliseconds.
	Time = 10_000

	// A proof holds until the end of the step in which it is as old as Time.
	step  = Time / 2
	steps = 3
)

// Proof is whether one is read; the zero value says no. Its owner sees to it that its
// methods are called one at a time. Nothing need be called for one that is read no more:
// it lapses, and so does its part of the Tally.
type Proof struct {
	passed uint32 // bytes since then, and whether it is the proof that was given then
	since  uint32 // wraps
}

const given = 1 << 31 // in passed

// Pass notes that n bytes more have passed. has is what counts for this one in t while it
// is read: 1, or what it takes.
func (p *Proof) Pass(n int, now int64, has int, t *Tally) {
	if uint32(now)-p.since > Time {
		p.End(now, has, t)
		p.since = uint32(now)
	}
	if n = min(n, After) + int(p.passed&^given); n < After {
		p.passed = p.passed&given | uint32(n)
		return
	}
	p.Change(now, -has, t)
	p.passed, p.since = given, uint32(now)
	p.Change(now, has, t)
}

// Holds says that it is read.
func (p *Proof) Holds(now int64) bool {
	return p.passed&given != 0 && now/step-p.from(now) < steps
}

// from is the step in which it was given.
func (p *Proof) from(now int64) int64 { return (now - int64(uint32(now)-p.since)) / step }

// Lately is how many bytes have passed since the present count of them began, Time ago at
// most when it last changed; After where a proof was given.
func (p *Proof) Lately() int {
	if p.passed&given != 0 {
		return After
	}
	return int(p.passed)
}

// Change notes that what counts for it has become more by so much, or less.
func (p *Proof) Change(now int64, by int, t *Tally) {
	if p.passed&given != 0 {
		t.add(now/step, p.from(now), int64(by))
	}
}

// End takes it back.
func (p *Proof) End(now int64, has int, t *Tally) {
	p.Change(now, -has, t)
	p.passed = 0
}

// Tally is what counts for all that are read, together. The zero value is ready; all
// methods may be called from any goroutine.
type Tally struct {
	whole *Tally // of which it is a part; nil: of none

	mu   sync.Mutex
	last int64        // the newest step
	had  [steps]int64 // what proofs of the last steps count for, by step modulo steps
}

// PartOf makes what counts in t count in another, too. Nothing has yet.
func (t *Tally) PartOf(whole *Tally) { t.whole = whole }

// Sum is what counts for those that are read.
func (t *Tally) Sum(now int64) (n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(now / step)
	for _, had := range t.had {
		n += had
	}
	return n
}

// Come counts one more for as long as a proof would hold that was given now.
func (t *Tally) Come(now int64) { t.add(now/step, now/step, 1) }

// add counts what proofs of a step have; those of older ones have lapsed.
func (t *Tally) add(now, of, by int64) {
	if t.whole != nil {
		t.whole.add(now, of, by)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turn(now); of <= t.last && t.last-of < steps {
		n := &t.had[of%steps]
		*n = max(*n+by, 0)
	}
}

// turn forgets what has lapsed, all if the clock was put back. The caller holds mu.
func (t *Tally) turn(now int64) {
	if now-t.last >= steps || t.last-now >= steps {
		t.had, t.last = [steps]int64{}, now
	}
	for t.last < now {
		t.last++
		t.had[t.last%steps] = 0
	}
}
