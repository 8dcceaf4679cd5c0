// Package reassembly puts the chunks of one stream back in order. Chunks come
// over several links, late, twice, or cut differently the second time; every
// byte leaves exactly once, in order (PROTOCOL.md section 5.3).
//
// Stream is a pure state type: no clock, no goroutines, one owner.
package reassembly

import (
	"errors"
	"slices"

	"hawser/pkg/buffer"
)

// Errors of Insert: the peer broke the protocol.
var (
	ErrBeyondCredit = errors.New("data beyond the flow's credit")
	ErrFinMoved     = errors.New("two different ends of the stream")
)

// chunk is a stored out-of-order range.
type chunk struct {
	off uint64
	seg buffer.Seg
}

func (c chunk) end() uint64 { return c.off + uint64(c.seg.Len()) }

// Tables are emptied tables of chunks, for the next stream that needs one: streams in
// motion allocate none, and streams at rest, of which there may be 100,000, keep none.
// A nil *Tables keeps none. It has the same owner as the streams.
type Tables struct{ spare [][]chunk }

const (
	spareMost  = 64 // tables
	sparedMost = 64 // chunks that a spared one has room for
	tableRoom  = 16 // chunks that a new one has room for
)

func (t *Tables) take() []chunk {
	if t == nil {
		return nil
	}
	n := len(t.spare)
	if n == 0 {
		return make([]chunk, 0, tableRoom)
	}
	table := t.spare[n-1]
	t.spare = t.spare[:n-1]
	return table
}

// put takes an empty table whose chunks are cleared.
func (t *Tables) put(table []chunk) {
	if t != nil && len(t.spare) < spareMost && cap(table) <= sparedMost {
		t.spare = append(t.spare, table)
	}
}

// Stream is the receive side of one direction of a flow. The zero Stream is ready.
type Stream struct {
	next   uint64  // offset that leaves next
	chunks []chunk // from first on: sorted, disjoint, all at or beyond next; nil: none
	first  int32   // those before have left: so many in a row leave that they are not moved up one by one
	held   uint32  // bytes in chunks
	far    *pages  // what follows those, where there are many; nil: nothing
	fin    uint64  // end of the stream plus one; 0 = unknown
	dups   uint64  // bytes dropped because they were here already
}

// Insert takes the bytes at off and owns seg from here on, also on error.
// limit is the credit: no byte may lie at or beyond it.
func (s *Stream) Insert(t *Tables, off uint64, seg buffer.Seg, fin bool, limit uint64) error {
	end := off + uint64(seg.Len())
	if end > limit {
		seg.Release()
		return ErrBeyondCredit
	}
	if fin && !s.setFin(end) || s.fin != 0 && end > s.fin-1 {
		seg.Release()
		return ErrFinMoved
	}
	s.store(t, off, seg)
	return nil
}

func (s *Stream) setFin(end uint64) bool {
	if s.fin == 0 {
		if end < s.next || s.last() > end {
			return false
		}
		s.fin = end + 1
	}
	return s.fin == end+1
}

// store keeps the parts of seg that are not here yet.
func (s *Stream) store(t *Tables, off uint64, seg buffer.Seg) {
	if off < s.next {
		off, seg = s.trim(off, seg, s.next-off)
	}
	at := s.search(off)
	for seg.Len() > 0 {
		here, more := s.look(&at)
		if more && here.off <= off { // overlap at the front
			off, seg = s.trim(off, seg, here.end()-off)
			at.i++
			continue
		}
		n := seg.Len()
		if more {
			n = int(min(uint64(n), here.off-off))
		}
		head, tail := seg, buffer.Seg{}
		if n < seg.Len() {
			head, tail = seg.Cut(n)
		}
		if s.chunks == nil {
			s.chunks = t.take()
		}
		at = s.place(at, chunk{off, head})
		at.i++
		s.held += uint32(n)
		off, seg = off+uint64(n), tail
	}
	seg.Release()
}

