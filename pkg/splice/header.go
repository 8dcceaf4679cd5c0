package splice

import (
	"encoding/binary"
	"math/bits"
)

// Offsets and lengths in TCP headers (RFC 9293 section 3.1), in bytes.
const (
	tcpMin    = 20
	tcpMax    = 60
	offSource = 0
	offDest   = 2
	offSeq    = 4
	offAck    = 8
	offLength = 12 // high nibble: header length in words
	offFlags  = 13
	offWindow = 14
	offSum    = 16
)

// TCP flags.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// TCP options (RFC 9293 section 3.2, RFC 7323, RFC 2018).
const (
	optEnd    = 0
	optNop    = 1
	optMSS    = 2
	optScale  = 3
	optSACKOK = 4
	optSACK   = 5
	optStamps = 8

	stampsLen   = 10
	stampsSpace = 12 // with two NOPs before it
	maxScale    = 14 // RFC 7323 section 2.3
)

// MSS of an end that announces none (RFC 9293 section 3.7.1).
const (
	defaultMSS4 = 536
	defaultMSS6 = 1220
)

// NoScale is the Scale of an end that does not scale windows.
const NoScale = -1

// Options are what one end announces in its SYN.
type Options struct {
	MSS    uint16 // 0: not announced
	Scale  int8   // shift of later windows; NoScale
	SACK   bool   // selective acknowledgements are welcome
	Stamps bool   // timestamps are sent
	Val    uint32 // the timestamp, if any
	Ecr    uint32 // the timestamp that it answers, if any
}

// segment is a view of a TCP segment's header.
type segment struct {
	tcp     []byte // header with options
	flags   byte
	seq     uint32
	ack     uint32
	window  uint16
	payload int // bytes
}

// parseSegment reads the TCP header of p. It returns false when the header is
// not whole or its options contradict its length.
func parseSegment(p *Packet) (segment, bool) {
	if p.Start < 0 || len(p.Header) < p.Start+tcpMin {
		return segment{}, false
	}
	h := p.Header[p.Start:]
	size := int(h[offLength]>>4) * 4
	if size < tcpMin || size > len(h) || p.Start+size > p.Size {
		return segment{}, false
	}
	s := segment{
		tcp: h[:size], flags: h[offFlags], window: binary.BigEndian.Uint16(h[offWindow:]),
		seq: binary.BigEndian.Uint32(h[offSeq:]), ack: binary.BigEndian.Uint32(h[offAck:]),
		payload: p.Size - p.Start - size,
	}
	return s, wellFormed(s.tcp[tcpMin:])
}

// length is what the segment takes of the sequence space.
func (s *segment) length() uint32 {
	n := uint32(s.payload)
	if s.flags&flagSYN != 0 {
		n++
	}
	if s.flags&flagFIN != 0 {
		n++
	}
	return n
}

func (s *segment) is(flags, of byte) bool { return s.flags&of == flags }

// eachOption calls visit with every option but NOPs: its kind and all of its
// bytes. It returns false when an option's length is absurd.
func eachOption(opts []byte, visit func(kind byte, opt []byte)) bool {
	for len(opts) > 0 {
		switch opts[0] {
		case optEnd:
			return true
		case optNop:
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			return false
		}
		n := int(opts[1])
		visit(opts[0], opts[:n])
		opts = opts[n:]
	}
	return true
}

func wellFormed(opts []byte) bool {
	// The common case: two NOPs and timestamps.
	if len(opts) == stampsSpace && opts[0] == optNop && opts[1] == optNop && opts[2] == optStamps && opts[3] == stampsLen {
		return true
	}
	return eachOption(opts, func(byte, []byte) {})
}

// parseOptions reads what a SYN announces.
func parseOptions(opts []byte) Options {
	o := Options{Scale: NoScale}
	eachOption(opts, func(kind byte, opt []byte) {
		switch {
		case kind == optMSS && len(opt) == 4:
			o.MSS = binary.BigEndian.Uint16(opt[2:])
		case kind == optScale && len(opt) == 3:
			o.Scale = int8(min(opt[2], maxScale))
		case kind == optSACKOK && len(opt) == 2:
			o.SACK = true
		case kind == optStamps && len(opt) == stampsLen:
			o.Stamps = true
			o.Val, o.Ecr = binary.BigEndian.Uint32(opt[2:]), binary.BigEndian.Uint32(opt[6:])
		}
	})
	return o
}

// appendTo writes o as a SYN's options, padded to words.
func (o Options) appendTo(b []byte) []byte {
	if o.MSS > 0 {
		b = append(b, optMSS, 4, byte(o.MSS>>8), byte(o.MSS))
	}
	if o.SACK {
		b = append(b, optNop, optNop, optSACKOK, 2)
	}
	if o.Stamps {
		b = appendStamps(b, o.Val, o.Ecr)
	}
	if o.Scale >= 0 {
		b = append(b, optNop, optScale, 3, byte(o.Scale))
	}
	return b
}

func appendStamps(b []byte, val, ecr uint32) []byte {
	b = append(b, optNop, optNop, optStamps, stampsLen)
	b = binary.BigEndian.AppendUint32(b, val)
	return binary.BigEndian.AppendUint32(b, ecr)
}

// add32 adds d to the number at p, modulo 2^32.
func add32(p []byte, d uint32) {
	binary.BigEndian.PutUint32(p, binary.BigEndian.Uint32(p)+d)
}

// before says that a lies before b in the sequence space (RFC 9293 section 3.4).
func before(a, b uint32) bool { return int32(a-b) < 0 }

// sum is the ones' complement sum of b, folded to 16 bits (RFC 1071).
func sum(b []byte) uint16 {
	var s, carry uint64
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	tail := uint64(0)
	for i, c := range b {
		tail |= uint64(c) << (56 - 8*i)
	}
	s, carry = bits.Add64(s, tail, carry)
	s, carry = bits.Add64(s, 0, carry)
	s += carry
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	return fold(uint32(s>>16) + uint32(s&0xffff))
}

func fold(s uint32) uint16 {
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s&0xffff)
}

// adjust corrects a checksum for a header whose sum was was and is now is
// (RFC 1624 equation 3).
func adjust(check, was, is uint16) uint16 {
	return ^fold(uint32(^check) + uint32(^was) + uint32(is))
}
