// Package wire is the codec of everything that hawser's two ends say to each
// other inside links: frames in a record's header block, and the handshake's
// messages. PROTOCOL.md beside this file specifies every field; comments cite
// its sections.
//
// All functions are pure. Decoders never panic, never allocate in proportion
// to a length they were merely told, and reject what they do not know.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Kind is a frame's type byte (PROTOCOL.md section 5).
type Kind uint8

// Frame kinds.
const (
	KindPad      Kind = 0x00
	KindAck      Kind = 0x01
	KindPing     Kind = 0x02
	KindUrgent   Kind = 0x03
	KindTwin     Kind = 0x04
	KindOpen     Kind = 0x10
	KindAccepted Kind = 0x11
	KindData     Kind = 0x12
	KindCredit   Kind = 0x13
	KindReset    Kind = 0x14
	KindResend   Kind = 0x15
	KindStop     Kind = 0x20
	KindLink     Kind = 0x21
)

// FlagFin marks a DATA frame whose last byte is the last of the stream.
const FlagFin = 0x01

// Frame is one decoded frame; which fields count depends on Kind.
type Frame struct {
	Kind   Kind
	Flags  uint8          // DATA
	Code   uint8          // RESET, STOP
	Length uint16         // DATA: bytes of the record's body
	Delay  uint32         // ACK, URGENT, TWIN: microseconds between receipt and this ack
	Flow   uint64         // all flow frames
	Seq    uint64         // ACK, URGENT, TWIN: records received so far on the stream that it is about
	Offset uint64         // DATA: of the first byte; CREDIT: consumed; RESEND: from
	Limit  uint64         // CREDIT; ACCEPTED: the server's first window in bytes, or NoWindow
	Dst    netip.AddrPort // OPEN: the server
	Src    netip.AddrPort // OPEN: the client
	Terms  Terms          // OPEN
	Link   LinkTerms      // LINK
}

// Terms are a flow's place in the connection order (section 5.2).
type Terms struct {
	Policy    uint16 // the edge's number of the policy; 0: none
	Bits      uint8  // leading bits of the client's address that make the user; 0: all of the policy are one
	Class     uint8  // ClassLatency to ClassBackground
	Weight    uint8  // share of the user in its class, from 1
	Guarantee uint64 // of the user, per direction, bytes per second; 0: none
	Limit     uint64 // of the user, per direction, bytes per second; 0: none
}

// LinkTerms are what the edge says of one of its links (section 5.6).
type LinkTerms struct {
	Link   uint16 // its index
	Serial uint32 // counts up; a lower one is old news
	Tier   uint8  // 0 primary, 1 secondary, 2 standby, 3 last resort
	Weight uint8  // from 1
	Usable bool   // false: give it nothing new
	Rate   uint64 // forecast towards the edge, bytes per second; 0: none
	Valid  uint32 // how long Usable and Rate hold, milliseconds; ValidMost and not Usable: it is removed
}

// ValidMost is the highest Valid.
const ValidMost = 1<<32 - 1

// Classes of Terms, the most urgent first.
const (
	ClassLatency    = 0
	ClassPrivileged = 1
	ClassNormal     = 2
	ClassBackground = 3
)

// DefaultTerms are those of a flow that no policy names: each client is a user.
func DefaultTerms() Terms { return Terms{Bits: 128, Class: ClassNormal, Weight: 1} }

// Decoding errors; match with errors.Is.
var (
	ErrShort   = errors.New("frame is cut short")
	ErrUnknown = errors.New("unknown frame kind")
	ErrField   = errors.New("field out of range")
)

// Sizes of the fixed frames in bytes, type byte included.
const (
	AckSize      = 1 + 8 + 4
	AcceptedSize = 1 + 8 + 4
	DataSize     = 1 + 8 + 8 + 2 + 1
	CreditSize   = 1 + 8 + 8 + 8
	ResetSize    = 1 + 8 + 1
	ResendSize   = 1 + 8 + 8
	OpenMaxSize  = 1 + 8 + 2*19 + termsSize
	LinkSize     = 1 + 2 + 4 + 1 + 1 + 1 + 8 + 4
	termsSize    = 2 + 1 + 1 + 1 + 8 + 8
)

