package tunnel

import (
	"sync/atomic"

	"hawser/pkg/buffer"
)

// Budget bounds the payload that an agent's sessions hold together, in bytes.
// Sessions share it; all methods may be called from any goroutine.
//
// Memory is bounded by two means. What a flow may be sent (credit) and what it
// may keep for sending is a share of what is free, so that flows which nobody
// reads are given less and less, down to leastWindow, while those that are read
// have room. And when slabs nevertheless exceed four budgets, because more flows
// than it can carry use even that, or a peer ignores its credit, a flow that
// brings more is reset.
//
// Credit that was given cannot be taken back, and most of it is never used: a
// flow at rest has credit and holds nothing. So received bytes that wait, and
// credit that is outstanding, are bounded apart: credit may be given for
// overcommit times as much.
//
// A share is a part of what is free, divided by the number of flows among which
// it is to last (dynamic thresholds, Choudhury and Hahne, IEEE/ACM ToN 1998).
type Budget struct {
	limit    int64
	held     atomic.Int64 // received, and not yet taken by the plain parties
	peak     atomic.Int64 // of held
	kept     atomic.Int64 // given by workers, and not yet consumed by the peers
	promised atomic.Int64 // credit given and not yet consumed
	flows    atomic.Int64 // that have credit
	busy     atomic.Int64 // of these: hold something
}

const (
	// overcommit is how many times as much may be promised as may wait.
	overcommit = 4
	// hard is how many budgets all slabs together may take.
	hard = 4
	// leastWindow is what every flow may be sent or keep, in bytes. Two are
	// no more than a small slab.
	leastWindow = 1 << 10
	// fair is the part of what is free, one in so many, that newcomers share.
	fair = 8
	// among is how many flows there always seem to be.
	among = 16
)

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Peak is the most received bytes that ever waited.
func (b *Budget) Peak() int64 { return b.peak.Load() }

// Held is how many received bytes wait now.
func (b *Budget) Held() int64 { return b.held.Load() }

// Kept is how many bytes wait for the peers to consume them.
func (b *Budget) Kept() int64 { return b.kept.Load() }

// Limit is the budget, in bytes.
func (b *Budget) Limit() int64 { return b.limit }

// move notes that a flow holds another number of received bytes than before.
func (b *Budget) move(before, after int) {
	switch {
	case before == 0 && after > 0:
		b.busy.Add(1)
	case before > 0 && after == 0:
		b.busy.Add(-1)
	}
	held := b.held.Add(int64(after - before))
	for peak := b.peak.Load(); held > peak && !b.peak.CompareAndSwap(peak, held); peak = b.peak.Load() {
	}
}

// pool is what received bytes and those kept for sending may take together: all
// but a quarter, which is for the blocks that workers have in hand, what slabs
// are larger than their contents, and the user-space TCP's buffers.
func (b *Budget) pool() int64 { return b.limit / 4 * 3 }

// free is how much more may wait and be promised.
func (b *Budget) free() (waiting, promised int64) {
	return b.pool() - b.held.Load() - b.kept.Load(), overcommit*b.pool() - b.promised.Load()
}

// share is a newcomer's window.
func (b *Budget) share() int {
	waiting, promised := b.free()
	n := min(waiting/(fair*(b.busy.Load()+among)), promised/(fair*(b.flows.Load()+among)), openWindow)
	return int(max(n, leastWindow))
}

// window bounds the window of a flow that keeps up: it may take half of what is
// free, but for what newcomers need.
func (b *Budget) window(want int) int {
	waiting, promised := b.free()
	n := min(int64(want), (waiting-b.pool()/fair)/2, promised/4)
	return max(int(n), b.share())
}

// keep is how much a flow may keep for sending: half as much, because its peer
// is no proof that it will be consumed.
func (b *Budget) keep() uint64 {
	waiting, _ := b.free()
	return uint64(max((waiting-b.pool()/fair)/4, leastWindow))
}

// overdrawn says that slabs of all kinds exceed even what was promised: slabs
// are larger than their contents, so this is above the budget.
func (b *Budget) overdrawn() bool { return buffer.Live() > hard*b.limit }
