package guard

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Outbound turns the header of a segment of the stack's into the client's
// numbers. payload is its length in bytes. mend keeps the checksum right; a
// checksum that the kernel completes later holds none of what changes.
func (f *Flow) Outbound(tcp []byte, payload int, mend bool) {
	if f.state == Bounded && tcp[13]&(FlagSYN|FlagRST) == 0 {
		f.note(tcp, payload, mend)
	}
	if f.state == Open {
		f.seq = binary.BigEndian.Uint32(tcp[4:]) + uint32(payload) + f.delta
	}
	if f.delta != 0 {
		change(tcp, 4, binary.BigEndian.Uint32(tcp[4:])+f.delta, mend)
	}
	if f.drift != 0 {
		if at := stampsAt(tcp); at > 0 {
			change(tcp, at, binary.BigEndian.Uint32(tcp[at:])+f.drift, mend)
		}
	}
}

// near is more than what can be under way, in bytes.
const near = 1 << 26

// Strange says that a client's segment acknowledges what this flow has not
// sent: it may be the first of another connection between the same ends, whose
// SYN the guard has not seen because the kernel has answered it.
func (f *Flow) Strange(tcp []byte) bool {
	if tcp[13]&(FlagSYN|FlagRST|FlagACK) != FlagACK {
		return false
	}
	ack := binary.BigEndian.Uint32(tcp[8:])
	switch f.state {
	case Waiting, Joining:
		return ack != f.cookie+1
	case Bounded, Open:
		d := int32(ack - f.seq)
		return d > near || d < -near
	}
	return false
}

// note remembers what the client was told, and keeps its window bounded.
func (f *Flow) note(tcp []byte, payload int, mend bool) {
	f.seq = binary.BigEndian.Uint32(tcp[4:]) + uint32(payload) + f.delta
	if tcp[13]&FlagFIN != 0 {
		f.seq++
	}
	f.ack = binary.BigEndian.Uint32(tcp[8:])
	f.opens = binary.BigEndian.Uint16(tcp[14:])
	if w := f.clamp(f.opens, f.ack); w != f.opens {
		change16(tcp, 14, w, mend)
	}
}

// Inbound turns the header of a client's segment into the stack's numbers. It
// leaves the checksum: the stack is told that it has been verified.
func (f *Flow) Inbound(tcp []byte) {
	if f.delta == 0 && f.drift == 0 {
		return
	}
	if tcp[13]&FlagACK != 0 {
		binary.BigEndian.PutUint32(tcp[8:], binary.BigEndian.Uint32(tcp[8:])-f.delta)
	}
	end := int(tcp[12]>>4) * 4
	if end <= tcpMin || end > len(tcp) {
		return
	}
	if o := tcp[tcpMin:end]; len(o) == 12 && o[0] == optNop && o[1] == optNop && o[2] == optTimestamp {
		f.unstamp(o[4:])
		return
	}
	_ = eachOption(tcp[tcpMin:end], func(kind byte, value []byte) bool {
		switch {
		case kind == optTimestamp && len(value) == 8:
			f.unstamp(value)
		case kind == optSACK:
			for ; len(value) >= 4; value = value[4:] {
				binary.BigEndian.PutUint32(value, binary.BigEndian.Uint32(value)-f.delta)
			}
		}
		return true
	})
}

// unstamp translates the echo of a timestamp option's value.
func (f *Flow) unstamp(value []byte) {
	if f.state == Bounded {
		f.echo = binary.BigEndian.Uint32(value)
	}
	binary.BigEndian.PutUint32(value[4:], binary.BigEndian.Uint32(value[4:])-f.drift)
}

// change writes v to an offset of the header and mends the checksum by the
// difference (RFC 1624).
func change(tcp []byte, at int, v uint32, mend bool) {
	var old [4]byte
	copy(old[:], tcp[at:])
	binary.BigEndian.PutUint32(tcp[at:], v)
	if mend {
		mended(tcp, old[:], tcp[at:at+4], at)
	}
}

func change16(tcp []byte, at int, v uint16, mend bool) {
	var old [2]byte
	copy(old[:], tcp[at:])
	binary.BigEndian.PutUint16(tcp[at:], v)
	if mend {
		mended(tcp, old[:], tcp[at:at+2], at)
	}
}

// mended replaces old by new in the checksum.
func mended(tcp, old, new []byte, at int) {
	minus, plus := checksum.Checksum(old, 0), checksum.Checksum(new, 0)
	if at&1 == 1 { // the bytes are in each other's place in their words
		minus, plus = minus<<8|minus>>8, plus<<8|plus>>8
	}
	sum := ^binary.BigEndian.Uint16(tcp[16:])
	sum = checksum.Combine(checksum.Combine(sum, ^minus), plus)
	binary.BigEndian.PutUint16(tcp[16:], ^sum)
}
