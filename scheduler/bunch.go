package scheduler

import "time"

// Constants of bunch.
const (
	pauseLeast  = 40 * time.Millisecond // without anything that has arrived
	pauseFlying = evidence              // bytes under way, more than which show that it was the line that paused
	pausesKept  = 8                     // as many make a line one that delivers in bunches
	pausesFor   = 5 * time.Second       // within that
)

// bunch notices a line that delivers in bunches: nothing for a while although much is
// under way, then a heap. A round that ends with a pause shows a queue where there is
// none, and a rate that is too low.
type bunch struct {
	seen   uint64    // delivered at the last look
	moved  time.Time // when it last grew
	flying int       // bytes under way at the look before
	ends   [pausesKept]time.Time
	n      int
}

// look takes in a look at a transport.
func (b *bunch) look(now time.Time, v View) {
	if v.Delivered != b.seen {
		if now.Sub(b.moved) >= pauseLeast && b.flying > pauseFlying {
			b.ends[b.n%pausesKept] = now
			b.n++
		}
		b.seen, b.moved = v.Delivered, now
	}
	b.flying = v.Flying
}

// on reports whether the line delivers in bunches.
func (b *bunch) on(now time.Time) bool {
	return b.n >= pausesKept && now.Sub(b.ends[b.n%pausesKept]) < pausesFor
}
