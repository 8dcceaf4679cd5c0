package splice

import (
	"encoding/binary"
	"net/netip"
)

// Offsets and lengths in IP headers (RFC 791, RFC 8200), in bytes.
const (
	ip4Len    = 20
	ip6Len    = 40
	ip4Size   = 2
	ip4TTL    = 8
	ip4Proto  = 9
	ip4Sum    = 10
	ip4Src    = 12
	ip4Dst    = 16
	ip6Size   = 4
	ip6Next   = 6
	ip6Hops   = 7
	ip6Src    = 8
	ip6Dst    = 24
	protoICMP = 1
	protoTCP  = 6
	protoIP6I = 58
	hops      = 64 // of packets that we make
	maxPacket = 65535
)

// Packet is one IP packet that the caller has verified: versions, lengths and
// checksums are right, and it is no fragment.
type Packet struct {
	// Header is the packet's beginning, which holds the IP and TCP headers and
	// may hold payload. It is only read.
	Header []byte
	Start  int // where the transport header begins in Header
	Size   int // of the whole packet, in bytes
	// Partial says that the TCP checksum holds only the sum of the pseudo
	// header, for somebody below to complete. Segment is the payload per
	// segment of a packet that stands for several, else 0. Handle changes both
	// where the packet that leaves differs.
	Partial bool
	Segment int

	// Out and Skip are Handle's answer to a packet that goes on: Out replaces
	// the first Skip bytes. Out is valid until the next call.
	Out  []byte
	Skip int
}

// ends returns the packet's addresses and ports. Start lies within Header with
// four bytes behind it.
func (p *Packet) ends() (src, dst netip.AddrPort) {
	h := p.Header
	ports := h[p.Start:]
	from, to := binary.BigEndian.Uint16(ports), binary.BigEndian.Uint16(ports[2:])
	if h[0]>>4 == 4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(h[ip4Src:])), from), netip.AddrPortFrom(netip.AddrFrom4([4]byte(h[ip4Dst:])), to)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(h[ip6Src:])), from), netip.AddrPortFrom(netip.AddrFrom16([16]byte(h[ip6Dst:])), to)
}

// whole says that the packet's IP header and the ports behind it can be read.
func (p *Packet) whole() bool {
	h := p.Header
	if len(h) < 1 || p.Size < p.Start || p.Size > maxPacket+ip6Len || len(h) > p.Size {
		return false
	}
	least := ip6Len
	if h[0]>>4 == 4 {
		least = ip4Len
	} else if h[0]>>4 != 6 {
		return false
	}
	return p.Start >= least && p.Start <= len(h)-8
}

// addressSum is the sum of both addresses of an IP header.
func addressSum(ip []byte) uint16 {
	if ip[0]>>4 == 4 {
		return sum(ip[ip4Src : ip4Dst+4])
	}
	return sum(ip[ip6Src : ip6Dst+16])
}

// pseudoSum is the sum of the pseudo header (RFC 9293 section 3.1) of a
// transport segment of size bytes.
func pseudoSum(ip []byte, proto byte, size int) uint16 {
	return fold(uint32(addressSum(ip)) + uint32(proto) + uint32(size>>16) + uint32(size&0xffff))
}

// setSource and setDestination write an address of the header's own family.
func setSource(ip []byte, a netip.Addr)      { putAddr(ip, a, ip4Src, ip6Src) }
func setDestination(ip []byte, a netip.Addr) { putAddr(ip, a, ip4Dst, ip6Dst) }

func putAddr(ip []byte, a netip.Addr, at4, at6 int) {
	if a.Is4() {
		b := a.As4()
		copy(ip[at4:], b[:])
		return
	}
	b := a.As16()
	copy(ip[at6:], b[:])
}

// setSize writes the packet's length in bytes, and the checksum of an IPv4
// header.
func setSize(ip []byte, size int) {
	if ip[0]>>4 == 6 {
		binary.BigEndian.PutUint16(ip[ip6Size:], uint16(size-ip6Len))
		return
	}
	binary.BigEndian.PutUint16(ip[ip4Size:], uint16(size))
	length := int(ip[0]&0x0f) * 4
	ip[ip4Sum], ip[ip4Sum+1] = 0, 0
	binary.BigEndian.PutUint16(ip[ip4Sum:], ^sum(ip[:length]))
}

// appendIP appends an IP header for a packet from src to dst; setSize completes
// it.
func appendIP(b []byte, src, dst netip.Addr, proto byte) []byte {
	at := len(b)
	if src.Is4() {
		b = append(b, make([]byte, ip4Len)...)
		b[at], b[at+6], b[at+ip4TTL], b[at+ip4Proto] = 0x45, 0x40, hops, proto // do not fragment
	} else {
		b = append(b, make([]byte, ip6Len)...)
		b[at], b[at+ip6Next], b[at+ip6Hops] = 0x60, proto, hops
	}
	setSource(b[at:], src)
	setDestination(b[at:], dst)
	return b
}
