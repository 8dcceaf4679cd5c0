package reassembly

import (
	"math/rand/v2"
	"testing"
	"time"

	"hawser/pkg/buffer"
)

func patternAt(off int) byte { return byte(off*7 + off>>8) }

// TestPages: chunks that are many, in whichever order they come, overlapping or not, leave as
// the bytes of the stream, also where some leave or all is forgotten meanwhile.
func TestPages(t *testing.T) {
	const size = 6 * pageMost
	for seed := range uint64(6) {
		before := buffer.Live()
		r := rand.New(rand.NewPCG(seed, 0))
		var s Stream
		held := map[int]bool{}
		put := func(off, n int) {
			p := make([]byte, n)
			for i := range p {
				p[i] = patternAt(off + i)
				if off+i >= int(s.Offset()) {
					held[off+i] = true
				}
			}
			must(t, s.Insert(nil, uint64(off), buffer.Copy(p), false, noLimit))
		}
		take := func() bool {
			at := int(s.Offset())
			seg, ok := s.Next(nil)
			for i, b := range seg.P {
				if b != patternAt(at+i) {
					t.Fatalf("seed %d: byte %d is %d, want %d", seed, at+i, b, patternAt(at+i))
				}
				delete(held, at+i)
			}
			seg.Release()
			return ok
		}
		for range 4 * size {
			switch put(1+r.IntN(size), 1+r.IntN(3)); {
			case r.IntN(size) == 0:
				s.Rewind(s.Offset())
				clear(held)
			case r.IntN(size/4) == 0:
				put(int(s.Offset()), 1)
				for range r.IntN(2 * pageMost) {
					take()
				}
			}
			if s.Held() != len(held) {
				t.Fatalf("seed %d: %d bytes are held, want %d", seed, s.Held(), len(held))
			}
		}
		if err := s.Insert(nil, uint64(size/2), buffer.Copy(nil), true, noLimit); len(held) > 0 && err == nil {
			t.Fatalf("seed %d: the stream ends before what has come", seed)
		}
		for off := int(s.Offset()); off < size+3; off++ {
			put(off, 1)
		}
		for take() {
		}
		if int(s.Offset()) < size+3 || s.Held() != 0 || s.far != nil {
			t.Errorf("seed %d: at %d, %d bytes are held", seed, s.Offset(), s.Held())
		}
		s.Drop()
		if d := buffer.Live() - before; d != 0 {
			t.Errorf("seed %d: %d bytes of slabs are left", seed, d)
		}
	}
}

// TestAnyOrder: what comes byte by byte costs no more the worse its order is: not the square
// of how much waits.
func TestAnyOrder(t *testing.T) {
	const n = 80_000
	for name, at := range map[string]func(i int) int{
		"backwards":           func(i int) int { return n - i },
		"from both ends":      func(i int) int { return [2]int{1 + i/2, n - i/2}[i%2] },
		"into gaps, and back": func(i int) int { return 1 + (i*2+1)%n },
		"all over":            func(i int) int { return 1 + i*7919%n },
	} {
		begin := time.Now()
		slab := buffer.Get(1)
		var s Stream
		for i := range n {
			slab.Retain()
			must(t, s.Insert(nil, uint64(at(i)), slab.Seg(0, 1), false, noLimit))
		}
		s.Drop()
		slab.Release()
		if took := time.Since(begin); took > 10*time.Second { // it takes a hundredth
			t.Errorf("%s: it took %v", name, took)
		}
	}
}
