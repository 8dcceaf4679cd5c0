package split

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// The least path MTU that a router is believed, in bytes. netstack takes each at its
// word, and one that it finds impossible for none at all: it then sends segments of a
// single byte for as long as the connection lives. Old routers say 0 (RFC 1191
// section 5), those that translate to IPv4 less than IPv6's least (RFC 8200 section 5),
// forgers what they like. For IPv4 it is what the kernel believes
// (net.ipv4.route.min_pmtu).
const (
	leastMTU4 = 552
	leastMTU6 = header.IPv6MinimumMTU
)

// temper changes an ICMP error that netstack would not take as it is meant, and
// mends its checksum: a path MTU below the least, and of the reasons why an IPv6
// destination cannot be reached those of which netstack knows nothing (RFC 4443
// section 3.1), such as that a firewall does not let it.
func (p packet) temper(ip []byte) {
	if p.start+header.ICMPv4MinimumSize > min(len(ip), p.end) {
		return
	}
	icmp := ip[p.start:]
	kind, code := icmp[0], icmp[1]
	switch {
	case p.transport == uint8(header.ICMPv4ProtocolNumber):
		if header.ICMPv4Code(code) == header.ICMPv4FragmentationNeeded && binary.BigEndian.Uint16(icmp[6:]) < leastMTU4 {
			replace16(icmp, 6, leastMTU4)
		}
	case p.transport != uint8(header.ICMPv6ProtocolNumber):
	case header.ICMPv6Type(kind) == header.ICMPv6PacketTooBig:
		if binary.BigEndian.Uint32(icmp[4:]) < leastMTU6 {
			replace16(icmp, 4, 0)
			replace16(icmp, 6, leastMTU6)
		}
	case header.ICMPv6Type(kind) == header.ICMPv6DstUnreachable:
		if header.ICMPv6Code(code) != header.ICMPv6PortUnreachable {
			replace16(icmp, 0, uint16(header.ICMPv6DstUnreachable)<<8|uint16(header.ICMPv6NetworkUnreachable))
		}
	}
}

// replace16 writes a word of an ICMP message and mends the checksum by the difference
// (RFC 1624).
func replace16(icmp []byte, at int, v uint16) {
	old := binary.BigEndian.Uint16(icmp[at:])
	binary.BigEndian.PutUint16(icmp[at:], v)
	sum := checksum.Combine(checksum.Combine(^binary.BigEndian.Uint16(icmp[2:]), ^old), v)
	binary.BigEndian.PutUint16(icmp[2:], ^sum)
}
