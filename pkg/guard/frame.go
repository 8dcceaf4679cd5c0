package guard

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

const (
	ip4Len   = 20
	ip6Len   = 40
	protoTCP = 6
	hopLimit = 64
)

// MaxHeaders is the most bytes that Segment.Append adds.
const MaxHeaders = ip6Len + tcpMin + 40

// Segment is a segment without payload that the guard sends, to the client or
// to the stack.
type Segment struct {
	Flags    byte
	Window   uint16
	Seq, Ack uint32
	// Options of a SYN; MSS 0 means that it is none. Scale NoScale sends none.
	MSS   uint16
	Scale int8
	SACK  bool
	// Stamps sends TSVal and TSEcr.
	Stamps       bool
	TSVal, TSEcr uint32
}

// ToClient and ToServer say which end of a connection a segment goes to.
const (
	ToClient = true
	ToServer = false
)

// Append appends the IP and TCP headers of s with their checksums to b. v6 is
// the version of e's addresses.
func (s *Segment) Append(b []byte, e *Ends, v6, toClient bool) []byte {
	from, to, sport, dport := &e.Client, &e.Server, e.ClientPort, e.ServerPort
	if toClient {
		from, to, sport, dport = to, from, dport, sport
	}
	begin := len(b)
	var opts [40]byte
	n := s.options(opts[:])
	sum := uint16(0)
	if v6 {
		b = append(b, 0x60, 0, 0, 0, byte((tcpMin+n)>>8), byte(tcpMin+n), protoTCP, hopLimit)
		b = append(append(b, from[:]...), to[:]...)
		sum = checksum.Checksum(b[begin+8:begin+40], 0)
	} else {
		b = append(b, 0x45, 0, 0, byte(ip4Len+tcpMin+n), 0, 0, 0x40, 0, hopLimit, protoTCP, 0, 0)
		b = append(append(b, from[12:]...), to[12:]...)
		binary.BigEndian.PutUint16(b[begin+10:], ^checksum.Checksum(b[begin:begin+ip4Len], 0))
		sum = checksum.Checksum(b[begin+12:begin+20], 0)
	}
	tcp := len(b)
	b = binary.BigEndian.AppendUint16(b, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = binary.BigEndian.AppendUint32(b, s.Seq)
	b = binary.BigEndian.AppendUint32(b, s.Ack)
	b = append(b, byte((tcpMin+n)/4)<<4, s.Flags)
	b = binary.BigEndian.AppendUint16(b, s.Window)
	b = append(b, 0, 0, 0, 0)
	b = append(b, opts[:n]...)
	sum = checksum.Combine(checksum.Combine(sum, protoTCP), uint16(tcpMin+n))
	binary.BigEndian.PutUint16(b[tcp+16:], ^checksum.Checksum(b[tcp:], sum))
	return b
}

// options writes the options in Linux's order and returns their length, a
// multiple of four.
func (s *Segment) options(o []byte) int {
	n := 0
	if s.MSS > 0 {
		n += copy(o, []byte{optMSS, 4, byte(s.MSS >> 8), byte(s.MSS)})
	}
	sack := s.MSS > 0 && s.SACK
	switch {
	case s.Stamps && sack:
		n += copy(o[n:], []byte{optSACKOK, 2})
	case s.Stamps || sack:
		n += copy(o[n:], []byte{optNop, optNop})
	}
	if s.Stamps {
		n += copy(o[n:], []byte{optTimestamp, 10})
		binary.BigEndian.PutUint32(o[n:], s.TSVal)
		binary.BigEndian.PutUint32(o[n+4:], s.TSEcr)
		n += 8
	} else if sack {
		n += copy(o[n:], []byte{optSACKOK, 2})
	}
	if s.MSS > 0 && s.Scale != NoScale {
		n += copy(o[n:], []byte{optNop, optScale, 3, byte(s.Scale)})
	}
	return n
}

// Answer returns the SYN-ACK with a cookie to a client's SYN.
func (j *Jar) Answer(e *Ends, h Hello, a Offer, clock uint32) Segment {
	isn, stamp := j.Bake(e, h, a.Window > 0, clock)
	s := Segment{
		Flags: FlagSYN | FlagACK, Window: a.Window, Seq: isn, Ack: h.ISN + 1,
		MSS: a.MSS, Scale: NoScale, SACK: h.SACK, Stamps: h.Stamps, TSVal: stamp, TSEcr: h.TSVal,
	}
	if h.Scale >= 0 {
		s.Scale = a.Scale
	}
	return s
}

// Offer is what our SYN-ACKs offer: our window in bytes (0 in zero-window
// mode), our segment size, and the scale of later windows.
type Offer struct {
	Window uint16
	MSS    uint16
	Scale  int8
}
