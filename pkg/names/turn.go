package names

import (
	"net/netip"
	"slices"
)

// InTurn is the order in which a name's addresses are tried: by turns of either IP version,
// of which one may be dead as a whole (RFC 8305 section 4), IPv6 first if six; each once.
func InTurn(addrs []netip.Addr, six bool) []netip.Addr {
	var by [2][]netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); !slices.Contains(by[0], a) && !slices.Contains(by[1], a) {
			i := 0
			if a.Is6() != six {
				i = 1
			}
			by[i] = append(by[i], a)
		}
	}
	var mixed []netip.Addr
	for i := range max(len(by[0]), len(by[1])) {
		for _, of := range by {
			if i < len(of) {
				mixed = append(mixed, of[i])
			}
		}
	}
	return mixed
}
