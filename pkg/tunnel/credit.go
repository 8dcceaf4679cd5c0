package tunnel

import (
	"sync/atomic"
	"time"
)

// InitialCredit is how many sealed bytes each side may send on a new flow
// before it hears of credit (PROTOCOL.md section 5.3).
const InitialCredit = 32 << 10

// openWindow is the window that a new flow is given when memory allows, so
// that an object of this size needs no second round trip for credit.
const openWindow = 512 << 10

// Budget is the memory that an agent's sessions may together hold for the
// receive sides of flows, in bytes. Sessions share it; all methods may be
// called from any goroutine.
type Budget struct {
	limit int64
	held  atomic.Int64
	peak  atomic.Int64
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

func (b *Budget) add(n int) {
	held := b.held.Add(int64(n))
	for peak := b.peak.Load(); held > peak && !b.peak.CompareAndSwap(peak, held); peak = b.peak.Load() {
	}
}

// Peak is the most that was ever held, in bytes.
func (b *Budget) Peak() int64 { return b.peak.Load() }

// Held is what is held now, in bytes.
func (b *Budget) Held() int64 { return b.held.Load() }

// Limit is the budget, in bytes.
func (b *Budget) Limit() int64 { return b.limit }

// window bounds one flow's window: a fair part of what is free, so that a
// single flow may use a long fat line while it is alone, and stuck flows are
// squeezed to half the initial credit before the budget is spent.
func (b *Budget) window(want int) int {
	free := b.limit - b.held.Load()
	return max(InitialCredit/2, min(want, int(free/4)))
}

// credit is the receive window of one flow. It grows while the consumer keeps
// up: when half a window was consumed in under two round trips, the window is
// what limits the flow, and it doubles (the auto-tuning of QUIC
// implementations).
type credit struct {
	consumed uint64 // by the worker
	told     uint64 // consumed as last told to the peer
	limit    uint64 // as last told to the peer
	window   int
	mark     uint64 // consumed when the current measurement began
	markAt   time.Time
}

func newCredit(b *Budget) credit {
	return credit{limit: InitialCredit, window: b.window(openWindow)}
}

// consume notes n bytes and grows the window when it is the bottleneck.
func (c *credit) consume(n int, now time.Time, rtt time.Duration, b *Budget) {
	c.consumed += uint64(n)
	if c.markAt.IsZero() {
		c.mark, c.markAt = c.consumed, now
		return
	}
	if c.consumed-c.mark < uint64(c.window/2) {
		return
	}
	if now.Sub(c.markAt) < 2*rtt+10*time.Millisecond {
		c.window *= 2
	}
	c.window = b.window(c.window)
	c.mark, c.markAt = c.consumed, now
}

// urgent reports whether the peer may soon run out of credit.
func (c *credit) urgent() bool {
	left := int64(c.limit) - int64(c.consumed)
	return left < int64(c.window)*3/4
}

// stale reports whether the peer does not know of all that was consumed.
func (c *credit) stale() bool { return c.told != c.consumed }

// grant returns the values of a CREDIT frame. The limit never falls.
func (c *credit) grant() (consumed, limit uint64) {
	c.limit = max(c.limit, c.consumed+uint64(c.window))
	c.told = c.consumed
	return c.consumed, c.limit
}
