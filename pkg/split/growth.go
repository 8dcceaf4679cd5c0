package split

import (
	"math/bits"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"hawser/pkg/proof"
)

const (
	// leastBuffer is what every connection may hold per direction, in bytes.
	leastBuffer = 4 << 10
	// keepUpTime is how long as much as a small buffer holds may take to pass for
	// the buffer to double: whoever takes longer would only keep more.
	keepUpTime = time.Second
)

// growth bounds what the buffers of a stack's connections take all together: netstack bounds
// each for itself, and a thousand downloads at once would take a gigabyte, as would ten
// thousand that nobody reads from.
//   - A connection begins with its part of twice `most` in each direction, with
//     Options.Buffer at most and leastBuffer at least.
//   - What buffers grow by beyond that is counted. Up to Options.Buffer they grow while the
//     count is below four times `most`, further while it is below `most`.
//   - Connections that are read (package proof) have half of `most` besides, all together: a
//     crowd that reads nothing would leave them none.
//   - What connections keep that are read no more still counts: beyond five times the largest
//     `most` nothing grows. (The largest, as a crowd makes `most` itself smaller than it was
//     when the first of the crowd came.)
//   - A cloud's edges have a part of `most` besides, each a sliver of its own: the same rules,
//     with the sliver for `most` and the edge's own connections for all.
type growth struct {
	most  atomic.Int64 // bytes, Options.MaxGrowth or what Resize has said
	wide  atomic.Int64 // the most of that
	conns atomic.Int64 // connections that netstack has
	crowd atomic.Int64 // the most that it had, about
	taken atomic.Int64 // bytes
	sure  proof.Tally  // bytes of those connections that are read
	parts parts
}

// allows says whether a buffer of that size may grow; one that has Options.Buffer
// does by up to Options.MaxBuffer, then.
func (c *Conn) allows(size int) bool {
	g := &c.stack.growth
	whole, times := g.most.Load(), int64(1)
	if size < c.stack.opts.Buffer {
		times = 4
	}
	taken, now := g.taken.Load(), c.stack.now()
	if taken < times*whole || taken < 5*g.wide.Load() && c.read.Holds(now) && g.sure.Sum(now) < whole/2 {
		return true
	}
	mine := c.part()
	return mine != nil && mine.taken.Load() < times*g.parts.sliver(mine, whole)
}

// part is that of c's edge, nil if c is not counted there.
func (c *Conn) part() *part {
	if c.small == nil {
		return nil
	}
	return c.stack.growth.parts.of(c.small.part)
}

// pass notes that n bytes more were read or written.
func (c *Conn) pass(n int) {
	c.read.Pass(n, c.stack.now(), int(c.grown), &c.stack.growth.sure)
}

// Resize changes Options.MaxGrowth, in bytes. What buffers have already they keep.
func (s *Stack) Resize(maxGrowth int) { s.growth.resize(int64(maxGrowth)) }

func (g *growth) resize(most int64) {
	g.most.Store(most)
	g.wide.Store(max(g.wide.Load(), most))
}

// start is what one of n connections begins with: Options.Buffer or less.
func (g *growth) start(n int64, buffer int) int {
	return fitting(int(min(max(2*g.most.Load()/n, leastBuffer), int64(buffer))), buffer)
}

// next is what the next connection begins with.
func (g *growth) next(buffer int) int { return g.start(g.conns.Load()+1, buffer) }

// ladder is what receive buffers may begin with, in bytes: from leastBuffer on by a
// third or a half more each, and the whole one. netstack gives those of clients'
// connections a size before it offers a window, and one forwarder gives all the same.
// To make them smaller once the window is offered is no way: what is under way then is
// dropped, and what comes behind it, acknowledgements too, lies beyond a window that
// has shrunk, so that neither side hears the other.
func ladder(buffer int) (sizes []int) {
	for n := leastBuffer; n < buffer; n *= 2 {
		sizes = append(sizes, n)
		if n+n/2 < buffer {
			sizes = append(sizes, n+n/2)
		}
	}
	return append(sizes, buffer)
}

// fitting is the largest of ladder(buffer) of at most n bytes, but leastBuffer.
func fitting(n, buffer int) int {
	if n >= buffer {
		return buffer
	}
	size := leastBuffer
	for 2*size <= n {
		size *= 2
	}
	if size+size/2 <= n {
		size += size / 2
	}
	return size
}

// chunked is what a send buffer begins with where a receive buffer would with n bytes:
// netstack keeps what is to be sent in chunks of powers of two, so that 6 KB take 8. Only a
// crowd's are that small; a thousand flows that are read would be slower with less.
func chunked(n int) int {
	if n >= 4*leastBuffer {
		return n
	}
	return 1 << (bits.Len(uint(n)) - 1)
}

// rooms is what a connection's buffers begin with, in bytes, and the part that it counts in.
type rooms struct {
	in, out int
	part    uint32
}

// small is a connection whose buffers are below Options.Buffer because there were many
// when it came, or would be if its edge had no part. netstack tunes buffers by comparing a
// round trip with the window that was offered first, so that one below that would stay as it
// is; these double while as much as they hold passes in keepUpTime.
type small struct {
	start   int32  // bytes, of both
	part    uint32 // see parts
	in, out room
}

// room is one direction's buffer.
type room struct {
	size   int32
	passed int32  // bytes since then
	since  uint32 // when it was last looked at, in milliseconds of the stack's clock
}

