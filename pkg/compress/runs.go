package compress

import (
	"encoding/binary"
)

// repetitive is from how many times its packed length on a block goes to unpackRuns:
// it then consists of a few long copies.
const repetitive = 24

// Kinds of an s2 block's elements, in the lowest two bits of each one's first byte.
const (
	s2Literal = iota
	s2Near    // copy with an offset of 11 bits, or of the last one again
	s2Far     // copy with an offset of 16 bits
	s2Farther // copy with an offset of 32 bits
)

// unpackRuns decodes packed, an s2 block without the length in front, to all of dst,
// and reports whether it could.
//
// A copy that overlaps itself, as of a run of zeros or a short pattern, goes byte by
// byte in s2's own decoder, 3 ns each, since each byte is read from the one before.
// Here the part that is there doubles.
func unpackRuns(dst, packed []byte) bool {
	d, offset, length := 0, 0, 0
	for len(packed) > 0 {
		tag := packed[0]
		var more [4]byte // what follows the tag, 0 behind the end
		copy(more[:], packed[1:])
		used := 1
		switch tag & 3 {
		case s2Literal:
			length, used = literal(tag>>2, more)
			if used > len(packed) || length > len(packed)-used || length > len(dst)-d {
				return false
			}
			d += copy(dst[d:], packed[used:used+length])
			packed = packed[used+length:]
			continue
		case s2Near:
			length, used = int(tag>>2&7)+4, 2
			if near := int(tag&0xe0)<<3 | int(more[0]); near != 0 {
				offset = near
			} else {
				length, used = again(tag>>2&7, more)
			}
		case s2Far:
			offset, length, used = int(binary.LittleEndian.Uint16(more[:])), int(tag>>2)+1, 3
		case s2Farther:
			offset, length, used = int(binary.LittleEndian.Uint32(more[:])), int(tag>>2)+1, 5
		}
		if used > len(packed) || offset <= 0 || offset > d || length > len(dst)-d {
			return false
		}
		repeat(dst[d-offset:d+length], offset)
		d += length
		packed = packed[used:]
	}
	return d == len(dst)
}

// literal returns the length of a literal and where its bytes begin.
func literal(n uint8, more [4]byte) (length, used int) {
	if n < 60 {
		return int(n) + 1, 1
	}
	bytes := int(n) - 59
	clear(more[bytes:])
	return int(binary.LittleEndian.Uint32(more[:])) + 1, 1 + bytes
}

// again returns the length of a copy with the last offset, and the element's own.
func again(n uint8, more [4]byte) (length, used int) {
	switch n {
	case 5:
		return int(more[1]) + 8, 3
	case 6:
		return int(binary.LittleEndian.Uint16(more[1:])) + 4 + 1<<8, 4
	case 7: // longer than any block
		return 1 << 24, 5
	}
	return int(n) + 4, 2
}

// repeat fills p with its first n bytes.
func repeat(p []byte, n int) {
	for ; n < len(p); n *= 2 {
		copy(p[n:], p[:n])
	}
}