// maxOffset bounds stream offsets, so that sums with lengths cannot wrap.
const maxOffset = 1 << 62

var be = binary.BigEndian

// AppendAck appends an ACK frame (section 5.1).
func AppendAck(b []byte, seq uint64, delayMicros uint32) []byte {
	b = append(b, byte(KindAck))
	b = be.AppendUint64(b, seq)
	return be.AppendUint32(b, delayMicros)
}

// AppendUrgent appends an URGENT frame: an ACK of the urgent stream's records
// (section 5.1).
func AppendUrgent(b []byte, seq uint64, delayMicros uint32) []byte {
	n := len(b)
	b = AppendAck(b, seq, delayMicros)
	b[n] = byte(KindUrgent)
	return b
}

// AppendTwin appends a TWIN frame: an ACK of the second urgent stream's records
// (section 5.1).
func AppendTwin(b []byte, seq uint64, delayMicros uint32) []byte {
	n := len(b)
	b = AppendAck(b, seq, delayMicros)
	b[n] = byte(KindTwin)
	return b
}

// AppendPing appends a PING frame (section 5.1).
func AppendPing(b []byte) []byte { return append(b, byte(KindPing)) }

// AppendPad appends n bytes of padding (section 5.1).
func AppendPad(b []byte, n int) []byte {
	for range n {
		b = append(b, byte(KindPad))
	}
	return b
}

// AppendOpen appends an OPEN frame (section 5.2).
func AppendOpen(b []byte, flow uint64, dst, src netip.AddrPort, t Terms) []byte {
	b = append(b, byte(KindOpen))
	b = be.AppendUint64(b, flow)
	b = be.AppendUint16(appendAddr(appendAddr(b, dst), src), t.Policy)
	b = append(b, t.Bits, t.Class, t.Weight)
	return be.AppendUint64(be.AppendUint64(b, t.Guarantee), t.Limit)
}

// NoWindow in an ACCEPTED frame says that the server's window is not known.
const NoWindow = 1<<32 - 1

// AppendAccepted appends an ACCEPTED frame (section 5.2). window is the server's
// first, in bytes; what does not fit says NoWindow.
func AppendAccepted(b []byte, flow uint64, window int) []byte {
	w := uint32(NoWindow)
	if window >= 0 {
		w = uint32(min(uint64(window), NoWindow)) // as an int may have 32 bits
	}
	return be.AppendUint32(be.AppendUint64(append(b, byte(KindAccepted)), flow), w)
}

// AppendData appends a DATA frame for a body of length bytes (section 5.3).
func AppendData(b []byte, flow, offset uint64, length int, fin bool) []byte {
	b = append(b, byte(KindData))
	b = be.AppendUint64(b, flow)
	b = be.AppendUint64(b, offset)
	b = be.AppendUint16(b, uint16(length))
	if fin {
		return append(b, FlagFin)
	}
	return append(b, 0)
}

// AppendCredit appends a CREDIT frame (section 5.3).
func AppendCredit(b []byte, flow, consumed, limit uint64) []byte {
	b = be.AppendUint64(append(b, byte(KindCredit)), flow)
	return be.AppendUint64(be.AppendUint64(b, consumed), limit)
}

// AppendReset appends a RESET frame (section 5.4).
func AppendReset(b []byte, flow uint64, code uint8) []byte {
	return append(be.AppendUint64(append(b, byte(KindReset)), flow), code)
}

// AppendResend appends a RESEND frame (section 5.3).
func AppendResend(b []byte, flow, from uint64) []byte {
	return be.AppendUint64(be.AppendUint64(append(b, byte(KindResend)), flow), from)
}

// AppendStop appends a STOP frame (section 5.5).
func AppendStop(b []byte, code uint8) []byte { return append(b, byte(KindStop), code) }

// AppendLink appends a LINK frame (section 5.6).
func AppendLink(b []byte, t LinkTerms) []byte {
	b = be.AppendUint16(append(b, byte(KindLink)), t.Link)
	b = append(be.AppendUint32(b, t.Serial), t.Tier, t.Weight, 0)
	if t.Usable {
		b[len(b)-1] = 1
	}
	return be.AppendUint32(be.AppendUint64(b, t.Rate), t.Valid)
}

