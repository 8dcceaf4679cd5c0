package sealed

import (
	"sync/atomic"

	"hawser/pkg/buffer"
	"hawser/pkg/card"
)

// Windows of a connection, in bytes of records on their way out and, again, of records
// that the worker has not consumed. The small one is the least of the former, and what
// each connection begins with: an ordinary record and a little, as less would let no
// full block through. The least of the latter is a record at a time.
const (
	window      = 128 << 10
	ordinary    = buffer.Plain + card.Overhead // the largest record of version 1
	smallWindow = ordinary + 4<<10
)

// shares is of how many connections that begin at once none is to take what there is for
// another.
const shares = 64

// Budget bounds what the connections of all ports of a relay hold. Its methods may be
// called from any goroutine.
type Budget struct {
	payload func(flows int) int64
	flows   atomic.Int64
	lent    atomic.Int64 // credit above smallWindow that workers have and may use at any time
	peak    atomic.Int64
}

// NewBudget returns the budget of a relay in which payload, in bytes, may be that much
// beside so many flows.
func NewBudget(payload func(flows int) int64) *Budget { return &Budget{payload: payload} }

// Limit is what payload may be now, in bytes.
func (b *Budget) Limit() int64 { return b.payload(int(b.flows.Load())) }

// Peak is the most that was held when a connection asked for its share, in bytes.
func (b *Budget) Peak() int64 { return b.peak.Load() }

// share is what one connection may hold now in one direction, window at most. It becomes
// less long before all is spent, so that a crowd that stops reading at once, each with all
// the credit that it has, stays within the budget but for the least that each may hold.
func (b *Budget) share() int {
	held := buffer.Live()
	for peak := b.peak.Load(); held > peak && !b.peak.CompareAndSwap(peak, held); peak = b.peak.Load() {
	}
	free := b.Limit()*3/4 - held - b.lent.Load()
	return int(min(max(free/shares, 0), window))
}
