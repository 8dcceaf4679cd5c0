package split

import (
	"sync"
	"sync/atomic"
)

// partsPart is the part of growth.most that is kept, all together, for edges whose
// connections began in a crowd, however much other edges' connections have.
const partsPart = 4

// part is what one edge's connections to servers have of a growth. Only those are counted
// that came when there were so many that each began with less than Options.Buffer: before
// that nobody lacks anything.
type part struct {
	conns atomic.Int64
	taken atomic.Int64 // bytes that their buffers have grown by
}

// parts are those of a growth's edges, for as long as it lasts: a cloud knows its edges by
// its configuration. A connection names its own by a number, which is smaller than a pointer.
type parts struct {
	holders atomic.Int64 // that have connections
	list    atomic.Pointer[[]*part]

	mu      sync.Mutex // guards the next one, and who replaces list
	numbers map[string]uint32
}

// noPart is the number of the part that a connection of no edge has.
const noPart = 0

// number is that of an edge's part.
func (p *parts) number(edge string) uint32 {
	if edge == "" {
		return noPart
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n, known := p.numbers[edge]; known {
		return n
	}
	if p.numbers == nil {
		p.numbers = map[string]uint32{}
	}
	list := append(p.all(), &part{})
	p.list.Store(&list)
	p.numbers[edge] = uint32(len(list))
	return uint32(len(list))
}

func (p *parts) all() []*part {
	if list := p.list.Load(); list != nil {
		return *list
	}
	return nil
}

// of returns the part of that number, nil if it is noPart.
func (p *parts) of(number uint32) *part {
	if number == noPart {
		return nil
	}
	return p.all()[number-1]
}

// sliver is what one part of those that have connections, and this one, has of most.
func (p *parts) sliver(of *part, most int64) int64 {
	n := p.holders.Load()
	if of.conns.Load() == 0 {
		n++
	}
	return most / partsPart / max(n, 1)
}

// come counts one more connection, gone one less.
func (p *parts) come(of *part) {
	if of.conns.Add(1) == 1 {
		p.holders.Add(1)
	}
}

func (p *parts) gone(of *part) {
	if of.conns.Add(-1) == 0 {
		p.holders.Add(-1)
	}
}
