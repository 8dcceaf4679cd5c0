package tunnel

import (
	"sync/atomic"

	"hawser/pkg/buffer"
)

// Budget bounds the payload that an agent's sessions hold together, in bytes.
// Sessions share it; all methods may be called from any goroutine.
//
// While half of it is free, flows have the windows that suit them. Beyond that
// new flows, of which nobody knows whether they will be read, begin with
// leastWindow, so that thousands which are not read take little more; those that
// are read take what is free. When slabs nevertheless exceed several budgets,
// because more was under way than could be foreseen or a peer ignores its
// credit, a flow that holds something and is sent more is reset.
type Budget struct {
	limit int64
	held  atomic.Int64 // received, and not yet taken by the plain parties
	peak  atomic.Int64 // of held
	kept  atomic.Int64 // given by workers, and not yet consumed by the peers
}

const (
	// hard is how many budgets all slabs together may take.
	hard = 4
	// leastWindow is what every flow may be sent or keep, in bytes. Two are
	// no more than a small slab.
	leastWindow = 1 << 10
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
	held := b.held.Add(int64(after - before))
	for peak := b.peak.Load(); held > peak && !b.peak.CompareAndSwap(peak, held); peak = b.peak.Load() {
	}
}

// pool is what received bytes and those kept for sending may take together: half.
// The rest is for the blocks that workers have in hand, what slabs are larger than
// their contents, the user-space TCP's buffers, and what the collector has not
// found yet.
func (b *Budget) pool() int64 { return b.limit / 2 }

// free is how much more may wait.
func (b *Budget) free() int64 { return b.pool() - b.held.Load() - b.kept.Load() }

// scarce says that half of the pool is taken: newcomers leave the rest to flows
// that keep up.
func (b *Budget) scarce() bool { return b.free() < b.pool()/2 }

// share is a newcomer's window: all it may ever need at first while there is
// plenty, leastWindow once memory is scarce. It doubles from there as it is read.
func (b *Budget) share() int {
	return int(max(min((b.free()-b.pool()/2)/4, openWindow), leastWindow))
}

// window bounds the window of a flow that keeps up: it may take half of what is
// free, but for an eighth of the pool.
func (b *Budget) window(want int) int {
	return max(int(min(int64(want), (b.free()-b.pool()/8)/2)), b.share())
}

// keep is how much a flow may keep for sending: two thirds as much, because its
// peer is no proof that it will be consumed.
func (b *Budget) keep() uint64 {
	return uint64(max((b.free()-b.pool()/8)/3, leastWindow))
}

// overdrawn says that slabs of all kinds exceed even what was promised: slabs
// are larger than their contents, so this is above the budget.
func (b *Budget) overdrawn() bool { return buffer.Live() > hard*b.limit }
