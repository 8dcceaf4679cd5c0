package tunnel

import (
	"time"

	"hawser/pkg/proof"
	"hawser/pkg/slim"
)

// InitialCredit is how many sealed bytes each side may send on a new flow
// before it hears of credit, unless the peer has said another amount
// (PROTOCOL.md section 5.3).
const InitialCredit = 32 << 10

// openWindow is the most that a new flow's window has, so that an object of
// this size needs no second round trip for credit.
const openWindow = 512 << 10

// bridgeMost is up to where a window is opened for the sake of chunks that wait for others.
const bridgeMost = 4 * openWindow

// credit is the receive window of one flow. It grows while the consumer keeps
// up: when half a window was consumed in under two round trips, the window is
// what limits the flow, and it doubles (the auto-tuning of QUIC
// implementations). It shrinks to a newcomer's when that takes as long as
// slowTime and memory is scarce: the consumer is slow, and more would only wait.
type credit struct {
	consumed uint64 // by the worker
	told     uint64 // consumed as last told to the peer
	limit    uint64 // as last told to the peer
	window   int
	mark     uint64 // consumed when the current measurement began
	markAt   slim.Instant
	read     proof.Proof
}

// slowTime is how long half a window may last until the consumer is slow.
const slowTime = time.Second

// newCredit returns a new flow's credit: initial is what the peer takes itself
// to have.
func newCredit(b *Budget, initial int) credit {
	c := credit{limit: uint64(initial), window: b.share()}
	return c
}

// consume notes n bytes and moves the window to what the consumer needs.
func (c *credit) consume(n int, now time.Time, rtt time.Duration, b *Budget) {
	c.consumed += uint64(n)
	c.read.Pass(n, now.UnixMilli(), 1, &b.in)
	if c.markAt == 0 {
		c.mark, c.markAt = c.consumed, moments.At(now)
		return
	}
	if c.consumed-c.mark < uint64(c.window/2) {
		return
	}
	sure := c.read.Holds(now.UnixMilli())
	part := b.part(c.consumed, c.read.Lately(), now)
	switch took := moments.Since(c.markAt, now); {
	case took < 2*rtt+10*time.Millisecond:
		c.window = b.window(2*c.window, part, sure, now)
	case took > slowTime+2*rtt && b.scarce():
		c.window = b.share()
	default:
		c.window = b.window(c.window, part, sure, now)
	}
	c.mark, c.markAt = c.consumed, moments.At(now)
}

// bridge opens the window further where chunks of slower links hold up half of it: the
// consumer keeps up, and the quicker links would rest for want of credit. held is how many
// bytes wait for those before them. It reports whether the peer is to hear of it.
func (c *credit) bridge(held int, now time.Time, b *Budget) bool {
	if 2*held < c.window || c.window >= bridgeMost {
		return false
	}
	before := c.window
	c.window = b.window(min(2*c.window, bridgeMost), b.part(c.consumed, c.read.Lately(), now), c.read.Holds(now.UnixMilli()), now)
	return c.window > before
}

// stride is the most credit in bytes that a slow reader's room is worth: his flow then
// moves that much at a time.
const stride = 4 << 10

// stretch gives a slow reader what his party takes now, if the window is smaller: it does
// not wait here, so that it takes no memory however many flows there are.
func (c *credit) stretch(room uint16) {
	c.limit = max(c.limit, c.consumed+uint64(min(room, stride)))
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
	limit = max(c.limit, c.consumed+uint64(c.window))
	c.limit, c.told = limit, c.consumed
	return c.consumed, c.limit
}

// initial is the credit with which flows begin, in both directions: what each
// side has told the other (PROTOCOL.md section 5.3).
type initial struct {
	own   int    // what the peer may send on a new flow, as told last
	said  uint64 // how often that was told
	peer  uint64 // what we may send
	heard uint64 // number of the statement that says so
}

func newInitial() initial { return initial{own: InitialCredit, peer: InitialCredit} }

// hear takes a statement of the peer's; an older one may come later.
func (i *initial) hear(number, limit uint64) {
	if number > i.heard {
		i.heard, i.peer = number, min(limit, InitialCredit)
	}
}

// say returns what the peer is to be told now: ok only when that has halved or
// doubled, so that it is told rarely.
func (i *initial) say(share int) (number, limit uint64, ok bool) {
	share = min(share, InitialCredit)
	if share > i.own/2 && share < 2*i.own {
		return 0, 0, false
	}
	i.own = share
	i.said++
	return i.said, uint64(share), true
}
