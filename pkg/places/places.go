// Package places bounds how many strangers are let in at once, in all and per
// source, so that those who connect and say nothing cannot keep others out; and it says
// what one of several peers may have of a worker's places.
package places

import (
	"net/netip"
	"slices"
	"sync"
)

// Places is a number of places. Its methods may be called from any goroutine.
type Places struct {
	total, perSource int

	mu     sync.Mutex
	taken  []*Place // the oldest first
	source map[netip.Prefix]int
}

// Place is one that is taken.
type Place struct {
	of   *Places
	from netip.Prefix
	lost func()
}

// New returns total free places, of which one source gets at most perSource.
func New(total, perSource int) *Places {
	return &Places{total: total, perSource: perSource, source: map[netip.Prefix]int{}}
}

// Enter takes a place; nil if there is none. Where all are taken the source that has most
// of them loses its oldest to one that has fewer: a few sources, or one that changes its
// address all the time, could else have all for as long as each may be kept. lost is called
// if that becomes of the place, but not after Leave has returned; it must not block, nor
// call Places.
func (p *Places) Enter(remote netip.Addr, lost func()) *Place {
	from := sourceOf(remote)
	p.mu.Lock()
	defer p.mu.Unlock()
	had := p.source[from]
	if had >= p.perSource {
		return nil
	}
	if len(p.taken) >= p.total {
		old := p.weightiest()
		if old == nil || p.source[old.from] <= had {
			return nil
		}
		p.free(old)
		old.lost()
	}
	place := &Place{of: p, from: from, lost: lost}
	p.taken = append(p.taken, place)
	p.source[from]++
	return place
}

// weightiest is the oldest place of the source that has most; nil without any. The caller
// holds mu.
func (p *Places) weightiest() (w *Place) {
	for _, place := range p.taken {
		if w == nil || p.source[place.from] > p.source[w.from] {
			w = place
		}
	}
	return w
}

// free gives a place back, once. The caller holds mu.
func (p *Places) free(place *Place) {
	i := slices.Index(p.taken, place)
	if i < 0 {
		return
	}
	p.taken = slices.Delete(p.taken, i, i+1)
	if p.source[place.from]--; p.source[place.from] == 0 {
		delete(p.source, place.from)
	}
}

// Leave gives the place back, if it was not lost.
func (a *Place) Leave() {
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	a.of.free(a)
}

// Taken is how many are taken.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.taken)
}

// Crowded says whether more than half of the places are taken.
func (p *Places) Crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.taken)*2 > p.total
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
