// Package places bounds how many strangers are let in at once, in all and per
// source, so that those who connect and say nothing cannot keep others out.
package places

import (
	"net/netip"
	"sync"
)

// Places is a number of places. Its methods may be called from any goroutine.
type Places struct {
	total, perSource int

	mu     sync.Mutex
	taken  int
	source map[netip.Prefix]int
}

// New returns total free places, of which one source gets at most perSource.
func New(total, perSource int) *Places {
	return &Places{total: total, perSource: perSource, source: map[netip.Prefix]int{}}
}

// Enter takes a place; false if there is none.
func (p *Places) Enter(remote netip.Addr) bool {
	from := sourceOf(remote)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.total || p.source[from] >= p.perSource {
		return false
	}
	p.taken++
	p.source[from]++
	return true
}

// Leave gives a place back that Enter has given to remote.
func (p *Places) Leave(remote netip.Addr) {
	from := sourceOf(remote)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.source[from]--; p.source[from] == 0 {
		delete(p.source, from)
	}
}

// Crowded says whether more than half of the places are taken.
func (p *Places) Crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken*2 > p.total
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
