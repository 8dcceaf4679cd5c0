// Package buffer holds the reference-counted buffers that carry payload from
// the raw socket to the link's writev.
//
// A Buf is a pooled slab of one of a few sizes: what waits in a queue must not
// pin a slab that is much larger. A Seg is a
// byte range of a Buf. Whoever holds a Seg holds one reference of its Buf and
// must either pass the Seg on or Release it exactly once; the last Release
// returns the slab to the pool. Bytes reachable through more than one
// reference are read-only.
//
// The package starts no goroutines. All functions may be called from any
// goroutine; a single Buf or Seg value belongs to one owner at a time.
package buffer

import (
	"sync"
	"sync/atomic"
)

// Plain is the largest plain payload of one sealed record, in bytes, but on fast lines.
const Plain = 16 << 10

// Most is the largest plain payload of any sealed record, in bytes.
const Most = 64<<10 - Slack

// Slack is the room that a slab has beyond Plain or Most, in bytes: a sealed
// record's header and tag, and a compressor's worst-case growth.
const Slack = 512

// Small is the size of the smallest slab, in bytes: of control-sized and
// interactive payload, and of the 1 KB that a flow may always be sent, sealed.
const Small = 1280

// Large is the size of the largest pooled slab, in bytes.
const Large = Most + Slack

// sizes are those of pooled slabs, in bytes. All but Plain's are among those that Go's
// allocator has, or whole pages, and above 2 KB a slab is at most half as large again as
// what is in it.
var sizes = [...]int{Small, 2 << 10, 3 << 10, 4 << 10, 6 << 10, 8 << 10, 12 << 10, Plain + Slack, 24 << 10, 32 << 10, 48 << 10, Large}

// Buf is one reference-counted slab.
type Buf struct {
	data []byte
	refs atomic.Int32
	pool *sync.Pool
}

var (
	pools [len(sizes)]sync.Pool
	live  atomic.Int64
)

// class is the index of the smallest size with room for n bytes, or len(sizes).
func class(n int) int {
	i := 0
	for i < len(sizes) && n > sizes[i] {
		i++
	}
	return i
}

// Size returns the length of the slab that Get(n) returns.
func Size(n int) int {
	if i := class(n); i < len(sizes) {
		return sizes[i]
	}
	return n
}

// Get returns a slab with room for at least n bytes and one reference, which
// the caller owns. n above Large gets a slab of its own that is not pooled.
func Get(n int) *Buf {
	var b *Buf
	if i := class(n); i < len(sizes) {
		b, _ = pools[i].Get().(*Buf)
		if b == nil {
			b = &Buf{data: make([]byte, sizes[i]), pool: &pools[i]}
		}
	} else {
		b = &Buf{data: make([]byte, n)}
	}
	b.refs.Store(1)
	live.Add(int64(len(b.data)))
	return b
}

// Bytes returns the whole slab. Only the owner of the only reference may
// write to it.
func (b *Buf) Bytes() []byte { return b.data }

// Retain adds a reference.
func (b *Buf) Retain() { b.refs.Add(1) }

// Release drops one reference; the last one returns the slab to its pool.
// One Release too many is a programming error and panics.
func (b *Buf) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("buffer: released more often than retained")
	}
	live.Add(-int64(len(b.data)))
	if b.pool != nil {
		b.pool.Put(b)
	}
}

// Live returns the bytes of all slabs that are in somebody's hands: the
// figure that status shows and that leak tests compare.
func Live() int64 { return live.Load() }

// Seg is a byte range of a Buf together with one reference of it. The zero
// Seg is empty and needs no Release.
type Seg struct {
	buf *Buf
	P   []byte // the bytes; read-only once the Seg has been shared
}

// Seg makes a Seg of b.Bytes()[from:to] and hands b's reference over to it.
func (b *Buf) Seg(from, to int) Seg { return Seg{buf: b, P: b.data[from:to]} }

// Copy returns a Seg with a pooled copy of p.
func Copy(p []byte) Seg {
	b := Get(len(p))
	return b.Seg(0, copy(b.data, p))
}

// Len returns the number of bytes.
func (s Seg) Len() int { return len(s.P) }

// Cut splits s after n bytes (0 <= n <= Len) and takes over its reference.
// Both parts must be released.
func (s Seg) Cut(n int) (head, tail Seg) {
	if s.buf != nil {
		s.buf.Retain()
	}
	return Seg{buf: s.buf, P: s.P[:n:n]}, Seg{buf: s.buf, P: s.P[n:]}
}

// Share returns a second Seg over the same bytes with its own reference.
func (s Seg) Share() Seg {
	if s.buf != nil {
		s.buf.Retain()
	}
	return s
}

// Release drops the Seg's reference.
func (s Seg) Release() {
	if s.buf != nil {
		s.buf.Release()
	}
}
