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
//
// Each session has its Part of an agent's Budget. What flows of all sessions may have goes
// by what all hold, so that one may use what others do not. But what one session's flows
// do not give back leaves another that holds little its sliver.
type Budget struct {
	limit atomic.Int64 // see Resize; of the whole

	whole   *Budget      // of which it is a session's part; nil: it is the whole
	holders atomic.Int64 // of the whole: parts that hold something
	holds   atomic.Bool  // of a part: it is one of these

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
	// sliverPart is the part of the pool that sessions which hold something have for
	// themselves, all together, however much the others hold.
	sliverPart = 4
)

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget {
	b := &Budget{}
	b.Resize(limit)
	return b
}

// Part returns what is a session's of it. Its owner is one at a time.
func (b *Budget) Part() *Budget {
	p := &Budget{whole: b}
	p.in.PartOf(&b.in)
	p.out.PartOf(&b.out)
	p.fresh.PartOf(&b.fresh)
	return p
}

// all is the whole.
func (b *Budget) all() *Budget {
	if b.whole != nil {
		return b.whole
	}
	return b
}

// Resize changes the budget. What is above it then stays until it is read, and new
// windows are small until it is.
func (b *Budget) Resize(limit int64) { b.limit.Store(limit) }

// Peak is the most received bytes that ever waited, of all sessions.
func (b *Budget) Peak() int64 { return b.all().peak.Load() }

// Held is how many received bytes wait now.
func (b *Budget) Held() int64 { return b.held.Load() }

// Kept is how many bytes wait for the peers to consume them.
func (b *Budget) Kept() int64 { return b.kept.Load() }

// Limit is the budget of all sessions, in bytes.
func (b *Budget) Limit() int64 { return b.all().limit.Load() }

// move notes that a flow holds another number of received bytes than before.
func (b *Budget) move(before, after int) {
	n, all := int64(after-before), b.all()
	held := all.held.Add(n)
	for peak := all.peak.Load(); held > peak && !all.peak.CompareAndSwap(peak, held); peak = all.peak.Load() {
	}
	if all != b {
		b.held.Add(n)
		b.count()
	}
}

// keepMore notes that n bytes more wait for the peer, or fewer.
func (b *Budget) keepMore(n int) {
	b.kept.Add(int64(n))
	if b.whole != nil {
		b.whole.kept.Add(int64(n))
		b.count()
	}
}

// count has a part be among those that hold something if it does.
func (b *Budget) count() {
	holds := b.used() > 0
	if !b.holds.CompareAndSwap(!holds, holds) {
		return
	}
	if holds {
		b.whole.holders.Add(1)
	} else {
		b.whole.holders.Add(-1)
	}
}

// used is what waits now.
func (b *Budget) used() int64 { return b.held.Load() + b.kept.Load() }

// pool is what received bytes and those kept for sending may take together: half.
// The rest is for the blocks that workers have in hand, what slabs are larger than
// their contents, the user-space TCP's buffers, and what the collector has not
// found yet.
func (b *Budget) pool() int64 { return b.Limit() / 2 }

// fund is what flows share: those of all sessions the pool, those of one its sliver.
type fund struct {
	pool, free     int64
	in, out, fresh *proof.Tally
}

// funds are those that a flow may have from. Of a part that has no company its sliver is
// never more than the pool.
func (b *Budget) funds() (common, sliver fund) {
	all, pool := b.all(), b.pool()
	common = fund{pool, pool - all.used(), &all.in, &all.out, &all.fresh}
	if b.whole == nil {
		return common, common
	}
	n := all.holders.Load()
	if !b.holds.Load() {
		n++
	}
	mine := pool / sliverPart / max(n, 1)
	return common, fund{mine, mine - b.used(), &b.in, &b.out, &b.fresh}
}

// scarce says that half of the fund is taken: newcomers leave the rest to flows
// that keep up.
func (f fund) scarce() bool { return f.free < f.pool/2 }

// room is what one may have: what is free but for an eighth, divided by so many.
func (f fund) room(by int64) int64 { return (f.free - f.pool/8) / by }

// reserve is what one of the flows that count may have however scarce memory is.
func (f fund) reserve(count *proof.Tally, now time.Time) int64 {
	return f.pool / 4 / max(count.Sum(now.UnixMilli()), 1)
}

// trial is what one of the flows that came lately may have, of what is left besides.
func (f fund) trial(left int64, now time.Time) int64 {
	return min(f.pool/trialPart/max(f.fresh.Sum(now.UnixMilli()), 1), left/4)
}

// share is a newcomer's window: all it may ever need at first while there is
// plenty, leastWindow once memory is scarce. It doubles from there as it is read.
func (f fund) share() int64 { return max(min((f.free-f.pool/2)/4, openWindow), leastWindow) }

// scarce says that neither fund has more than half left.
func (b *Budget) scarce() bool {
	common, sliver := b.funds()
	return common.scarce() && sliver.scarce()
}

// share is a newcomer's window.
func (b *Budget) share() int {
	common, sliver := b.funds()
	return int(max(common.share(), sliver.share()))
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
	common, sliver := b.funds()
	left := b.Limit() - b.Limit()/trialFree - b.all().used()
	trial := max(common.trial(left, now), sliver.trial(sliver.free, now))
	return max(read/provenPart, min(read, trial))
}

// window bounds the window of a flow that keeps up at now: it may take half of what is free,
// but for an eighth of the pool. While memory is scarce, one that is not sure to be read may
// have its part, and the others theirs of what is for them alone.
func (b *Budget) window(want int, part int64, sure bool, now time.Time) int {
	common, sliver := b.funds()
	room := max(common.room(2), sliver.room(2))
	switch {
	case sure:
		room = max(room, common.reserve(common.in, now), sliver.reserve(sliver.in, now))
	case common.scarce() && sliver.scarce():
		room = part
	}
	return int(max(min(int64(want), room), common.share(), sliver.share()))
}

// keep is how much a flow may keep for sending whose part that is of what the peer has
// consumed: two thirds as much, because its peer is no proof that it will be consumed.
func (b *Budget) keep(part int64, sure bool, now time.Time) uint64 {
	common, sliver := b.funds()
	room := max(common.room(3), sliver.room(3), part)
	if sure {
		room = max(room, common.reserve(common.out, now), sliver.reserve(sliver.out, now))
	}
	return uint64(max(room, leastWindow))
}

// overdrawn says that slabs of all kinds exceed even what was promised: slabs
// are larger than their contents, so this is above the budget. It is not the fault of a
// session that holds less than others do in the mean, which may go a little further.
func (b *Budget) overdrawn() bool {
	live, limit := buffer.Live(), b.Limit()
	if b.whole != nil && b.used()*b.whole.holders.Load() < b.whole.used() {
		limit += limit / hard
	}
	return live > hard*limit
}
