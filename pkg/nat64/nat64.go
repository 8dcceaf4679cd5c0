// Package nat64 finds out by which prefix a network with IPv6 only translates to IPv4
// (NAT64), and makes the addresses that it translates: RFC 7050, RFC 6052.
package nat64

import (
	"net/netip"
	"slices"
)

// Name is what is looked up: it has the IPv4 addresses of wellKnown and no IPv6 ones. Name
// servers of a network with NAT64 (DNS64) answer for its sake with both behind the prefix.
const Name = "ipv4only.arpa."

// wellKnown are Name's addresses (RFC 7050 section 2.2).
var wellKnown = [2]netip.Addr{netip.AddrFrom4([4]byte{192, 0, 0, 170}), netip.AddrFrom4([4]byte{192, 0, 0, 171})}

// lengths are those of prefixes, the usual one first. reserved is the octet that none of the
// shorter ones spreads the IPv4 address over (RFC 6052 section 2.2, "u").
var lengths = [...]int{96, 64, 56, 48, 40, 32}

const reserved = 8

// Embed is the IPv6 address that stands for an IPv4 one behind a prefix. It is invalid where
// the prefix has another length than RFC 6052 knows, or the address is none of IPv4.
func Embed(prefix netip.Prefix, address netip.Addr) netip.Addr {
	address = address.Unmap()
	if !slices.Contains(lengths[:], prefix.Bits()) || !prefix.Addr().Is6() || !address.Is4() {
		return netip.Addr{}
	}
	out, four := prefix.Masked().Addr().As16(), address.As4()
	for i, at := range places(prefix.Bits()) {
		out[at] = four[i]
	}
	return netip.AddrFrom16(out)
}

// places are the octets that an IPv4 address takes behind a prefix of that length.
func places(bits int) (at [4]int) {
	next := bits / 8
	for i := range at {
		if next == reserved {
			next++
		}
		at[i], next = next, next+1
	}
	return at
}

// hit is a prefix behind which an answer may have one of the well-known addresses.
type hit struct {
	prefix netip.Prefix
	of     netip.Addr
}

// hits are all of one answer. There are several where the prefix itself has the octets of a
// well-known address.
func hits(answer netip.Addr) (found []hit) {
	if !answer.Is6() || answer.Is4In6() || !answer.IsGlobalUnicast() {
		return nil
	}
	for _, bits := range lengths {
		// A /96 is taken as it is: whoever has one whose octet is not zero translates by it.
		if b := answer.As16(); bits < 96 && b[reserved] != 0 {
			continue
		}
		prefix := netip.PrefixFrom(answer.WithZone(""), bits).Masked()
		if prefix.Addr().IsUnspecified() {
			continue // ::192.0.0.170
		}
		for _, of := range wellKnown {
			if holds(answer, bits, of) {
				found = append(found, hit{prefix, of})
			}
		}
	}
	return found
}

// holds tells whether an IPv4 address stands behind the prefix of that length. What follows
// it is of no account (RFC 6052 section 2.2).
func holds(answer netip.Addr, bits int, of netip.Addr) bool {
	b, four := answer.As16(), of.As4()
	for i, at := range places(bits) {
		if b[at] != four[i] {
			return false
		}
	}
	return true
}

// Tells says whether an address of Name tells of a prefix.
func Tells(answer netip.Addr) bool { return len(hits(answer)) > 0 }

// Prefixes are those that the addresses of Name tell of, in their order: those first by which
// both well-known addresses stand there, then what an answer tells that can be read in one
// way only (RFC 7050 section 3).
func Prefixes(answers []netip.Addr) (sure []netip.Prefix) {
	var likely []netip.Prefix
	by := map[netip.Prefix]map[netip.Addr]bool{}
	for _, a := range answers {
		for _, h := range hits(a) {
			if by[h.prefix] == nil {
				by[h.prefix] = map[netip.Addr]bool{}
			}
			by[h.prefix][h.of] = true
		}
	}
	for _, a := range answers {
		found := hits(a)
		for _, h := range found {
			switch {
			case slices.Contains(sure, h.prefix) || slices.Contains(likely, h.prefix):
			case len(by[h.prefix]) == len(wellKnown):
				sure = append(sure, h.prefix)
			case len(found) == 1:
				likely = append(likely, h.prefix)
			}
		}
	}
	return append(sure, likely...)
}
