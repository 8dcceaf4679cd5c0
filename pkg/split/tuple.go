package split

import "net/netip"

// tuple is the two ends of a connection, in half of the memory that two
// netip.AddrPorts take. IPv4 addresses are kept in their mapped form.
type tuple struct {
	near, far         [16]byte
	nearPort, farPort uint16
}

// between returns the tuple of two ends, which have no zones.
func between(local, remote netip.AddrPort) tuple {
	return tuple{near: local.Addr().As16(), far: remote.Addr().As16(), nearPort: local.Port(), farPort: remote.Port()}
}

func (t *tuple) local() netip.AddrPort  { return unmapped(t.near, t.nearPort) }
func (t *tuple) remote() netip.AddrPort { return unmapped(t.far, t.farPort) }

func unmapped(a [16]byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), port)
}
