package split

import "sync/atomic"

// growth bounds what the receive buffers of a stack's connections have grown by
// beyond Options.Buffer, all together: netstack bounds each for itself, and a
// thousand downloads at once would take a gigabyte.
type growth struct {
	most  int64        // bytes
	taken atomic.Int64 // bytes
}

// allows says whether a buffer may grow: by up to Options.MaxBuffer, then.
func (g *growth) allows() bool { return g.taken.Load() < g.most }

// moderate lets netstack grow the receive buffer to what is read in a round
// trip.
func (c *Conn) moderate(n int) {
	if c.unmoderate += n; c.unmoderate < moderateAfter {
		return
	}
	if c.stack.growth.allows() {
		c.ep.ModerateRecvBuf(c.unmoderate)
		c.grow(int(c.ep.SocketOptions().GetReceiveBufferSize()) - c.stack.opts.Buffer)
	}
	c.unmoderate = 0
}

// grow notes by how much the receive buffer has grown in all.
func (c *Conn) grow(by int) {
	by = max(by, 0)
	c.stack.growth.taken.Add(int64(by) - int64(c.grown))
	c.grown = int32(by)
}