// furnish counts one more connection and gives its endpoint the buffers; adopt
// takes what it returns. A receive buffer is given to an endpoint that has not offered
// a window: dialed says that it is one, for the edge of that part; others have theirs from
// their forwarder. No lock may be held: netstack takes the endpoint's, and whoever sends with
// that one asks for the keeper's.
func (g *growth) furnish(ep tcpip.Endpoint, buffer int, dialed bool, number uint32) rooms {
	conns := g.conns.Add(1)
	if conns > g.crowd.Load() {
		g.crowd.Store(conns)
	}
	n := g.start(conns, buffer)
	crowded, r := n < buffer, rooms{}
	if mine := g.parts.of(number); mine != nil && crowded {
		r.part = number
		g.parts.come(mine)
		own := 2 * g.parts.sliver(mine, g.most.Load()) / mine.conns.Load()
		n = max(n, fitting(int(min(own, int64(buffer))), buffer))
	}
	r.in, r.out = n, chunked(n)
	switch o := ep.SocketOptions(); {
	case !dialed:
		r.in = int(o.GetReceiveBufferSize())
	case crowded:
		o.SetReceiveBufferSize(int64(n), false)
	}
	if crowded {
		ep.SocketOptions().SetSendBufferSize(int64(r.out), true) // netstack does not tune it then
	}
	return r
}

// peak is how many connections there were at most, and are now.
func (g *growth) peak() (most, now int) { return int(g.crowd.Load()), int(g.conns.Load()) }

// adopt gives c the endpoint, which has been furnished with r.
func (c *Conn) adopt(ep tcpip.Endpoint, r rooms) {
	c.ep = ep
	if buffer := c.stack.opts.Buffer; r.in < buffer || r.out < buffer || r.part != noPart {
		now := c.stack.millis()
		c.small = &small{
			start: int32(r.in + r.out),
			part:  r.part,
			in:    room{size: int32(r.in), since: now},
			out:   room{size: int32(r.out), since: now},
		}
	}
	c.set(isCounted)
	c.set(isUp)
}

// strip takes back what the buffers have been given; c is given up, and netstack
// had it.
func (c *Conn) strip() {
	c.grow(0)
	c.uncount()
}

// uncount takes c from the connections that netstack has.
func (c *Conn) uncount() {
	if !c.clear(isCounted) {
		return
	}
	c.stack.growth.conns.Add(-1)
	if mine := c.part(); mine != nil {
		c.stack.growth.parts.gone(mine)
	}
}

// took sees to the receive buffer after n bytes more were read.
func (c *Conn) took(n int) {
	c.moderate(n)
	c.open()
}

// open tells a party whose window is shut, or too small for a segment, that there is room.
// netstack says so when the end of a segment is read and there was no room without it. So it
// does not where there was, because the buffer has grown or other parts of the segment were
// read before: the party would learn of it when it asks, 200 ms later or more, each time.
func (c *Conn) open() {
	if c.stack.out.shut.count.Load() == 0 || !c.stack.out.shut.waits(c.id()) {
		return
	}
	e, ok := c.ep.(*tcp.Endpoint)
	if !ok {
		return
	}
	// netstack tells parties what a larger buffer has room for, here one larger than nothing.
	// Then it takes the size for the owner's wish, which ModerateRecvBuf alone minds.
	_, tell := e.OnSetReceiveBufferSize(e.SocketOptions().GetReceiveBufferSize(), 0)
	e.RcvAutoParams.Disabled = false
	tell()
}

// moderate lets the receive buffer grow to what is read in a round trip; n bytes
// more were read.
func (c *Conn) moderate(n int) {
	c.pass(n)
	if c.small != nil && int(c.small.in.size) < c.stack.opts.Buffer {
		if c.double(&c.small.in, n, c.stack.opts.Buffer) {
			c.ep.SocketOptions().SetReceiveBufferSize(int64(c.small.in.size), false)
		}
		return
	}
	if c.unmoderate += int32(n); c.unmoderate < moderateAfter {
		return
	}
	if c.allows(c.stack.opts.Buffer) {
		c.ep.ModerateRecvBuf(int(c.unmoderate))
		size := int(c.ep.SocketOptions().GetReceiveBufferSize())
		if c.small != nil {
			c.small.in.size = int32(size)
		}
		c.grow(size - c.stack.opts.Buffer)
	}
	c.unmoderate = 0
}

// sent lets a small send buffer grow; n bytes more were written.
func (c *Conn) sent(n int) {
	c.pass(n)
	if c.small != nil && c.double(&c.small.out, n, c.stack.opts.MaxBuffer) {
		c.ep.SocketOptions().SetSendBufferSize(int64(c.small.out.size), false)
	}
}

// double notes n bytes that have passed r and doubles it, up to limit, if that
// is wanted and allowed.
func (c *Conn) double(r *room, n, limit int) bool {
	if r.passed += int32(n); r.passed < r.size || int(r.size) >= limit {
		return false
	}
	now := c.stack.millis()
	keepsUp := now-r.since <= uint32(keepUpTime.Milliseconds())
	r.passed, r.since = 0, now
	if !keepsUp || !c.allows(int(r.size)) {
		return false
	}
	r.size = min(2*r.size, int32(limit))
	c.grow(0)
	return true
}

// grow notes by how much the receive buffer has grown beyond Options.Buffer, and
// what small buffers have grown by.
func (c *Conn) grow(by int) {
	by = max(by, 0)
	if c.small != nil && !c.is(isGone) {
		by = int(c.small.in.size + c.small.out.size - c.small.start)
	}
	more := by - int(c.grown)
	c.stack.growth.taken.Add(int64(more))
	if mine := c.part(); mine != nil {
		mine.taken.Add(int64(more))
	}
	c.read.Change(c.stack.now(), more, &c.stack.growth.sure)
	c.grown = int32(by)
}
