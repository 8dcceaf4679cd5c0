package tunnel

import (
	"sync/atomic"
	"time"

	"hawser/pkg/buffer"
	"hawser/pkg/proof"
)

// Budget bounds the payload that an agent's sessions hold together, in bytes.
// Sessions share it; all methods may be called from any goroutine.
//
// While half of it is free, flows have the windows that suit them. Beyond that
// new flows, of which nobody knows whether they will be read, begin with
// leastWindow, so that thousands which are not read take little more; those that
// are read take what is free. A crowd may have been promised all of it before the
// first has shown that he does not read, so flows that are read (package proof) have a quarter of
// the pool besides, all together. When slabs nevertheless exceed several budgets,
// because more was under way than could be foreseen or a peer ignores its
// credit, a flow that holds something and is sent more is reset.
type Budget struct {
	limit atomic.Int64 // see Resize
	held  atomic.Int64 // received, and not yet taken by the plain parties
	peak  atomic.Int64 // of held
	kept  atomic.Int64 // given by workers, and not yet consumed by the peers
	in    proof.Tally  // flows that are read here
	out   proof.Tally  // and by the peers
	fresh proof.Tally  // flows that came lately
}

const (
	// hard is how many budgets all slabs together may take.
	hard = 4
	// leastWindow is what every flow may be sent or keep, in bytes. Two are
	// no more than a small slab.
	leastWindow = 1 << 10
	// provenPart is the part of what was read of a flow that it may be sent or keep
	// while memory is scarce and it is not known to be read, of proof.After at most.
	provenPart = 16
	// trialPart is the part of the pool that flows which came lately have on trial, all
	// together. A crowd may have taken more than the pool, which was larger while they were
	// few; then they have theirs of the rest of the budget, of which an eighth stays free.
	trialPart = 16
	trialFree = 8
)

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget {
	b := &Budget{}
	b.Resize(limit)
	return b
}

// Resize changes the budget. What is above it then stays until it is read, and new
// windows are small until it is.
func (b *Budget) Resize(limit int64) { b.limit.Store(limit) }

// Peak is the most received bytes that ever waited.
func (b *Budget) Peak() int64 { return b.peak.Load() }

// Held is how many received bytes wait now.
func (b *Budget) Held() int64 { return b.held.Load() }

// Kept is how many bytes wait for the peers to consume them.
func (b *Budget) Kept() int64 { return b.kept.Load() }

// Limit is the budget, in bytes.
func (b *Budget) Limit() int64 { return b.limit.Load() }

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
func (b *Budget) pool() int64 { return b.Limit() / 2 }

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

// part is what a flow may have of which consumed bytes were read, lately so many within
// the time of a proof, and that is not sure to be read. A newcomer has as much as was read
// of it, so that it can prove itself in a few round trips however long they are; with all
// that came as lately no more than a part of the pool, and of what is left.
func (b *Budget) part(consumed uint64, lately int, now time.Time) int64 {
	read := int64(min(consumed, proof.After))
	if 2*uint64(lately) < consumed {
		return read / provenPart
	}
	left := b.Limit() - b.Limit()/trialFree - b.held.Load() - b.kept.Load()
	trial := min(b.pool()/trialPart/max(b.fresh.Sum(now.UnixMilli()), 1), left/4)
	return max(read/provenPart, min(read, trial))
}

// window bounds the window of a flow that keeps up at now: it may take half of what is free,
// but for an eighth of the pool. While memory is scarce, one that is not sure to be read may
// have its part, and the others theirs of what is for them alone.
func (b *Budget) window(want int, part int64, sure bool, now time.Time) int {
	room := (b.free() - b.pool()/8) / 2
	switch {
	case sure:
		room = max(room, b.reserve(&b.in, now))
	case b.scarce():
		room = part
	}
	return max(int(min(int64(want), room)), b.share())
}

// reserve is what one of the flows that count may have however scarce memory is.
func (b *Budget) reserve(count *proof.Tally, now time.Time) int64 {
	return b.pool() / 4 / max(count.Sum(now.UnixMilli()), 1)
}

// keep is how much a flow may keep for sending whose part that is of what the peer has
// consumed: two thirds as much, because its peer is no proof that it will be consumed.
func (b *Budget) keep(part int64, sure bool, now time.Time) uint64 {
	room := max((b.free()-b.pool()/8)/3, part)
	if sure {
		room = max(room, b.reserve(&b.out, now))
	}
	return uint64(max(room, leastWindow))
}

// overdrawn says that slabs of all kinds exceed even what was promised: slabs
// are larger than their contents, so this is above the budget.
func (b *Budget) overdrawn() bool { return buffer.Live() > hard*b.Limit() }
