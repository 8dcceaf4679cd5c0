package link

import (
	"net/netip"
	"sync"
)

// gate bounds how many handshakes are under way, in all and per source, so
// that strangers who connect and say nothing cannot keep the edges out.
type gate struct {
	total, perSource int

	mu     sync.Mutex
	open   int
	source map[netip.Prefix]int
}

func newGate(total, perSource int) *gate {
	return &gate{total: total, perSource: perSource, source: make(map[netip.Prefix]int)}
}

// enter takes a place; false if there is none.
func (g *gate) enter(remote netip.Addr) bool {
	from := sourceOf(remote)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open >= g.total || g.source[from] >= g.perSource {
		return false
	}
	g.open++
	g.source[from]++
	return true
}

// leave gives a place back that enter has given to remote.
func (g *gate) leave(remote netip.Addr) {
	from := sourceOf(remote)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	if g.source[from]--; g.source[from] == 0 {
		delete(g.source, from)
	}
}

// crowded says whether more than half of the places are taken.
func (g *gate) crowded() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open*2 > g.total
}

// sourceOf returns what counts as one source: an IPv4 address, or a /64, which
// is what one IPv6 host can fill at will.
func sourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
