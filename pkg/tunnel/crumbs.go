package tunnel

import "hawser/pkg/buffer"

// A peer may cut streams as it likes, and a party write byte by byte: each byte comes in a
// slab of its own, of 1,280 bytes, of which budgets count one. So a session copies what is
// little together where something of its flow waits already.

const (
	crumbMost = buffer.Small / 2 // bytes of what is little: more wastes no more than half of its slab
	crumbSlab = 4 << 10
)

// crumbs is the slab that what is little is copied into. Whoever has a part of it holds a
// reference, and reads no other part.
type crumbs struct {
	slab *buffer.Buf
	used int
}

// keep returns seg, or what takes its place.
func (c *crumbs) keep(seg buffer.Seg) buffer.Seg {
	n := seg.Len()
	if n == 0 || n > crumbMost {
		return seg
	}
	if c.slab == nil || c.used+n > crumbSlab {
		c.drop()
		c.slab = buffer.Get(crumbSlab)
	}
	c.slab.Retain()
	kept := c.slab.Seg(c.used, c.used+n)
	c.used += copy(kept.P, seg.P)
	seg.Release()
	return kept
}

// drop lets go of the slab.
func (c *crumbs) drop() {
	if c.slab != nil {
		c.slab.Release()
	}
	*c = crumbs{}
}
