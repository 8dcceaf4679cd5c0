package split

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// etherLen is the length of an Ethernet header in bytes.
const etherLen = header.EthernetMinimumSize

// verdict says what becomes of a received frame.
type verdict uint8

// Verdicts. All but verdictPass drop the frame and are counted.
const (
	verdictPass      verdict = iota
	verdictMalformed         // lengths or versions contradict each other
	verdictForeign           // neither TCP nor an ICMP error, or our own frame
	verdictFragment          // an IP fragment: its TCP checksum cannot be verified
	verdictChecksum          // IP or transport checksum is wrong
	verdictTruncated         // longer than a receive slot
	verdictFilter            // a filter took it
	verdicts                 // how many there are
)

// packet is where the parts of an IP packet are. Offsets are in bytes from the
// IP header.
type packet struct {
	network   tcpip.NetworkProtocolNumber
	transport uint8 // IP protocol number
	start     int   // of the transport header
	end       int   // of the packet; Ethernet padding may follow
	pseudo    uint16
}

// parseFrame reads the Ethernet header of frame and the IP headers behind it.
// frame may be the beginning of the frame only, as long as it holds all IP
// headers; size is the whole frame's length. hub is our own address: frames
// from it are our own and not wanted.
func parseFrame(frame []byte, size int, hub tcpip.LinkAddress) (packet, verdict) {
	if len(frame) < etherLen || size < len(frame) {
		return packet{}, verdictMalformed
	}
	if bytes.Equal(frame[6:12], []byte(hub)) {
		return packet{}, verdictForeign
	}
	ip := frame[etherLen:]
	switch tcpip.NetworkProtocolNumber(binary.BigEndian.Uint16(frame[12:])) {
	case header.IPv4ProtocolNumber:
		return parseIPv4(ip, size-etherLen)
	case header.IPv6ProtocolNumber:
		return parseIPv6(ip, size-etherLen)
	default:
		return packet{}, verdictForeign
	}
}

// parseIPv4 reads an IPv4 header and verifies its checksum (RFC 791).
func parseIPv4(ip []byte, size int) (packet, verdict) {
	if len(ip) < header.IPv4MinimumSize || ip[0]>>4 != 4 {
		return packet{}, verdictMalformed
	}
	h := header.IPv4(ip)
	start, end := int(h.HeaderLength()), int(h.TotalLength())
	if start < header.IPv4MinimumSize || start > len(ip) || end < start || end > size {
		return packet{}, verdictMalformed
	}
	if checksum.Checksum(ip[:start], 0) != 0xffff {
		return packet{}, verdictChecksum
	}
	if h.More() || h.FragmentOffset() != 0 {
		return packet{}, verdictFragment
	}
	p := packet{network: header.IPv4ProtocolNumber, transport: h.Protocol(), start: start, end: end}
	p.pseudo = checksum.Checksum(ip[12:20], 0)
	return p, p.judge(ip)
}

// parseIPv6 reads an IPv6 header and the extension headers that hold nothing
// for a host that only receives (RFC 8200 section 4).
func parseIPv6(ip []byte, size int) (packet, verdict) {
	if len(ip) < header.IPv6MinimumSize || ip[0]>>4 != 6 {
		return packet{}, verdictMalformed
	}
	h := header.IPv6(ip)
	p := packet{network: header.IPv6ProtocolNumber, transport: h.NextHeader(), start: header.IPv6MinimumSize}
	p.end = p.start + int(h.PayloadLength())
	if p.end > size {
		return packet{}, verdictMalformed
	}
	for extension(p.transport) {
		if p.start+2 > len(ip) || p.start+2 > p.end {
			return packet{}, verdictMalformed
		}
		p.transport = ip[p.start]
		p.start += 8 * (int(ip[p.start+1]) + 1)
	}
	if header.IPv6ExtensionHeaderIdentifier(p.transport) == header.IPv6FragmentExtHdrIdentifier {
		return packet{}, verdictFragment
	}
	if p.start > p.end || p.start > len(ip) {
		return packet{}, verdictMalformed
	}
	p.pseudo = checksum.Checksum(ip[8:40], 0)
	return p, p.judge(ip)
}

// extension says that an IPv6 next-header value is an extension header that
// can be skipped by its length.
func extension(next uint8) bool {
	switch header.IPv6ExtensionHeaderIdentifier(next) {
	case header.IPv6HopByHopOptionsExtHdrIdentifier, header.IPv6RoutingExtHdrIdentifier, header.IPv6DestinationOptionsExtHdrIdentifier:
		return true
	}
	return false
}

// judge lets TCP pass, and the ICMP errors that netstack needs to learn of a
// small path MTU or an unreachable server. Nothing else reaches netstack: it
// would answer pings for every address there is.
func (p packet) judge(ip []byte) verdict {
	kind := uint8(0)
	if p.start < len(ip) && p.start < p.end {
		kind = ip[p.start]
	}
	switch {
	case p.transport == uint8(header.TCPProtocolNumber):
		if p.end-p.start < header.TCPMinimumSize {
			return verdictMalformed
		}
		return verdictPass
	case p.network == header.IPv4ProtocolNumber && p.transport == uint8(header.ICMPv4ProtocolNumber) && kind == uint8(header.ICMPv4DstUnreachable):
		return verdictPass
	case p.network == header.IPv6ProtocolNumber && p.transport == uint8(header.ICMPv6ProtocolNumber) && kind >= 1 && kind <= 4:
		return verdictPass
	}
	return verdictForeign
}

// verify checks the transport checksum (RFC 9293 section 3.1, RFC 792,
// RFC 4443) of a packet whose bytes lie in two parts. The first part holds all
// IP headers and ends at an even offset unless the second part is empty.
func (p packet) verify(first, second []byte) bool {
	sum := uint16(0)
	if p.transport != uint8(header.ICMPv4ProtocolNumber) {
		sum = checksum.Combine(p.pseudo, uint16(p.transport))
		sum = checksum.Combine(sum, uint16(p.end-p.start))
	}
	sum = checksum.Checksum(first[p.start:min(p.end, len(first))], sum)
	if rest := p.end - len(first); rest > 0 {
		sum = checksum.Checksum(second[:rest], sum)
	}
	return sum == 0xffff
}