// appendAddr writes family (4 or 6), address, port.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	if ip.Is4() {
		v := ip.As4()
		b = append(append(b, 4), v[:]...)
	} else {
		v := ip.As16()
		b = append(append(b, 6), v[:]...)
	}
	return be.AppendUint16(b, a.Port())
}

// Next decodes the first frame of block and returns the rest. Padding is
// skipped; at the end of the block it returns a KindPad frame and no rest.
func Next(block []byte) (Frame, []byte, error) {
	for len(block) > 0 && Kind(block[0]) == KindPad {
		block = block[1:]
	}
	if len(block) == 0 {
		return Frame{}, nil, nil
	}
	f := Frame{Kind: Kind(block[0])}
	r := reader{b: block[1:]}
	switch f.Kind {
	case KindPing:
	case KindAck, KindUrgent, KindTwin:
		f.Seq, f.Delay = r.u64(), r.u32()
	case KindOpen:
		f.Flow, f.Dst, f.Src, f.Terms = r.flow(), r.addr(), r.addr(), r.terms()
	case KindAccepted:
		f.Flow, f.Limit = r.flow(), uint64(r.u32())
	case KindData:
		f.Flow, f.Offset, f.Length, f.Flags = r.flow(), r.offset(), r.u16(), r.u8()
		if f.Flags&^FlagFin != 0 || int(f.Length) > MaxBody || f.Length == 0 && f.Flags == 0 {
			r.bad = true
		}
	case KindCredit:
		f.Flow, f.Offset, f.Limit = r.offset(), r.offset(), r.offset() // flow 0: flows to come
	case KindReset:
		f.Flow, f.Code = r.flow(), r.u8()
	case KindResend:
		f.Flow, f.Offset = r.flow(), r.offset()
	case KindStop:
		f.Code = r.u8()
	case KindLink:
		f.Link = r.link()
	default:
		return Frame{}, nil, fmt.Errorf("%w 0x%02x", ErrUnknown, block[0])
	}
	return f, r.b, r.err(f.Kind)
}

// reader takes fixed-width fields off a block and remembers what went wrong.
type reader struct {
	b          []byte
	short, bad bool
}

var zeros [16]byte

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.short, r.b = true, nil
		return zeros[:n]
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) u8() uint8   { return r.take(1)[0] }
func (r *reader) u16() uint16 { return be.Uint16(r.take(2)) }
func (r *reader) u32() uint32 { return be.Uint32(r.take(4)) }
func (r *reader) u64() uint64 { return be.Uint64(r.take(8)) }

func (r *reader) flow() uint64 {
	v := r.u64()
	r.bad = r.bad || v == 0 || v > maxOffset
	return v
}

func (r *reader) offset() uint64 {
	v := r.u64()
	r.bad = r.bad || v > maxOffset
	return v
}

func (r *reader) addr() netip.AddrPort {
	var ip netip.Addr
	switch r.u8() {
	case 4:
		ip = netip.AddrFrom4([4]byte(r.take(4)))
	case 6:
		ip = netip.AddrFrom16([16]byte(r.take(16)))
		r.bad = r.bad || ip.Is4In6()
	default:
		r.bad = true
	}
	return netip.AddrPortFrom(ip, r.u16())
}

func (r *reader) terms() Terms {
	t := Terms{Policy: r.u16(), Bits: r.u8(), Class: r.u8(), Weight: r.u8(), Guarantee: r.offset(), Limit: r.offset()}
	r.bad = r.bad || t.Bits > 128 || t.Class > ClassBackground || t.Weight == 0
	return t
}

func (r *reader) link() LinkTerms {
	t := LinkTerms{Link: r.u16(), Serial: r.u32(), Tier: r.u8(), Weight: r.u8()}
	usable := r.u8()
	t.Usable, t.Rate, t.Valid = usable == 1, r.offset(), r.u32()
	r.bad = r.bad || t.Tier > 3 || t.Weight == 0 || usable > 1
	return t
}

func (r *reader) err(k Kind) error {
	switch {
	case r.short:
		return fmt.Errorf("%w: kind 0x%02x", ErrShort, byte(k))
	case r.bad:
		return fmt.Errorf("%w: kind 0x%02x", ErrField, byte(k))
	}
	return nil
}
