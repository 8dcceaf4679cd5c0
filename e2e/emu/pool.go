package emu

// pool lends frame buffers of one size. It grows by slabs and keeps what it has, so
// a link in steady state allocates nothing; maxHeld of each direction bounds it.
type pool struct {
	size int
	free [][]byte
}

const slabFrames = 128

func (p *pool) get() []byte {
	if len(p.free) == 0 {
		slab := make([]byte, slabFrames*p.size)
		for i := 0; i < len(slab); i += p.size {
			p.free = append(p.free, slab[i:i+p.size:i+p.size])
		}
	}
	last := len(p.free) - 1
	b := p.free[last]
	p.free = p.free[:last]
	return b
}

// put takes back a buffer from get, at any length.
func (p *pool) put(b []byte) { p.free = append(p.free, b[:p.size]) }
