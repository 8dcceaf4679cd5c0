package gcm

import (
	"crypto/cipher"
	"crypto/fips140"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// Bits of CPUID's leaf 7, ECX.
const (
	hasVAES       = 1 << 9
	hasVPCLMULQDQ = 1 << 10
)

// wide reports whether the processor, and the system, have what gcm_amd64.s uses.
func wide() bool {
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasAES || !x.HasPCLMULQDQ || fips140.Enabled() {
		return false
	}
	const all = hasVAES | hasVPCLMULQDQ
	return leaf7()&all == all
}

// key is what is computed of a key. The assembler knows where its fields are.
type key struct {
	rounds [15][block]byte
	powers [16][block]byte // of the hash key, the sixteenth first, as multiply has them
	sums   [16][block]byte // of the powers' halves, in the first half
}

// The assembler's. counter is a counter block with its bytes reversed, sum GHASH's with
// its bytes reversed. There is at least one group. dst may be src.

//go:noescape
func sealGroups(k *key, counter, sum *[block]byte, dst, src *byte, groups int)

//go:noescape
func openGroups(k *key, counter, sum *[block]byte, dst, src *byte, groups int)

// hashEights adds so many times eight blocks to a sum.
//
//go:noescape
func hashEights(k *key, sum *[block]byte, src *byte, eights int)

// keystream encrypts sixteen counters.
//
//go:noescape
func keystream(k *key, counter *[block]byte, dst *[group]byte)

// multiply multiplies a by b, in GHASH's field.
//
//go:noescape
func multiply(a, b *[block]byte)

// expand computes the round keys.
//
//go:noescape
func expand(k *key, raw *[KeySize]byte)

func leaf7() (ecx uint32)

// aead implements cipher.AEAD.
type aead struct{ key }

var errOpen = errors.New("gcm: message authentication failed")

func newWide(raw []byte) cipher.AEAD {
	a := &aead{}
	expand(&a.key, (*[KeySize]byte)(raw))
	var none [block]byte
	var first [group]byte
	keystream(&a.key, &none, &first) // the first counter is 0: the hash key
	h := &a.powers[15]
	double(h, first[:block])
	for i := 14; i >= 0; i-- {
		a.powers[i] = a.powers[i+1]
		multiply(&a.powers[i], h)
	}
	for i, p := range a.powers {
		subtle.XORBytes(a.sums[i][:8], p[:8], p[8:])
	}
	return a
}

// double stores the block h, its bytes reversed, times x: products of what is stored so
// need not be shifted.
func double(to *[block]byte, h []byte) {
	high, low := binary.BigEndian.Uint64(h), binary.BigEndian.Uint64(h[8:])
	over := high >> 63
	high = high<<1 | low>>63
	high ^= -over & (0xc2 << 56)
	low = low<<1 | over
	binary.LittleEndian.PutUint64(to[:], low)
	binary.LittleEndian.PutUint64(to[8:], high)
}

func (a *aead) NonceSize() int { return 12 }
func (a *aead) Overhead() int  { return block }

// message is one message's state.
type message struct {
	counter [block]byte
	sum     [block]byte
	mask    [block]byte // of the tag
	stream  [group]byte
	last    [eight]byte // what is left for GHASH, at its end
}

// begin reads the nonce. It leaves the key stream of the first fifteen blocks in stream,
// behind the mask.
func (a *aead) begin(m *message, nonce []byte) {
	if len(nonce) != a.NonceSize() {
		panic("gcm: nonce of a wrong length")
	}
	binary.LittleEndian.PutUint32(m.counter[:], 1)
	binary.LittleEndian.PutUint32(m.counter[12:], binary.BigEndian.Uint32(nonce))
	binary.LittleEndian.PutUint64(m.counter[4:], binary.BigEndian.Uint64(nonce[4:]))
	keystream(&a.key, &m.counter, &m.stream)
	copy(m.mask[:], m.stream[:])
	m.skip(1)
}

// skip moves the counter on by n blocks.
func (m *message) skip(n int) {
	c := binary.LittleEndian.Uint32(m.counter[:])
	binary.LittleEndian.PutUint32(m.counter[:], c+uint32(n))
}

// absorb adds p, filled up with zeros to whole blocks, to the sum.
func (a *aead) absorb(m *message, p []byte) {
	if n := len(p) / eight; n > 0 {
		hashEights(&a.key, &m.sum, &p[0], n)
		p = p[n*eight:]
	}
	if len(p) == 0 {
		return
	}
	// Zeros before the first block do not count, but for the sum, which belongs to it.
	from := eight - (len(p)+block-1)/block*block
	clear(m.last[:])
	copy(m.last[from:], p)
	for i := range m.sum {
		m.last[from+i] ^= m.sum[block-1-i]
	}
	m.sum = [block]byte{}
	hashEights(&a.key, &m.sum, &m.last[0], 1)
}

// tag ends a message of n bytes with so many of additional data.
func (a *aead) tag(m *message, tag *[block]byte, n, additional int) {
	binary.BigEndian.PutUint64(tag[:], uint64(additional)*8)
	binary.BigEndian.PutUint64(tag[8:], uint64(n)*8)
	a.absorb(m, tag[:])
	for i := range tag {
		tag[i] = m.sum[block-1-i] ^ m.mask[i]
	}
}

// rest is the key stream for the last n bytes, which are less than a group.
func (a *aead) rest(m *message, n int, whole bool) []byte {
	if whole && n <= group-block {
		return m.stream[block : block+n]
	}
	keystream(&a.key, &m.counter, &m.stream)
	return m.stream[:n]
}

// Seal implements cipher.AEAD.
func (a *aead) Seal(dst, nonce, plain, additional []byte) []byte {
	all, out := extend(dst, len(plain)+block)
	if crosses(out, plain) || overlaps(out, additional) {
		panic("gcm: invalid buffer overlap")
	}
	var m message
	a.begin(&m, nonce)
	a.absorb(&m, additional)
	groups := len(plain) / group
	if groups > 0 {
		sealGroups(&a.key, &m.counter, &m.sum, &out[0], &plain[0], groups)
		m.skip(group / block * groups)
	}
	if at := groups * group; at < len(plain) {
		left := out[at:len(plain)]
		subtle.XORBytes(left, plain[at:], a.rest(&m, len(left), at == 0))
		a.absorb(&m, left)
	}
	var tag [block]byte
	a.tag(&m, &tag, len(plain), len(additional))
	copy(out[len(plain):], tag[:])
	return all
}

// Open implements cipher.AEAD.
func (a *aead) Open(dst, nonce, sealed, additional []byte) ([]byte, error) {
	if len(sealed) < block {
		return nil, errOpen
	}
	n := len(sealed) - block
	all, out := extend(dst, n)
	if crosses(out, sealed) || overlaps(out, additional) {
		panic("gcm: invalid buffer overlap")
	}
	var m message
	a.begin(&m, nonce)
	a.absorb(&m, additional)
	groups := n / group
	if groups > 0 {
		openGroups(&a.key, &m.counter, &m.sum, &out[0], &sealed[0], groups)
		m.skip(group / block * groups)
	}
	if at := groups * group; at < n {
		left := sealed[at:n]
		a.absorb(&m, left)
		subtle.XORBytes(out[at:], left, a.rest(&m, len(left), at == 0))
	}
	var tag [block]byte
	a.tag(&m, &tag, n, len(additional))
	if subtle.ConstantTimeCompare(tag[:], sealed[n:]) != 1 {
		clear(out)
		return nil, errOpen
	}
	return all, nil
}

// extend returns dst with n bytes more, and these.
func extend(dst []byte, n int) (all, more []byte) {
	if total := len(dst) + n; cap(dst) >= total {
		all = dst[:total]
	} else {
		all = make([]byte, total)
		copy(all, dst)
	}
	return all, all[len(dst):]
}

// overlaps reports whether a and b share memory.
func overlaps(a, b []byte) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	from, other := uintptr(unsafe.Pointer(&a[0])), uintptr(unsafe.Pointer(&b[0]))
	return from < other+uintptr(len(b)) && other < from+uintptr(len(a))
}

// crosses reports whether a and b overlap without beginning at the same byte.
func crosses(a, b []byte) bool { return overlaps(a, b) && &a[0] != &b[0] }
