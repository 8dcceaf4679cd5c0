package splice

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestInverse: random segments of flows with random shifts come back as they
// were, byte for byte, when translated back; so nothing is lost or touched that
// need not be.
func TestInverse(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		u := modern()
		u.six = rng.IntN(2) == 0
		u.iss, u.isn, u.srv, u.answers.Val = rng.Uint32(), rng.Uint32(), rng.Uint32(), rng.Uint32()
		u.answers.Scale = 7 // ours: windows come back only if none is converted
		w := spliced(t, u)
		f := w.table.at(0)
		f.up = rng.Uint32()
		for _, from := range []side{client, server} {
			b := w.random1(rng, from).packet()
			if rng.IntN(8) == 0 { // some checksums are left open
				at := len(b) - len(b[packetOf(b).Start:])
				binary.BigEndian.PutUint16(b[at+offSum:], pseudoSum(b, protoTCP, len(b)-at))
				p := packetOf(b)
				p.Partial = true
				w.thereAndBack(f, from, p, b)
				continue
			}
			w.thereAndBack(f, from, packetOf(b), b)
		}
	}
}

// random1 is a random segment of one end.
func (w *world) random1(rng *rand.Rand, from side) tcp {
	s := w.fromClient(byte(rng.IntN(64))&^(flagSYN|flagRST), rng.Uint32(), rng.Uint32(), string(make([]byte, rng.IntN(1400))))
	if from == server {
		s.src, s.dst = w.s, w.hub
	}
	s.window = uint16(rng.Uint32())
	for i := range s.data {
		s.data[i] = byte(rng.Uint32())
	}
	s.opts = appendStamps(nil, rng.Uint32(), rng.Uint32())
	if n := rng.IntN(4); n > 0 {
		s.opts = append(s.opts, optNop, optNop, optSACK, byte(2+8*n))
		for range 2 * n {
			s.opts = binary.BigEndian.AppendUint32(s.opts, rng.Uint32())
		}
	}
	return s
}

// thereAndBack translates a packet and translates the result back.
func (w *world) thereAndBack(f *flow, from side, p *Packet, original []byte) {
	w.Helper()
	clock := f.clock
	kept := *f
	if v := w.table.Handle(w.now, p); v != Forward {
		w.Fatalf("verdict %d", v)
	}
	there := rewritten(p)
	if !p.Partial {
		parse(w, there)
	}
	*f = kept // ends, numbers: the way back is another segment of theirs
	back := packetOf(there)
	back.Partial = p.Partial
	other := *f
	other.up, other.down, other.clock = -f.up, -f.down, -clock
	s, ok := parseSegment(back)
	if !ok {
		w.Fatalf("the translation does not parse: % x", there)
	}
	*f = other
	if v := w.table.translate(f, from, &s, back); v != Forward {
		w.Fatalf("verdict %d on the way back", v)
	}
	*f = kept
	got := rewritten(back)
	// The addresses are put back by hand: they are set, not shifted.
	restore := packetOf(got)
	o := packetOf(original)
	copy(got[:o.Start], original[:o.Start])
	copy(got[o.Start:o.Start+4], original[o.Start:o.Start+4])
	copy(got[o.Start+offSum:o.Start+offSum+2], original[o.Start+offSum:])
	if !bytes.Equal(restore.Header, original) {
		w.Fatalf("from %d: came back as\n% x, was\n% x", from, restore.Header[:80], original[:80])
	}
}
