package split

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"
)

// TestEdgesHaveTheirParts: beside one edge's crowd, which has taken all that buffers may grow
// by, another edge's connection begins with its own part and grows within it; those of the
// crowd do not.
func TestEdgesHaveTheirParts(t *testing.T) {
	const crowd, most, buffer = 200, 512 << 10, 128 << 10
	l := newLab(t, false)
	l.route(l.host, netlink.Route{Type: unix.RTN_BLACKHOLE}, "198.18.77.0/24", "", "")
	o := l.options(0, 1)
	o.Buffer, o.MaxGrowth = buffer, most
	s, _ := l.start(o, nil)
	g := &s.growth
	var conns []*Conn
	dial := func(edge string) *Conn {
		t.Helper()
		c, err := s.Dial(netip.MustParseAddrPort("198.18.77.1:9"), edge)
		must(t, err)
		watch(t, c)
		conns = append(conns, c)
		return c
	}
	room := func(c *Conn) int { return int(c.ep.SocketOptions().GetReceiveBufferSize()) }
	for range crowd {
		dial("train")
	}
	last := conns[crowd-1]
	if n := room(last); n > 6<<10 {
		t.Errorf("the last of the crowd begins with %d bytes, want its part of all", n)
	}
	g.taken.Store(5 * most)
	c := dial("bus")
	// Of a quarter of 512 KB two edges have half each, for both directions.
	if n := room(c); n != buffer {
		t.Errorf("the other edge's connection begins with %d bytes, want %d", n, buffer)
	}
	if n := room(dial("bus")); n != buffer/2 {
		t.Errorf("its second one begins with %d bytes, want %d", n, buffer/2)
	}
	if c.part().taken.Store(4*most/8 - 1); !c.allows(buffer/2) || c.allows(buffer) {
		t.Error("it does not grow by its part")
	}
	if c.part().taken.Store(4 * most / 8); c.allows(buffer / 2) {
		t.Error("it grows without bound")
	}
	c.part().taken.Store(0)
	last.part().taken.Store(5 * most)
	if last.allows(room(last)) {
		t.Error("one of the crowd grows")
	}
	for _, c := range conns {
		c.Abort()
	}
	if n := g.parts.holders.Load(); n != 0 || g.conns.Load() != 0 {
		t.Errorf("%d edges hold something, and %d connections, after all have ended", n, g.conns.Load())
	}
}

// TestPartOfOwnGrowth: what a connection's buffers grow by counts in its edge's part, until
// it ends.
func TestPartOfOwnGrowth(t *testing.T) {
	s := &Stack{clock: newClock(), opts: Options{Buffer: 128 << 10, MaxBuffer: 4 << 20}}
	s.growth.resize(1 << 20)
	c := &Conn{stack: s, small: &small{start: 16 << 10, part: s.growth.parts.number("bus")}}
	c.small.in.size, c.small.out.size = 32<<10, 8<<10
	if c.grow(0); c.part().taken.Load() != 24<<10 || s.growth.taken.Load() != 24<<10 {
		t.Errorf("it has taken %d bytes of its part and %d of all, want 24 KB", c.part().taken.Load(), s.growth.taken.Load())
	}
	c.set(isGone)
	if c.grow(0); c.part().taken.Load() != 0 {
		t.Errorf("%d bytes are taken after its end", c.part().taken.Load())
	}
	if again := s.growth.parts.number("bus"); again != c.small.part || s.growth.parts.number("") != noPart {
		t.Errorf("the edge has part %d, and then %d", c.small.part, again)
	}
}