// place puts c before the chunk at a place and returns where it is then.
func (s *Stream) place(at place, c chunk) place {
	if at.page > 0 {
		return s.far.place(at, c)
	}
	i, first := at.i, int(s.first)
	if i == first && i > 0 {
		s.first--
		s.chunks[s.first] = c
		return place{0, first - 1}
	}
	if len(s.chunks) == cap(s.chunks) && first > len(s.chunks)/2 {
		n := copy(s.chunks, s.chunks[first:])
		clear(s.chunks[n:])
		s.chunks, s.first, i, first = s.chunks[:n], 0, i-first, 0
	}
	s.chunks = slices.Insert(s.chunks, i, c)
	if len(s.chunks)-first <= pageMost {
		return place{0, i}
	}
	if s.far == nil {
		s.far = &pages{}
	}
	from := first + cutAt(i-first, len(s.chunks)-first)
	s.chunks = s.far.split(0, s.chunks, from)
	if i >= from {
		return place{1, i - from}
	}
	return place{0, i}
}

// trim drops the first n bytes of seg as duplicates.
func (s *Stream) trim(off uint64, seg buffer.Seg, n uint64) (uint64, buffer.Seg) {
	if n >= uint64(seg.Len()) {
		s.dups += uint64(seg.Len())
		seg.Release()
		return off + uint64(seg.Len()), buffer.Seg{}
	}
	s.dups += n
	head, tail := seg.Cut(int(n))
	head.Release()
	return off + n, tail
}

// search returns the place of the first chunk that ends beyond off. New data mostly comes
// last or first, so both ends are tried before the middle.
func (s *Stream) search(off uint64) place {
	hi := len(s.chunks)
	if hi == 0 || s.chunks[hi-1].end() <= off {
		if s.far == nil {
			return place{0, hi}
		}
		return s.far.search(off)
	}
	return place{0, searchIn(s.chunks, int(s.first), off)}
}

// look returns the chunk at a place, which may be behind the last one of a page; false: there
// is none.
func (s *Stream) look(at *place) (chunk, bool) {
	if at.page == 0 {
		if at.i < len(s.chunks) {
			return s.chunks[at.i], true
		}
		if s.far == nil {
			return chunk{}, false
		}
		*at = place{1, 0}
	}
	return s.far.look(at)
}

// last is the end of the last chunk, 0 without any.
func (s *Stream) last() uint64 {
	switch n := len(s.chunks); {
	case s.far != nil:
		return s.far.last()
	case n > 0:
		return s.chunks[n-1].end()
	}
	return 0
}

// Next returns the next bytes in order and hands them over, or false.
func (s *Stream) Next(t *Tables) (buffer.Seg, bool) {
	if len(s.chunks) == 0 || s.chunks[s.first].off != s.next {
		return buffer.Seg{}, false
	}
	c := s.chunks[s.first]
	s.chunks[s.first] = chunk{}
	s.first++
	s.next = c.end()
	s.held -= uint32(c.seg.Len())
	if int(s.first) == len(s.chunks) {
		t.put(s.chunks[:0])
		s.chunks, s.first = nil, 0
		if s.far != nil && !s.far.pop(&s.chunks) {
			s.far = nil
		}
	}
	return c.seg, true
}

// Rewind makes the stream start again at off, at or below Offset: what is
// held is dropped, and the peer sends everything from off on anew.
func (s *Stream) Rewind(off uint64) {
	s.Drop()
	s.next = off
}

// Drop releases everything held.
func (s *Stream) Drop() {
	for i := range s.chunks {
		s.chunks[i].seg.Release()
	}
	if s.far != nil {
		s.far.drop()
	}
	s.chunks, s.first, s.far, s.held = nil, 0, nil, 0
}

// Offset is the offset of the next byte that leaves.
func (s *Stream) Offset() uint64 { return s.next }

// Ended reports whether all bytes up to the stream's end have left.
func (s *Stream) Ended() bool { return s.fin != 0 && s.next == s.fin-1 }

// Held is the number of bytes that wait for a gap to close.
func (s *Stream) Held() int { return int(s.held) }

// Duplicates is the number of bytes that came more than once.
func (s *Stream) Duplicates() uint64 { return s.dups }
